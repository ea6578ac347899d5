package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// A request that net/http rejects before it reaches a handler is reported like others: with
// the envelope, the header, one log line and a metric.
func TestRequestsThatNetHTTPRejectsGetTheProxysOwnError(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
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
		p := program.Serve(t, sim) // a new program, to count the lines
		sim.Reset()
		res, body := p.Send(c.raw)
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
		p.Stderr.Await(t, "the line of "+name, func(text string) bool { return lines(text) > 0 })
		if got := p.Metric(fmt.Sprintf(`mimecast_proxy_requests_denied_total{reason=%q}`, c.code)); got != 1 {
			t.Errorf("%s: counted %v times", name, got)
		}
		text := p.Stderr.String()
		if lines(text) != 1 || !strings.Contains(text, fmt.Sprintf(`"status":%d`, c.status)) || !strings.Contains(text, `"error":"`+c.code) {
			t.Errorf("%s: %s", name, text)
		}
		if n := len(sim.Requests()); n != 0 {
			t.Errorf("%s: %d requests reached Mimecast", name, n)
		}
	}
}
