package admin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// words are how a person is told what went wrong.
type words struct {
	// What continues "It is Mimecast: …".
	What string
	// Do is what to do about it.
	Do string
}

// culprits are how the four are called, and where to look for each.
var culprits = map[string]string{
	"tool":     "the tool",
	"proxy":    "the proxy",
	"token":    "the token",
	"mimecast": "Mimecast",
}

// vocabulary has the codes that requests can go wrong with.
var vocabulary = map[string]words{
	"upstream_unreachable":  {"it cannot be reached", "Check this machine's network, DNS and firewall. Behind a company proxy set HTTPS_PROXY."},
	"upstream_tls":          {"no trusted connection can be made", "If your company inspects TLS, put its root certificate into MIMECAST_CA_FILE. Check this machine's clock."},
	"upstream_reset":        {"it closes connections before it answers", "Look at Mimecast's service status. Whether a write was carried out is not known: check before you send it again."},
	"upstream_timeout":      {"it does not answer in time", "Look at Mimecast's service status. PROXY_RESPONSE_TIMEOUT sets how long the proxy waits."},
	"mimecast_error":        {"it answers with server errors", "Look at Mimecast's service status. Their support asks for the request IDs below."},
	"mimecast_rate_limited": {"its rate limit is spent", "Ask less often, or share the limit out: it counts for the whole API application. PROXY_RATE_LIMIT_WAIT lets the proxy wait for the reset."},
	"mimecast_forbidden":    {"it forbids what is asked", "The API application lacks the product or the role. Products are chosen when an application is made, so a new one may be needed."},
	"mimecast_truncated":    {"it cuts answers short", "Look at Mimecast's service status, and for something on the way that ends long connections."},
	"mimecast_unauthorized": {"Mimecast rejects it", "Where no other can be had, the token's last failure says why. Else check that the API application is still there and turned on, and that MIMECAST_REGION is its region."},
	"credentials_refused":   {"Mimecast refuses the client ID or the secret", "Check MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET against the API application in the Mimecast Administration Console."},
	"token_unavailable":     {"the token endpoint gives none", "The proxy keeps trying. The token's last failure below says why."},
	"too_busy":              {"it has its fill of requests", "PROXY_MAX_REQUESTS sets how many may be in flight. Slow answers fill it too."},
	"shutting_down":         {"it is shutting down", "It takes no new requests. Whoever starts it starts it again."},
	"panic":                 {"it failed inside", "This is a bug. The log has the details: please report it."},
	"other":                 {"it failed", "The log line of the request says more."},
	"request_refused":       {"its requests are refused as wrong", "The status and the body that the tool gets say what is wrong with them."},
	"client_gone":           {"it hangs up before the answer", "Its timeout may be shorter than Mimecast takes."},
	"bad_request_target":    {"it asks for what is no path of Mimecast's", "Give the tool this proxy's address as its base URL, not as its HTTP proxy."},
	"bad_request":           {"it sends requests that are not valid HTTP", "Escape spaces and percent signs in its paths and queries, and send one Host header."},
	"headers_too_large":     {"it sends too many or too large headers", "Send fewer, or raise PROXY_MAX_HEADER_FIELDS and PROXY_MAX_HEADER_BYTES."},
	"bad_request_body":      {"its request bodies end early or are malformed", "Look at the tool's own log."},
	"api_key_required":      {"it does not send the proxy's API key", "Give the tool the key that PROXY_API_KEY holds."},
	"host_not_allowed":      {"it calls the proxy by a name that is not allowed", "Add the name to PROXY_ALLOWED_HOSTS, or call the proxy by its address."},
	"origin_not_allowed":    {"a web page of another origin calls", "If that page is meant to use the account, add its origin to PROXY_ALLOWED_ORIGINS."},
	"route_not_allowed":     {"it asks for routes that are not allowed", "If the tool needs them, add them to PROXY_ALLOW."},
	"upgrade_not_supported": {"it asks for a protocol upgrade", "Mimecast has none. Look at the tool's HTTP settings."},
}

// outcomes say how a 401 answer of Mimecast's ended.
var outcomes = map[string]string{
	"recovered":          "cured by a new token",
	"still_unauthorized": "not cured by one",
	"not_replayable":     "too large to be sent again",
	"renewal_failed":     "without a new token to be had",
	"token_fresh":        "with a token that was fresh already",
	"other":              "that ended otherwise",
}

// triggers say why a token was asked for.
var triggers = map[string]string{
	"startup":      "since the proxy started",
	"expiry":       "before the old one expired",
	"unauthorized": "after Mimecast's 401",
}

// states say in words what colours and shapes say.
var states = map[string]string{stateOK: "fine", stateWatch: "check", stateBad: "at fault"}

// wordsFor returns words for any code.
func wordsFor(code string) words {
	if w, ok := vocabulary[code]; ok {
		return w
	}
	return vocabulary["other"]
}

// span returns a duration in the two units that matter.
func span(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s <= 0:
		return "0 s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

// ago returns when something was.
func ago(now, at time.Time) string {
	if now.Sub(at) < time.Second {
		return "just now"
	}
	return span(now.Sub(at)) + " ago"
}

// until returns when something is due.
func until(at, now time.Time) string {
	if at.Sub(now) < time.Second/2 {
		return "now"
	}
	return "in " + span(at.Sub(now))
}

// ms returns milliseconds as a person reads them.
func ms(v float64) string {
	switch {
	case v < .995:
		return fmt.Sprintf("%.2f ms", v)
	case v < 9.95:
		return fmt.Sprintf("%.1f ms", v)
	case v < 999.5:
		return fmt.Sprintf("%.0f ms", v)
	case v < 9950:
		return fmt.Sprintf("%.1f s", v/1000)
	case v < 59500:
		return fmt.Sprintf("%.0f s", v/1000)
	default:
		return span(time.Duration(v * float64(time.Millisecond)))
	}
}

// plural returns "1 request" or "2 requests".
func plural[N int | uint32 | uint64 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// clock returns a time as the log has it, without the day.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// number returns a count that Mimecast named.
func number(v *float64) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf("%.0f", math.Trunc(*v))
}

// sentence makes a text begin and end like one.
func sentence(s string) string {
	s = capital(s)
	if s == "" || strings.ContainsAny(s[len(s)-1:], ".?!") {
		return s
	}
	return s + "."
}

func capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

// plain makes a stranger's text fit for the page: what does not print, or turns
// the direction of the text around it, shows as its code. HTML is for the
// nodes to escape.
func plain(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }
