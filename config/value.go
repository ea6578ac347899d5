package config

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// choice is one of the words that the oneof tag lists, in lower case.
type choice string

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *choice) UnmarshalText(text []byte) error {
	*c = choice(strings.ToLower(string(text)))
	return nil
}

// boolean is a bool in a format that strconv.ParseBool accepts.
type boolean bool

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *boolean) UnmarshalText(text []byte) error {
	b, err := strconv.ParseBool(string(text))
	if err != nil {
		return invalid("is neither")
	}
	*f = boolean(b)
	return nil
}

// minTimeout is shorter than any network round trip.
const minTimeout = time.Millisecond

// timeout is a maximum duration, of at least minTimeout.
type timeout time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *timeout) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err == nil && d < minTimeout {
		err = invalid("is too short")
	}
	*t = timeout(d)
	return err
}

// delay is a time to wait; 0 means no wait.
type delay time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *delay) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err == nil && d < 0 {
		err = invalid("is negative")
	}
	*p = delay(d)
	return err
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, invalid("has no unit")
	}
	return 0, invalid("is not a duration")
}

// maxCount is far more than one process can serve.
const maxCount = 1_000_000

// number is a count from 1 to maxCount.
type number int

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *number) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return invalid("is not a whole number")
	case err != nil || n < 1 || n > maxCount:
		return invalid("is out of range")
	}
	*c = number(n)
	return nil
}

// fileMode is the mode of a file, from 0600 to 0777.
type fileMode fs.FileMode

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *fileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if errors.Is(err, strconv.ErrSyntax) {
		return invalid("is not an octal number")
	}
	if err != nil || n < 0o600 || n > 0o777 {
		return invalid("is out of range")
	}
	*m = fileMode(n)
	return nil
}
