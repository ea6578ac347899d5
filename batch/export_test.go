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

// StallTimeout is how long a host may send nothing.
const StallTimeout = stallTimeout

// MaxList is the size of the largest list.
const MaxList = maxList

// ConnectTo makes the transport connect to that port in the place of 443, where a test
// cannot listen.
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

// Seal seals a URL of a list as a proxy does that has the secret.
func Seal(t *testing.T, key, list, address string, expiry, now time.Time) string {
	t.Helper()
	aead, err := newAEAD(secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return seal(aead, list, address, expiry, now)
}

// NewBody is the body of a response as the transport hands it on.
func NewBody(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { _ = body.Close() }) // as net/http does
	return &impatientBody{ReadCloser: body, ctx: ctx, cancel: cancel, release: func() {}}
}
