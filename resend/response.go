package resend

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

const (
	// maxPrefix bounds what is read of a body that nobody may get, to find the code in
	// it or to free its connection.
	maxPrefix = 8 << 10
	// drainTimeout bounds how long such a body is waited for.
	drainTimeout = 2 * time.Second
)

// BufferPrefix reads the body of a response, so that its connection can be used by
// others or closed, and leaves it as it was. It returns what there is, up to 8 KiB.
func BufferPrefix(res *http.Response) []byte {
	if p, ok := res.Body.(*prefixed); ok {
		return p.head
	}
	head, err := readSome(res.Body)
	res.Body = &prefixed{io.MultiReader(bytes.NewReader(head), errReader{err}, res.Body), res.Body, head}
	return head
}

// prefixed is a body whose beginning was read.
type prefixed struct {
	io.Reader
	io.Closer
	head []byte
}

// readSome reads up to maxPrefix bytes, for as long as drainTimeout lasts: a body
// that has not arrived by then is cut off.
func readSome(body io.ReadCloser) ([]byte, error) {
	impatient := time.AfterFunc(drainTimeout, func() { _ = body.Close() })
	defer impatient.Stop()
	return io.ReadAll(io.LimitReader(body, maxPrefix))
}

// errReader is a reader that gives an error, or nothing at all.
type errReader struct{ err error }

func (f errReader) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// DrainAndClose ends with a response that nobody gets, so that its connection can be
// used again.
func DrainAndClose(res *http.Response) {
	_, _ = readSome(res.Body) // what is left is no matter
	_ = res.Body.Close()
}
