package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/rs/zerolog"
)

// maxStack limits the logged stack of a panic, in bytes.
const maxStack = 64 << 10

// Recover returns next with its panics logged. It then panics with
// http.ErrAbortHandler, so that net/http closes the connection and prints nothing.
// [Telemetry.Wrap] includes this.
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

// isPanic reports whether a recovered value is a real panic. It is not for nil and
// http.ErrAbortHandler, which only cuts the response.
func isPanic(recovered any) bool {
	err, ok := recovered.(error)
	return recovered != nil && (!ok || !errors.Is(err, http.ErrAbortHandler))
}

// logPanic logs a panic with its stack. Call it in the deferred func that recovered,
// while the stack still exists.
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
