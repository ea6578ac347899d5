package batch

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"mimecast-proxy/secret"
)

// StallTimeout is how long a host may send nothing before its download fails.
const StallTimeout = stallTimeout

// MaxList is the maximum size of a list, in bytes.
const MaxList = maxList

// ConnectTo makes the transport connect to port instead of 443, where a test cannot listen.
func (t *Transport) ConnectTo(port uint16) {
	t.port = port
	now := t.forRoots.Load()
	for _, way := range []*http.Transport{now.direct, now.local} {
		dial := way.DialContext
		way.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return dial(ctx, network, net.JoinHostPort(host, strconv.Itoa(int(port))))
		}
	}
}

// Seal seals a URL in a list as a proxy with the secret would.
func Seal(t *testing.T, key, list, address string, expiry, now time.Time) string {
	t.Helper()
	aead, err := newAEAD(secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return seal(aead, list, address, expiry, now)
}

// NewBody returns a response body as the transport returns it.
func NewBody(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { _ = body.Close() }) // as net/http does
	return &impatientBody{ReadCloser: body, ctx: ctx, cancel: cancel, release: func() {}}
}
