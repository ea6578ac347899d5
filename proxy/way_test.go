package proxy_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
)

// explain asks through u for a host that is never reached, and says what is made
// of it.
func explain(t *testing.T, u proxy.Upstream, target string) *problem.Problem {
	t.Helper()
	connections := u.Connections()
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
	return proxy.Explain(t.Context(), err)
}

func TestCompanyProxyThatRefusesIsNamed(t *testing.T) {
	for status, advice := range map[int]string{407: "user:password", 403: "Ask its operators", 404: "Ask its operators"} {
		company := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		via, err := url.Parse(company.URL)
		if err != nil {
			t.Fatal(err)
		}
		p := explain(t, proxy.Upstream{Proxy: http.ProxyURL(via)}, "https://mimecast.example/")
		if p.Code != problem.UpstreamUnreachable || !strings.Contains(p.Detail, advice) {
			t.Errorf("%d: %v", status, p)
		}
		company.Close()
	}
}

// Nothing was sent where no connection came about in time.
func TestSilenceBeforeAConnectionIsNotMimecastsAnswerBeingLate(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := explain(t, proxy.Upstream{DialTimeout: 50 * time.Millisecond}, "https://"+silent.Addr().String())
	if p.Code != problem.UpstreamUnreachable || !strings.Contains(p.Detail, "fell silent") {
		t.Errorf("TLS: %v", p)
	}
	if p := explain(t, proxy.Upstream{}, "https://nothing.invalid"); p.Code != problem.UpstreamUnreachable || !strings.Contains(p.Detail, "resolved") {
		t.Errorf("DNS: %v", p)
	}
	if p := proxy.Explain(t.Context(), errors.Join(context.DeadlineExceeded)); p.Code != problem.UpstreamTimeout {
		t.Errorf("silence later: %v", p)
	}
}
