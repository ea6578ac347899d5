package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/rs/zerolog"
)

// maxStack bounds the stack of a panic, in bytes.
const maxStack = 64 << 10

// Recover returns next with its panics logged. The connection is closed, as
// net/http does it, which then prints nothing itself. [Telemetry.Wrap] has it.
func (t *Telemetry) Recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recovered := recover(); recovered != nil {
				t.logPanic(recovered, "")
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// isPanic reports whether what a handler panicked with is a fault, and not
// http.ErrAbortHandler, which is how a response that was cut shows as cut.
func isPanic(recovered any) bool {
	err, ok := recovered.(error)
	return recovered != nil && (!ok || !errors.Is(err, http.ErrAbortHandler))
}

// logPanic writes the line of a panic, with its stack. It is called by what
// recovered, while the stack is there.
func (t *Telemetry) logPanic(recovered any, requestID string) {
	if !isPanic(recovered) {
		return
	}
	stack := make([]byte, maxStack)
	stack = stack[:runtime.Stack(stack, false)]
	e := t.log.WithLevel(zerolog.ErrorLevel).
		Str(timeField, formatTime(time.Now())).
		Str(t.msgField, "panic").
		Str("error", t.scrub(fmt.Sprint(recovered)))
	optional(e, "request_id", requestID)
	e.Str("stack", t.redactor.Redact(string(stack))).Send()
}
