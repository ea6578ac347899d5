package upstream

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"testing"
)

// A request whose connections others take goes on dialing. One whose connections nobody can
// use gives up.
func TestOnlyUnusedConnectionsCountAgainstARequest(t *testing.T) {
	for _, taken := range []bool{true, false} {
		gate := newDialGate()
		dial := gate.dialWith(func(context.Context, string, string) (net.Conn, error) { return &net.TCPConn{}, nil })
		ctx, cancel := context.WithCancelCause(t.Context())
		dialer, other := &attempt{dials: gate, cancel: cancel}, &attempt{dials: gate}
		ctx = context.WithValue(ctx, attemptKey{}, dialer)
		gate.startWaiting(dialer)
		var err error
		for range 3 * maxUnused {
			var c net.Conn
			if c, err = dial(ctx, "tcp", ""); err != nil {
				break
			}
			if taken {
				other.gotConn(httptrace.GotConnInfo{Conn: c})
			}
		}
		if taken && err != nil || !taken && !errors.Is(err, errConnectionsRejected) {
			t.Errorf("taken by others is %v: %v", taken, err)
		}
	}
}
