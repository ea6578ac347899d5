package e2e

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// exchange sends raw bytes, which an HTTP client might reject. It returns the response's
// status line.
func exchange(t *testing.T, p *program.Program, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := conn.Read(line); err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// accessLines waits for n request lines and returns them by path.
func accessLines(t *testing.T, p *program.Program, n int) map[string]map[string]any {
	t.Helper()
	lines := map[string]map[string]any{}
	p.Stderr.Await(t, "the access lines", func(text string) bool {
		for line := range strings.Lines(text) {
			var fields map[string]any
			if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == "request" {
				lines[fields["path"].(string)] = fields
			}
		}
		return len(lines) >= n
	})
	return lines
}

// Trace headers pass unchanged, and the log has the trace ID of a valid one. Invalid
// headers also pass, but the log ignores them.
func TestTraceContextPassesByteForByte(t *testing.T) {
	t.Parallel()
	const id = "0af7651916cd43dd8448eb211c80319c"
	sent := map[string]struct {
		trace string // trace ID that the access line must have
		lines []string
	}{
		"valid":       {id, []string{"traceparent: 00-" + id + "-b7ad6b7169203331-01", "tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "X-Request-Id: 7b3f-A_.~"}},
		"two-states":  {id, []string{"TRACEPARENT: 00-" + id + "-b7ad6b7169203331-00", "tracestate: a=1", "tracestate: b=2 , c=3"}},
		"future":      {id, []string{"traceparent: cc-" + id + "-b7ad6b7169203331-01-what-comes"}},
		"upper-case":  {"", []string{"traceparent: 00-" + strings.ToUpper(id) + "-b7ad6b7169203331-01", "x-request-id: spaced out \"id\"\\"}},
		"zero":        {"", []string{"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"}},
		"two-parents": {"", []string{"traceparent: 00-" + id + "-b7ad6b7169203331-01", "traceparent: 00-" + id + "-b7ad6b7169203331-01"}},
		"forging":     {"", []string{"traceparent: 00-" + id + `","level":"error","x":"-01`, "tracestate: =,;\"\t\x80\xff", "X-Request-Id: \",\"status\":200"}},
		"long":        {"", []string{"traceparent: 00-" + strings.Repeat(id, 200), "X-Request-Id: " + strings.Repeat("i", 5000)}},
		"short":       {"", []string{"traceparent: 0", "X-Request-Id: a", "X-Request-Id: b"}},
		"none":        {"", nil},
	}
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/trace/", Status: 200})
	p := program.Serve(t, sim)
	for path, c := range sent {
		header := ""
		for _, line := range c.lines {
			header += line + "\r\n"
		}
		if got := exchange(t, p, "GET /trace/"+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+header+"Connection: close\r\n\r\n"); got != "HTTP/1.1 200" {
			t.Errorf("%s: %s", path, got)
		}
	}
	logged := accessLines(t, p, len(sent))
	arrived := map[string]http.Header{}
	for _, r := range sim.Requests() {
		arrived[strings.TrimPrefix(r.Target, "/trace/")] = r.Header
	}
	for path, c := range sent {
		want := map[string][]string{}
		for _, line := range c.lines {
			name, v, _ := strings.Cut(line, ": ")
			name = http.CanonicalHeaderKey(name)
			want[name] = append(want[name], v)
		}
		got := maps.Clone(arrived[path])
		maps.DeleteFunc(got, func(name string, _ []string) bool {
			return !slices.Contains([]string{"Traceparent", "Tracestate", "X-Request-Id"}, name)
		})
		if !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %q arrived, %q was sent", path, got, want)
		}
		line := logged["/trace/"+path]
		if got, _ := line["trace_id"].(string); got != c.trace || line["status"] != 200.0 || line["level"] != "info" || line["x"] != nil {
			t.Errorf("%s: logged %v", path, line)
		}
		if id, _ := line["request_id"].(string); id == "" || len(id) > 128 || strings.Contains(id, " ") {
			t.Errorf("%s: request_id %q", path, id)
		}
	}
}
