package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// serviceLink matches the variables that Kubernetes and Docker links set for a service
// named proxy or mimecast-something.
var serviceLink = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// linkValue matches the value of such a link's NAME_PORT. A plain number is probably a
// port that the operator wants to set, so it gets a warning.
var linkValue = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// namePrefixes are the prefixes of the proxy's variables.
var namePrefixes = []string{"MIMECAST_", "PROXY_"}

// addWarnings adds warnings for settings that are valid but probably a mistake.
func (p *parser) addWarnings(cfg Config) {
	if memory := size(cfg.ReplayMemory); !p.hasError("PROXY_REPLAY_LIMIT") && !p.hasError("PROXY_REPLAY_MEMORY") && cfg.ReplayLimit > cfg.ReplayMemory {
		p.addWarning("PROXY_REPLAY_LIMIT is more than the %v of PROXY_REPLAY_MEMORY: request bodies over %v are sent without a retry", memory, memory)
	}
	if cfg.RateLimitPace == "on" && cfg.RateLimitWait == 0 && !p.hasError("PROXY_RATE_LIMIT_WAIT") {
		p.addWarning("PROXY_RATE_LIMIT_PACE is on, but PROXY_RATE_LIMIT_WAIT is 0s: pacing has no effect")
	}
	p.warnOfUnknown()
}

// warnOfUnknown adds a warning for each unknown MIMECAST_ or PROXY_ name. A typo that
// goes unnoticed causes an outage later.
func (p *parser) warnOfUnknown() {
	known := knownNames()
	for _, name := range slices.Sorted(maps.Keys(p.environ)) {
		if prefixOf(name) == "" || slices.Contains(known, name) || p.isServiceLink(name) {
			continue
		}
		ignored := shownName(name) + " is not a variable of this program and is ignored"
		switch near := nearest(name, known); {
		case sampleNames[name] != "":
			p.addWarning("%s; %s", ignored, sampleNames[name])
		case near != "":
			p.addWarning("%s; did you mean %s?", ignored, near)
		default:
			p.addWarning("%s", ignored)
			p.foreign = append(p.foreign, ignored)
		}
	}
}

// sampleNames are variables from samples for Mimecast's APIs, each with advice on what
// to set instead.
var sampleNames = map[string]string{
	"MIMECAST_API_KEY":        "an API 2.0 application has MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET",
	"MIMECAST_KEY":            "set MIMECAST_CLIENT_ID",
	"MIMECAST_SECRET":         "set MIMECAST_CLIENT_SECRET",
	"MIMECAST_API_SECRET":     "set MIMECAST_CLIENT_SECRET",
	"MIMECAST_SECRET_KEY":     "set MIMECAST_CLIENT_SECRET, of an API 2.0 application",
	"MIMECAST_ACCESS_KEY":     useAPI2,
	"MIMECAST_APP_ID":         useAPI2,
	"MIMECAST_APP_KEY":        useAPI2,
	"MIMECAST_APPLICATION_ID": useAPI2,
	"MIMECAST_URL":            "set MIMECAST_BASE_URL, or MIMECAST_REGION",
	"MIMECAST_API_URL":        "set MIMECAST_BASE_URL, or MIMECAST_REGION",
}

const useAPI2 = "it belongs to API 1.0; create an API 2.0 application and set MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET"

func (p *parser) isServiceLink(name string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && linkValue.MatchString(p.environ[name])
}

// knownNames returns every name that may be set.
func knownNames() []string {
	known := []string{"MIMECAST_PROXY_URL"} // the command run sets it for its child
	for _, v := range Variables() {
		known = append(known, v.names()...)
	}
	return known
}

func prefixOf(name string) string {
	for _, p := range namePrefixes {
		if strings.HasPrefix(name, p) {
			return p
		}
	}
	return ""
}

// shownName quotes a name with unusual characters, to keep it on one line.
func shownName(name string) string {
	if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == "" && len(name) <= maxQuoted {
		return name
	}
	return quoted(name)
}

// nearest returns the known name with the fewest edits; empty if they exceed about a
// third of the name. A wrong prefix counts as one edit.
func nearest(name string, known []string) string {
	if len(name) > maxQuoted {
		return ""
	}
	edits := func(to string) int {
		prefix, other := prefixOf(name), prefixOf(to)
		n := distance(name[len(prefix):], to[len(other):])
		if prefix != other {
			n++
		}
		return n
	}
	best := slices.MinFunc(known, func(a, b string) int { return edits(a) - edits(b) })
	rest := len(name) - len(prefixOf(name))
	if edits(best) > (rest+2)/3 {
		return ""
	}
	return best
}

// distance returns the number of insertions, deletions and substitutions between two
// strings (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			cost := 1
			if a[i] == b[k] {
				cost = 0
			}
			diagonal, row[k+1] = row[k+1], min(row[k+1]+1, row[k]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
