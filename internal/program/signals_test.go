package program

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The logs have a line every ten seconds: the level of a request, or the state that the
// health changed to.
func TestLevelsFollowTheHealth(t *testing.T) {
	t.Parallel()
	began := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		log   string
		wrong int
	}{
		{"info warn warn", 0},
		{"warn error", 1},
		{"warn =down error =ok warn", 0},
		{"=down error warn info error =ok", 1},
		{"=degraded error =ok error warn", 2},
		{"=down error", 0},
		{"=down warn", 1},
	} {
		var log strings.Builder
		at := began
		for word := range strings.FieldsSeq(c.log) {
			msg, level, state := "request", word, ""
			if text, ok := strings.CutPrefix(word, "="); ok {
				msg, level, state = "health changed", "warn", text
			}
			fmt.Fprintf(&log, `{"msg":%q,"level":%q,"state":%q,"time":%q}`+"\n", msg, level, state, at.Format(time.RFC3339))
			at = at.Add(10 * time.Second)
		}
		if wrong := wrongLevels(log.String(), at); len(wrong) != c.wrong {
			t.Errorf("%s: %d of %d: %s", c.log, len(wrong), c.wrong, wrong)
		}
	}
	line := fmt.Sprintf(`{"msg":"request","level":"error","time":%q}`, began.Format(time.RFC3339))
	if wrong := wrongLevels(line, began.Add(levelTime/2)); len(wrong) > 0 {
		t.Errorf("the change has no line yet: %s", wrong)
	}
}
