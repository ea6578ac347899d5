package guard_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
)

// TestSilentUploadGivesItsSlotToAnother holds that a client which begins uploads
// and sends nothing keeps no other from being served.
func TestSilentUploadGivesItsSlotToAnother(t *testing.T) {
	g, err := newGuard(guard.Policy{MaxRequests: 2})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			if p, ok := errors.AsType[*problem.Problem](err); ok { // else the test is over
				w.Header().Set("Connection", "close")
				p.ServeHTTP(w, r)
			}
		}
	})))
	defer srv.Close()
	cut := make(chan *http.Response, 2)
	for n := range 2 {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		go func() {
			if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil { // else the test is over
				_ = res.Body.Close()
				cut <- res
			}
		}()
		for g.InFlight() <= n {
			time.Sleep(time.Millisecond)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			break // the stalled upload made room
		}
		if time.Now().After(deadline) {
			t.Fatal("silent uploads keep every slot")
		}
	}
	// Either of them: that a request is in flight does not say when its body is read.
	if res := <-cut; res.StatusCode != http.StatusServiceUnavailable || res.Header.Get(problem.Header) != string(event.TooBusy) || res.Header.Get("Retry-After") == "" {
		t.Errorf("the silent upload got %d %v", res.StatusCode, res.Header)
	}
}
