package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// defaultReplayMemory limits the kept request bodies if the process has no memory
// limit, in bytes.
const defaultReplayMemory size = 64 << 20

// size is a number of bytes.
type size int64

// units are the binary units of GOMEMLIMIT, largest first.
var units = []struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the format of
// GOMEMLIMIT: a number of bytes, with or without a binary unit.
func (s *size) UnmarshalText(text []byte) error {
	digits, shift := string(text), 0
	for _, u := range units {
		if before, ok := strings.CutSuffix(digits, u.name); ok {
			digits, shift = before, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return invalid("is not a size")
	case err != nil || n > math.MaxInt64>>shift:
		return invalid("is too large")
	}
	*s = size(n << shift)
	return nil
}

// String returns the size in the largest unit that leaves no remainder.
func (s size) String() string {
	for _, u := range units {
		if s != 0 && s%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d%s", s>>u.shift, u.name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// headerSize is the maximum size of a request header, in bytes.
type headerSize size

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *headerSize) UnmarshalText(text []byte) error {
	var n size
	if err := n.UnmarshalText(text); err != nil {
		return err
	}
	if n < 1<<10 || n > 1<<20 {
		return invalid("is out of range")
	}
	*h = headerSize(n)
	return nil
}

// memoryLimit is a soft memory limit in the format of GOMEMLIMIT; 0 means none.
type memoryLimit size

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *memoryLimit) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		return nil
	}
	return (*size)(m).UnmarshalText(text)
}

// replayMemory returns the limit for kept request bodies, in bytes. The default is at
// most half of the memory limit.
func replayMemory(v variables) int64 {
	switch {
	case v.ReplayMemory != nil:
		return int64(*v.ReplayMemory)
	case v.MemoryLimit > 0:
		return int64(min(defaultReplayMemory, size(v.MemoryLimit)/2))
	}
	return int64(defaultReplayMemory)
}
