package config

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// choice is one of a few words, which the tag oneof lists.
type choice string

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *choice) UnmarshalText(text []byte) error {
	*c = choice(strings.ToLower(string(text)))
	return nil
}

// flag is true or false, as strconv.ParseBool reads them.
type flag bool

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *flag) UnmarshalText(text []byte) error {
	b, err := strconv.ParseBool(string(text))
	if err != nil {
		return refuse("is neither")
	}
	*f = flag(b)
	return nil
}

// leastTimeout is less than anything takes over a network.
const leastTimeout = time.Millisecond

// timeout is how long something may take.
type timeout time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *timeout) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err == nil && d < leastTimeout {
		err = refuse("is too short")
	}
	*t = timeout(d)
	return err
}

// pause is how long to wait; 0 is not at all.
type pause time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *pause) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err == nil && d < 0 {
		err = refuse("is negative")
	}
	*p = pause(d)
	return err
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, refuse("has no unit")
	}
	return 0, refuse("is not a duration")
}

// maxCount is far beyond what one process could serve.
const maxCount = 1_000_000

// count is how many of something there may be.
type count int

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *count) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return refuse("is not a whole number")
	case err != nil || n < 1 || n > maxCount:
		return refuse("is out of range")
	}
	*c = count(n)
	return nil
}

// mode is the mode of a file that its owner can at least read and write.
type mode fs.FileMode

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *mode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if errors.Is(err, strconv.ErrSyntax) {
		return refuse("is not an octal number")
	}
	if err != nil || n < 0o600 || n > 0o777 {
		return refuse("is out of range")
	}
	*m = mode(n)
	return nil
}
