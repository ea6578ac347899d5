package app

import (
	"fmt"
	"time"
)

// maxClockSkew is how far a clock may be off without a warning. A token's lifetime is
// counted from when it was fetched, so the clock need not be right to the second.
const maxClockSkew = time.Minute

// clockSkewWarning says what is wrong with this machine's clock, or nothing.
func clockSkewWarning(ahead time.Duration) string {
	if ahead.Abs() < maxClockSkew {
		return ""
	}
	which := "ahead of"
	if ahead < 0 {
		which = "behind"
	}
	return fmt.Sprintf("this machine's clock is %v %s Mimecast's; set it: certificates and time ranges in requests depend on it", ahead.Abs().Round(time.Second), which)
}
