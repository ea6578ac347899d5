package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// Cloud Logging treats a stderr line without a severity as an error.
func TestEveryLineHasASeverityForCloudLogging(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_LOG_FORMAT=gcp", "PROXY_LOG_LEVEL=debug", "MIMECAST_REGIO=us")
	sim.AddFault(simulator.Fault{Path: "/reset", Cut: simulator.CutAnswer})
	for path, status := range map[string]int{"/identity/whoami": http.StatusOK, "/reset": http.StatusBadGateway, "/a/../b": http.StatusBadRequest} {
		if res, _ := p.Send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"); res.StatusCode != status {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	p.Stderr.Await(t, "the access lines", func(text string) bool { return strings.Count(text, `"message":"request"`) == 3 })
	seen := map[string]bool{}
	for text := range strings.Lines(p.Stderr.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Errorf("%v: %s", err, text)
			continue
		}
		severity, _ := line["severity"].(string)
		at, _ := line["time"].(string)
		if _, err := time.Parse(time.RFC3339, at); err != nil || !strings.HasSuffix(at, "Z") || line["message"] == nil || line["msg"] != nil || line["level"] != nil {
			t.Errorf("%s", text)
		}
		seen[severity] = true
	}
	if !seen["INFO"] || !seen["WARNING"] || seen[""] || seen["WARN"] {
		t.Errorf("severities %v", seen)
	}
}
