package admin

import (
	"fmt"
	"slices"
	"time"

	"mimecast-proxy/event"
)

// The states of a diagnosis, and of each component.
const (
	stateOK    = "ok"    // nothing to do
	stateWatch = "watch" // most requests succeed
	stateBad   = "bad"   // many or all requests fail
)

// Diagnosis says in one sentence what is wrong, and which component to look at.
type Diagnosis struct {
	// State is ok, watch or bad.
	State string `json:"state"`
	// Component is where to look; empty if nothing is wrong.
	Component event.Component `json:"culprit,omitempty"`
	Text      string          `json:"text"`
	// Advice is what to do; it may be empty.
	Advice string `json:"advice,omitempty"`
}

// diagnose returns the first problem that a check finds. The worst are checked first.
func diagnose(s *Status) Diagnosis {
	for _, check := range []func(*Status) *Diagnosis{checkDrain, checkToken, checkLastMinute, checkCapacity, checkStalled, checkRenewal, checkQuota, checkLatency, checkRejections, checkWindow} {
		if d := check(s); d != nil {
			return *d
		}
	}
	return healthy(s)
}

func checkDrain(s *Status) *Diagnosis {
	if !s.Draining {
		return nil
	}
	return &Diagnosis{stateWatch, event.ComponentProxy, "The proxy is shutting down: " + plural(s.InFlight, "request") + " still in flight.", event.ShuttingDown.Kind().Remedy}
}

// checkToken looks for a token that is missing, has expired or is rejected.
func checkToken(s *Status) *Diagnosis {
	d := tokenFault(s.Token)
	if d != nil {
		d.Text = s.accountPrefix() + d.Text
	}
	return d
}

// accountPrefix names the account that a text is about, if there are several.
func (s *Status) accountPrefix() string {
	if len(s.Accounts) < 2 {
		return ""
	}
	return "Account " + s.Account.Name + ": "
}

func tokenFault(t TokenState) *Diagnosis {
	usable := t.Valid && !t.Rejected
	switch {
	case usable:
		return nil
	case t.Refused:
		return &Diagnosis{stateBad, event.ComponentCredentials, event.CredentialsRefused.Kind().Summary + ".", event.CredentialsRefused.Kind().Remedy}
	case t.Rejected && t.LastError != "":
		return &Diagnosis{stateBad, event.ComponentCredentials, "Mimecast rejects the token, and the token endpoint issues no new one.", sentence(t.LastError) + " The proxy keeps trying."}
	case t.LastError != "":
		return &Diagnosis{stateBad, event.ComponentCredentials, "There is no token: the token endpoint issues none.", sentence(t.LastError) + " The proxy keeps trying."}
	case t.Held:
		return &Diagnosis{stateWatch, event.ComponentCredentials, "The proxy is fetching a new token.", ""}
	default:
		return &Diagnosis{stateWatch, event.ComponentCredentials, "The proxy is fetching its first token.", ""}
	}
}

// From these shares of failed requests on, in percent, the state is watch or bad.
const (
	watchPercent   = 5
	badPercent     = 20
	badToolPercent = 50 // if the client caused the failures
)

func checkLastMinute(s *Status) *Diagnosis {
	return checkFaults(s.Faults, s.lastMinute())
}

func (s *Status) lastMinute() period {
	return period{s.LastMinute, "in the last minute", func(f event.Fault) uint32 { return f.LastMinute }}
}

// window is the period if there was no request in the last minute.
func (s *Status) window() period {
	var requests uint32
	for _, p := range s.Points {
		requests += p.Requests
	}
	when := fmt.Sprintf("in the last %d minutes, none of them in the last one", s.WindowSeconds/60)
	return period{requests, when, func(f event.Fault) uint32 { return f.Window }}
}

// checkRejections reports rejected requests only if all requests were. Otherwise the
// others show how the proxy is, and anyone who can connect can cause rejections.
func checkRejections(s *Status) *Diagnosis {
	p := s.lastMinute()
	if s.LastMinute == 0 {
		p = s.window()
	}
	n := rejected(s.Faults, p)
	if n == 0 || n < p.requests {
		return nil
	}
	k := mostFrequent(s.Faults, p.count, func(f event.Fault) bool { return f.Rejected }).Kind()
	return &Diagnosis{stateWatch, event.ComponentClient, fmt.Sprintf("%s: all %s %s were rejected.", k.Summary, plural(n, "request"), p.name), k.Remedy}
}

