package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/upstream"
)

// explain sends a request to a host that cannot be reached, and returns the error's
// explanation.
func explain(t *testing.T, u upstream.Options, target string) *problem.Problem {
	t.Helper()
	connections := upstream.New(u)
	defer connections.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "POST", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := connections.RoundTrip(req)
	if err == nil {
		res.Body.Close()
		t.Fatal("answered")
	}
	return upstream.Explain(err)
}

func TestCorporateProxyThatRefusesIsNamed(t *testing.T) {
	const none, refused, unsupported, closed = "requires a user and password", "rejected the user and password", "Run cntlm or px", "Ask its operators"
	for _, c := range []struct {
		status int
		offers []string
		given  *url.Userinfo
		advice string
	}{
		{407, []string{`Basic realm="corporate, NTLM"`}, nil, none},
		{407, nil, nil, none},
		{407, nil, url.UserPassword("jdoe", "wrong"), refused},
		{407, []string{`Basic realm="corporate"`}, url.UserPassword("jdoe", "wrong"), refused},
		{407, []string{"Negotiate", "NTLM"}, nil, unsupported},
		{407, []string{"Negotiate, NTLM"}, nil, unsupported},
		{407, []string{"negotiate"}, url.UserPassword("jdoe", "right"), unsupported},
		{407, []string{`Digest realm="a \", Basic b", nonce="x", charset = "UTF-8"`}, nil, unsupported},
		{407, []string{"NTLM", `basic realm="corporate"`}, nil, none},
		{407, []string{`Negotiate, Basic realm="corporate"`}, url.User("jdoe"), refused},
		{403, nil, nil, closed},
		{404, []string{"NTLM"}, nil, closed},
	} {
		corporate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if given := r.Header.Get("Proxy-Authorization") != ""; r.Method != http.MethodConnect || given != (c.given != nil) {
				t.Errorf("%s with %v", r.Method, r.Header)
			}
			w.Header()["Proxy-Authenticate"] = c.offers
			w.WriteHeader(c.status)
		}))
		via, err := url.Parse(corporate.URL)
		if err != nil {
			t.Fatal(err)
		}
		via.User = c.given
		p := explain(t, upstream.Options{Proxy: http.ProxyURL(via)}, "https://mimecast.example/")
		if p.Code != event.UpstreamUnreachable || !strings.Contains(p.Detail, c.advice) {
			t.Errorf("%+v: %v", c, p)
		}
		corporate.Close()
	}
}

// Without a connection, nothing was sent, so Mimecast's response is not late.
func TestSilenceBeforeAConnectionIsNotMimecastsAnswerBeingLate(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := explain(t, upstream.Options{DialTimeout: 50 * time.Millisecond}, "https://"+silent.Addr().String())
	if p.Code != event.UpstreamUnreachable || !strings.Contains(p.Detail, "handshake got no response") {
		t.Errorf("TLS: %v", p)
	}
	if p := explain(t, upstream.Options{}, "https://nothing.invalid"); p.Code != event.UpstreamUnreachable || !strings.Contains(p.Detail, "resolved") {
		t.Errorf("DNS: %v", p)
	}
	if p := upstream.Explain(errors.Join(context.DeadlineExceeded)); p.Code != event.UpstreamTimeout {
		t.Errorf("silence later: %v", p)
	}
}

func TestWrongPeersAreNamed(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if p := explain(t, upstream.Options{Roots: roots}, "https://localhost:"+port); p.Code != event.UpstreamTLS || !strings.Contains(p.Detail, "another name") {
		t.Errorf("another name: %v", p)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			fmt.Fprint(conn, "220 mail.example ESMTP\r\n")
			conn.Close()
		}
	}()
	if p := explain(t, upstream.Options{}, "https://"+l.Addr().String()); p.Code != event.UpstreamTLS {
		t.Errorf("not TLS: %v", p)
	}
}
