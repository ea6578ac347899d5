package resend

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

const (
	// maxPrefix limits how much is read of a body that the client may not get, in
	// bytes. It is read to find the error code or to free its connection.
	maxPrefix = 8 << 10
	// drainTimeout limits the wait for such a body.
	drainTimeout = 2 * time.Second
)

// BufferPrefix reads up to 8 KiB of a response's body for up to 2 s, and returns them.
// The response's body still yields the same bytes. If the whole body was read, its
// connection is free for other requests.
func BufferPrefix(res *http.Response) []byte {
	if p, ok := res.Body.(*prefixed); ok {
		return p.head
	}
	head, err := readSome(res.Body)
	res.Body = &prefixed{io.MultiReader(bytes.NewReader(head), errReader{err}, res.Body), res.Body, head}
	return head
}

// prefixed is a body whose first bytes were read ahead.
type prefixed struct {
	io.Reader
	io.Closer
	head []byte
}

// readSome reads up to maxPrefix bytes. It closes a body that has not arrived after
// drainTimeout.
func readSome(body io.ReadCloser) ([]byte, error) {
	impatient := time.AfterFunc(drainTimeout, func() { _ = body.Close() })
	defer impatient.Stop()
	return io.ReadAll(io.LimitReader(body, maxPrefix))
}

// errReader returns err from Read, or io.EOF if err is nil.
type errReader struct{ err error }

func (f errReader) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// DrainAndClose drains and closes the body of a response that the client does not get.
// Its connection can then be reused.
func DrainAndClose(res *http.Response) {
	_, _ = readSome(res.Body) // the content does not matter
	_ = res.Body.Close()
}
