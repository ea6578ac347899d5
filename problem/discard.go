package problem

import (
	"io"
	"net/http"
	"time"
)

const (
	// discardLimit is how much [Discard] reads, in bytes. discardTimeout limits the
	// total time, and discardSilence the wait for more data.
	discardLimit   = 64 << 20
	discardTimeout = 10 * time.Second
	discardSilence = 2 * time.Second
	// discardBuffer is small, since any client can make the proxy allocate one. It is
	// in bytes.
	discardBuffer = 4 << 10
)

// Discard flushes the response written to w, then reads and discards the rest of the
// request body. It reads at most 64 MiB for at most 10 s. It stops when the client is
// silent for 2 s.
//
// Without Discard, net/http closes the connection while the body is still arriving, and
// the TCP reset overtakes the response. A client that writes its whole body before it
// reads would never see the response.
//
// The response must be complete. w must be in full duplex mode. The response must be
// the last of its connection, since part of the body may stay unread.
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
