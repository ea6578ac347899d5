package guard

import (
	"net/http"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// checkUpgrade rejects an upgrade to another protocol, such as WebSocket's: Mimecast
// has none. An offer of HTTP/2 or TLS is ignored, as RFC 9110, section 7.8, allows: curl
// --http2 and Apache's HttpClient make it with every request. It is not sent on.
func checkUpgrade(r *http.Request) *problem.Problem {
	for _, value := range r.Header["Upgrade"] {
		for protocol := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(protocol), "/")
			if !strings.EqualFold(name, "h2c") && !strings.EqualFold(name, "TLS") && !strings.EqualFold(name, "HTTP") {
				return problem.New(event.UpgradeNotSupported, "Mimecast's API has no upgrades, such as to WebSocket. Send the request without Upgrade.")
			}
		}
	}
	return nil
}