// rejected returns how many requests were rejected because of the client.
func rejected(faults []event.Fault, p period) (n uint32) {
	for _, f := range faults {
		if f.Rejected {
			n += p.count(f)
		}
	}
	return n
}

// checkWindow is for a client that calls rarely: its last failures still count when
// somebody opens the page.
func checkWindow(s *Status) *Diagnosis {
	if s.LastMinute > 0 {
		return nil
	}
	d := checkFaults(s.Faults, s.window())
	if d != nil {
		d.State = stateWatch
	}
	return d
}

// period is a time in which faults are counted.
type period struct {
	requests uint32
	name     string
	count    func(event.Fault) uint32
}

// checkFaults looks at failed requests that were not rejected. Failures that the client
// caused come last, since somebody else has to fix them.
func checkFaults(faults []event.Fault, p period) *Diagnosis {
	p.requests -= min(p.requests, rejected(faults, p))
	for _, group := range [][]event.Component{{event.ComponentCredentials, event.ComponentMimecast, event.ComponentProxy}, {event.ComponentClient}} {
		component, total := worst(faults, group, p.count)
		share := percent(total, p.requests)
		if total == 0 || share < watchPercent {
			continue
		}
		d := &Diagnosis{State: stateWatch, Component: component}
		if share >= badToolPercent || component != event.ComponentClient && share >= badPercent {
			d.State = stateBad
		}
		k := mostFrequent(faults, p.count, func(f event.Fault) bool { return f.Component == component && !f.Rejected }).Kind()
		d.Text = fmt.Sprintf("%s: %d of %s %s.", k.Summary, total, plural(p.requests, "request"), p.name)
		d.Advice = k.Remedy
		return d
	}
	return nil
}

// worst returns the component of the group that most requests failed at, and how many.
func worst(faults []event.Fault, group []event.Component, count func(event.Fault) uint32) (component event.Component, most uint32) {
	for _, c := range group {
		if n := countFailed(faults, c, count); n > most {
			component, most = c, n
		}
	}
	return component, most
}

// countFailed returns how many requests that were let through failed at a component.
func countFailed(faults []event.Fault, component event.Component, count func(event.Fault) uint32) (n uint32) {
	for _, f := range faults {
		if f.Component == component && !f.Rejected {
			n += count(f)
		}
	}
	return n
}

// mostFrequent returns the most frequent code of some faults.
func mostFrequent(faults []event.Fault, count func(event.Fault) uint32, of func(event.Fault) bool) (code event.Code) {
	most := uint32(0)
	for _, f := range faults {
		if n := count(f); of(f) && n > most {
			code, most = f.Code, n
		}
	}
	return code
}

// failedLastMinute returns how many requests of the last minute failed at a component.
func failedLastMinute(s *Status, component event.Component) uint32 {
	return countFailed(s.Faults, component, func(f event.Fault) uint32 { return f.LastMinute })
}

func percent(n, of uint32) uint32 { return n * 100 / max(of, 1) }

// capacityPercent is how much of PROXY_MAX_REQUESTS may be in use, in percent.
const capacityPercent = 90

func checkCapacity(s *Status) *Diagnosis {
	if s.MaxRequests <= 0 || s.InFlight*100 < int64(s.MaxRequests)*capacityPercent {
		return nil
	}
	text := fmt.Sprintf("The proxy is nearly at its limit of requests: %d in flight of %d allowed.", s.InFlight, s.MaxRequests)
	return &Diagnosis{stateWatch, event.ComponentProxy, text, "Check whether Mimecast is slow or a client sends too many, or raise PROXY_MAX_REQUESTS."}
}

// stallTime is how long requests may be in flight without one that ends.
const stallTime = 10 * time.Second

// checkStalled looks for requests in flight while none ends. Before they end they are in
// no other number.
func checkStalled(s *Status) *Diagnosis {
	since := s.BusySince
	if i := slices.IndexFunc(s.Requests, s.accepted); i >= 0 && s.Requests[i].Time.After(since) {
		since = s.Requests[i].Time
	}
	idle := s.Now.Sub(since)
	if s.InFlight == 0 || s.BusySince.IsZero() || idle < stallTime {
		return nil
	}
	return &Diagnosis{stateWatch, event.ComponentMimecast, plural(s.InFlight, "request") + " in flight, and none has ended for " + formatDuration(idle) + ".",
		"Mimecast is slow to respond, or a body is large. PROXY_RESPONSE_TIMEOUT sets how long the proxy waits for a response to begin."}
}

