package app

import (
	"fmt"
	"time"
)

// maxClockSkew is the smallest clock skew that causes a warning. Less is harmless, since a
// token's lifetime counts from when it was fetched.
const maxClockSkew = time.Minute

// clockSkewWarning returns a warning about this machine's clock; empty if the skew is below
// maxClockSkew.
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
