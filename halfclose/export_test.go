package halfclose

import "time"

// SetSilence shortens the silence for a test, until it calls the func.
func SetSilence(d time.Duration) (restore func()) {
	before := silence
	silence = d
	return func() { silence = before }
}
