package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	built "mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// sendRaw sends the bytes of a request and returns the response with its body.
func (p *program) sendRaw(raw string) (*http.Response, string) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(built.Patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, raw) // the response may come before all is sent
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		p.t.Fatalf("%.60q: %v", raw, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Errorf("%.60q: %v", raw, err)
	}
	<-sent
	return res, string(body)
}

// What net/http rejects before it reaches a handler is told as all else is: with
// the envelope, the header, one line in the log, and a metric.
func TestRequestsThatNetHTTPRejectsGetTheProxysOwnError(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	for name, c := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"a space in the query": {"GET /siem/v1/events/cg?type=url protect HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"},
		"a lone % in the path": {"GET /identity/100%/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"},
		"70 KB of headers":     {"GET /identity/whoami HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 431, "headers_too_large"},
		"70 KB in many fields": {"GET /identity/whoami HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-Small: "+strings.Repeat("x", 100)+"\r\n", 700) + "\r\n", 431, "headers_too_large"},
		"no Host":              {"GET /identity/whoami HTTP/1.1\r\n\r\n", 400, "bad_request"},
	} {
		p := serve(t, sim) // of its own, so that the lines are counted
		sim.Reset()
		res, body := p.sendRaw(c.raw)
		var envelope struct {
			Fail []struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(body), &envelope); err != nil || len(envelope.Fail) != 1 || envelope.Fail[0].Code != c.code || envelope.Fail[0].Message == "" {
			t.Errorf("%s: %v: %s", name, err, body)
		}
		if res.StatusCode != c.status || res.Header.Get("X-Mimecast-Proxy-Error") != c.code || !strings.HasPrefix(res.Header.Get("Proxy-Status"), "mimecast-proxy; error=") {
			t.Errorf("%s: %d %v", name, res.StatusCode, res.Header)
		}
		lines := func(text string) int {
			return strings.Count(text, `"msg":"request"`)
		}
		p.stderr.Await(t, "the line of "+name, func(text string) bool { return lines(text) > 0 })
		if got := p.metric(fmt.Sprintf(`mimecast_proxy_requests_denied_total{reason=%q}`, c.code)); got != 1 {
			t.Errorf("%s: counted %v times", name, got)
		}
		text := p.stderr.String()
		if lines(text) != 1 || !strings.Contains(text, fmt.Sprintf(`"status":%d`, c.status)) || !strings.Contains(text, `"error":"`+c.code) {
			t.Errorf("%s: %s", name, text)
		}
		if n := len(sim.Requests()); n != 0 {
			t.Errorf("%s: %d requests reached Mimecast", name, n)
		}
	}
}