// accepted reports whether a request was not rejected because of the client.
func (s *Status) accepted(r event.Request) bool {
	return !slices.ContainsFunc(s.Faults, func(f event.Fault) bool { return f.Rejected && f.Code == r.Fault })
}

// checkRenewal looks for a valid token that cannot be renewed.
func checkRenewal(s *Status) *Diagnosis {
	if s.Token.LastError == "" {
		return nil
	}
	text := s.accountPrefix() + fmt.Sprintf("Requests succeed, but the token cannot be renewed. It expires in %s.", formatDuration(s.Token.Expiry.Sub(s.Now)))
	advice := sentence(s.Token.LastError)
	if s.Token.Refused {
		advice = event.CredentialsRefused.Kind().Remedy
	}
	return &Diagnosis{stateWatch, event.ComponentCredentials, text, advice}
}

// quotaLifetime is how long a quota without a reset counts.
const quotaLifetime = 15 * time.Minute

// checkQuota looks for a quota that is nearly used up.
func checkQuota(s *Status) *Diagnosis {
	l := s.RateLimit
	if l == nil || l.Limit == nil || l.Remaining == nil || *l.Remaining*10 > *l.Limit || !s.Now.Before(quotaUntil(l)) {
		return nil
	}
	text := fmt.Sprintf("Mimecast's quota is nearly used up: %s of %s left.", formatCount(l.Remaining), formatCount(l.Limit))
	return &Diagnosis{stateWatch, event.ComponentMimecast, text, event.MimecastRateLimited.Kind().Remedy}
}

// quotaUntil returns when a quota no longer counts.
func quotaUntil(l *event.RateLimit) time.Time {
	if l.ResetMS == nil {
		return l.SeenAt.Add(quotaLifetime)
	}
	return l.SeenAt.Add(time.Duration(min(*l.ResetMS, float64(quotaLifetime/time.Millisecond))) * time.Millisecond)
}

// From these medians on, in milliseconds, something is slow. Mimecast takes seconds for a
// search and a fraction of one for most other functions.
const (
	slowUpstream = 5000
	slowProxy    = 100
)

func checkLatency(s *Status) *Diagnosis {
	proxyTime, upstream := recentMedians(s)
	switch {
	case proxyTime > slowProxy && proxyTime > upstream/10:
		return &Diagnosis{stateWatch, event.ComponentProxy, "The proxy is slow: it adds " + formatMS(proxyTime) + " or more to half of the requests.", "Check this machine's load and the CPU limit."}
	case upstream > slowUpstream:
		return &Diagnosis{stateWatch, event.ComponentMimecast, "Mimecast is slow: it takes " + formatMS(upstream) + " or more for half of the requests.", "See Mimecast's service status, and check what the client asks for."}
	default:
		return nil
	}
}

// recentMedians returns the medians of the last minute. Those in the status are of the
// last requests, which may be long ago.
func recentMedians(s *Status) (proxyTime, upstream float64) {
	var proxyTimes, upstreams []float64
	for _, r := range s.Requests {
		if r.UpstreamMS > 0 && s.Now.Sub(r.Time) < time.Minute {
			proxyTimes, upstreams = append(proxyTimes, r.OwnMS), append(upstreams, r.UpstreamMS)
		}
	}
	if len(proxyTimes) == 0 {
		return 0, 0
	}
	slices.Sort(proxyTimes)
	slices.Sort(upstreams)
	return proxyTimes[len(proxyTimes)/2], upstreams[len(proxyTimes)/2]
}

func healthy(s *Status) Diagnosis {
	d := Diagnosis{State: stateOK, Text: "All is well: the token is valid, and no request came in the last minute."}
	if s.LastMinute == 0 {
		return d
	}
	rejections := rejected(s.Faults, s.lastMinute())
	d.Text = "All is well: " + plural(s.LastMinute-min(s.LastMinute, rejections), "request") + " in the last minute"
	var failed uint32
	for _, component := range event.Components {
		failed += failedLastMinute(s, component)
	}
	if failed > 0 {
		d.Text += fmt.Sprintf(", of which %d went wrong", failed)
	}
	d.Text += "."
	if rejections > 0 {
		d.Text += fmt.Sprintf(" The proxy rejected %d more.", rejections)
	}
	return d
}
