package problem

import (
	"io"
	"net/http"
	"time"
)

const (
	// discardLimit bounds what [Discard] reads, in bytes; discardTimeout for how
	// long, and discardSilence for how long it waits for more.
	discardLimit   = 64 << 20
	discardTimeout = 10 * time.Second
	discardSilence = 2 * time.Second
	// discardBuffer is small, since anybody can make the proxy hold one.
	discardBuffer = 4 << 10
)

// Discard sends the response that was written to w, and reads and discards the rest
// of the request's body: at most 64 MiB, for at most 10 s, and as long as the client
// is never silent for 2 s. Without that, net/http closes the connection while the
// body still arrives, and the reset overtakes the response: a client that writes
// its whole body before it reads never sees the response.
//
// The response must be complete. w must be in full duplex, and its response the
// last of the connection, since the body may not be read to its end.
func Discard(w http.ResponseWriter, body io.Reader) {
	out := http.NewResponseController(w)
	_ = out.Flush() // the client may be gone
	end := time.Now().Add(discardTimeout)
	buf := make([]byte, discardBuffer)
	for left := discardLimit; left > 0; {
		now := time.Now()
		if now.After(end) || out.SetReadDeadline(earlier(end, now.Add(discardSilence))) != nil {
			return
		}
		n, err := body.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
