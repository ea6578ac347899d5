package admin

import (
	"fmt"
	"slices"
	"time"

	"mimecast-proxy/event"
)

// The states of a verdict, and of each of the four that it may name.
const (
	stateOK    = "ok"    // nothing to do
	stateWatch = "watch" // requests pass, or most of them
	stateBad   = "bad"   // they do not
)

// Verdict says in one sentence what is wrong, and which component to look at.
type Verdict struct {
	// State is ok, watch or bad.
	State string `json:"state"`
	// Component is where to look; empty where all is well.
	Component event.Component `json:"culprit,omitempty"`
	Text      string          `json:"text"`
	// Advice is what to do; it may be empty.
	Advice string `json:"advice,omitempty"`
}

// judge reaches the verdict: the first thing that is wrong, worst first.
func judge(s *Status) Verdict {
	for _, look := range []func(*Status) *Verdict{atDrain, atToken, atLastMinute, atCrowd, atWaiting, atRenewal, atQuota, atPace, atRejected, atWindow} {
		if v := look(s); v != nil {
			return *v
		}
	}
	return allWell(s)
}

func atDrain(s *Status) *Verdict {
	if !s.Draining {
		return nil
	}
	return &Verdict{stateWatch, event.ComponentProxy, "The proxy is shutting down: " + plural(s.InFlight, "request") + " still in flight.", event.ShuttingDown.Kind().Remedy}
}

// atToken looks for a token that is missing, has expired or is rejected.
func atToken(s *Status) *Verdict {
	t := s.Token
	usable := t.Valid && !t.Rejected
	switch {
	case usable:
		return nil
	case t.Refused:
		return &Verdict{stateBad, event.ComponentToken, event.CredentialsRefused.Kind().Summary + ".", event.CredentialsRefused.Kind().Remedy}
	case t.Rejected && t.LastError != "":
		return &Verdict{stateBad, event.ComponentToken, "Mimecast rejects the token, and the token endpoint issues no new one.", sentence(t.LastError) + " The proxy keeps trying."}
	case t.LastError != "":
		return &Verdict{stateBad, event.ComponentToken, "There is no token: the token endpoint issues none.", sentence(t.LastError) + " The proxy keeps trying."}
	case t.Held:
		return &Verdict{stateWatch, event.ComponentToken, "The proxy is fetching a new token.", ""}
	default:
		return &Verdict{stateWatch, event.ComponentToken, "The proxy is fetching its first token.", ""}
	}
}

// Of the requests, in percent: from which share on faults are worth a verdict,
// and from which on it is a bad one.
const (
	notable  = 5
	alarming = 20
	mostly   = 50 // for the tool, whose mistakes are its own
)

func atLastMinute(s *Status) *Verdict {
	return atFaults(s.Faults, s.lastMinute())
}

func (s *Status) lastMinute() period {
	return period{s.LastMinute, "in the last minute", func(f event.Fault) uint32 { return f.LastMinute }}
}

// window is for when there was no request in the last minute.
func (s *Status) window() period {
	var requests uint32
	for _, p := range s.Points {
		requests += p.Requests
	}
	when := fmt.Sprintf("in the last %d minutes, none of them in the last one", s.WindowSeconds/60)
	return period{requests, when, func(f event.Fault) uint32 { return f.Window }}
}

// atRejected is for when no request was let through. Else those that were say how
// the proxy is, and anybody who can connect may cause the others.
func atRejected(s *Status) *Verdict {
	p := s.lastMinute()
	if s.LastMinute == 0 {
		p = s.window()
	}
	n := rejected(s.Faults, p)
	if n == 0 || n < p.requests {
		return nil
	}
	k := commonest(s.Faults, p.count, func(f event.Fault) bool { return f.Rejected }).Kind()
	return &Verdict{stateWatch, event.ComponentTool, fmt.Sprintf("%s: all %s %s were rejected.", k.Summary, plural(n, "request"), p.name), k.Remedy}
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

// atWindow is for a tool that comes by now and then: what happened to it last
// still counts when somebody looks.
func atWindow(s *Status) *Verdict {
	if s.LastMinute > 0 {
		return nil
	}
	v := atFaults(s.Faults, s.window())
	if v != nil {
		v.State = stateWatch
	}
	return v
}

// period is a time that faults are counted in.
type period struct {
	requests uint32
	name     string
	count    func(event.Fault) uint32
}

// atFaults looks at what went wrong with the requests that were let through. What
// the tool does wrong comes after the rest, since it needs somebody else.
func atFaults(faults []event.Fault, p period) *Verdict {
	p.requests -= min(p.requests, rejected(faults, p))
	for _, group := range [][]event.Component{{event.ComponentToken, event.ComponentMimecast, event.ComponentProxy}, {event.ComponentTool}} {
		component, total := worst(faults, group, p.count)
		share := percent(total, p.requests)
		if total == 0 || share < notable {
			continue
		}
		v := &Verdict{State: stateWatch, Component: component}
		if share >= mostly || component != event.ComponentTool && share >= alarming {
			v.State = stateBad
		}
		k := commonest(faults, p.count, func(f event.Fault) bool { return f.Component == component && !f.Rejected }).Kind()
		v.Text = fmt.Sprintf("%s: %d of %s %s.", k.Summary, total, plural(p.requests, "request"), p.name)
		v.Advice = k.Remedy
		return v
	}
	return nil
}

// worst returns the component of the group that most requests failed at, and how many.
func worst(faults []event.Fault, group []event.Component, count func(event.Fault) uint32) (component event.Component, most uint32) {
	for _, c := range group {
		if n := spoiled(faults, c, count); n > most {
			component, most = c, n
		}
	}
	return component, most
}

// spoiled returns how many requests that were let through failed at a component.
func spoiled(faults []event.Fault, component event.Component, count func(event.Fault) uint32) (n uint32) {
	for _, f := range faults {
		if f.Component == component && !f.Rejected {
			n += count(f)
		}
	}
	return n
}

// commonest returns the most frequent code of some faults.
func commonest(faults []event.Fault, count func(event.Fault) uint32, of func(event.Fault) bool) (code event.Code) {
	most := uint32(0)
	for _, f := range faults {
		if n := count(f); of(f) && n > most {
			code, most = f.Code, n
		}
	}
	return code
}

// lately returns how many requests of the last minute failed at a component.
func lately(s *Status, component event.Component) uint32 {
	return spoiled(s.Faults, component, func(f event.Fault) uint32 { return f.LastMinute })
}

func percent(n, of uint32) uint32 { return n * 100 / max(of, 1) }

// crowded is how much of PROXY_MAX_REQUESTS may be in use, in percent.
const crowded = 90

func atCrowd(s *Status) *Verdict {
	if s.MaxRequests <= 0 || s.InFlight*100 < int64(s.MaxRequests)*crowded {
		return nil
	}
	text := fmt.Sprintf("The proxy is nearly at its limit of requests: %d in flight of %d allowed.", s.InFlight, s.MaxRequests)
	return &Verdict{stateWatch, event.ComponentProxy, text, event.TooBusy.Kind().Remedy}
}

// silence is for how long requests may be in flight without one that ends.
const silence = 10 * time.Second

// atWaiting looks for requests that wait while none comes back. Before they end
// they are in no other figure.
func atWaiting(s *Status) *Verdict {
	since := s.BusySince
	if i := slices.IndexFunc(s.Requests, s.letThrough); i >= 0 && s.Requests[i].Time.After(since) {
		since = s.Requests[i].Time
	}
	silent := s.Now.Sub(since)
	if s.InFlight == 0 || s.BusySince.IsZero() || silent < silence {
		return nil
	}
	return &Verdict{stateWatch, event.ComponentMimecast, plural(s.InFlight, "request") + " in flight, and none has ended for " + span(silent) + ".",
		"Mimecast is slow to respond, or a body is large. PROXY_RESPONSE_TIMEOUT sets how long the proxy waits for a response to begin."}
}

// letThrough reports whether a request was not rejected because of the client.
func (s *Status) letThrough(r event.Request) bool {
	return !slices.ContainsFunc(s.Faults, func(f event.Fault) bool { return f.Rejected && f.Code == r.Fault })
}

// atRenewal looks for a token that lives on but cannot be renewed.
func atRenewal(s *Status) *Verdict {
	if s.Token.LastError == "" {
		return nil
	}
	text := fmt.Sprintf("Requests succeed, but the token cannot be renewed. It expires in %s.", span(s.Token.Expiry.Sub(s.Now)))
	advice := sentence(s.Token.LastError)
	if s.Token.Refused {
		advice = event.CredentialsRefused.Kind().Remedy
	}
	return &Verdict{stateWatch, event.ComponentToken, text, advice}
}

// quotaFresh is for how long Mimecast's word on its quota is believed, where it
// named no reset.
const quotaFresh = 15 * time.Minute

// atQuota looks for a rate limit that is nearly spent.
func atQuota(s *Status) *Verdict {
	l := s.RateLimit
	if l == nil || l.Limit == nil || l.Remaining == nil || *l.Remaining*10 > *l.Limit || !s.Now.Before(quotaUntil(l)) {
		return nil
	}
	text := fmt.Sprintf("Mimecast's quota is nearly used up: %s of %s left.", number(l.Remaining), number(l.Limit))
	return &Verdict{stateWatch, event.ComponentMimecast, text, event.MimecastRateLimited.Kind().Remedy}
}

// quotaUntil returns when what Mimecast said no longer holds.
func quotaUntil(l *event.RateLimit) time.Time {
	if l.ResetMS == nil {
		return l.SeenAt.Add(quotaFresh)
	}
	return l.SeenAt.Add(time.Duration(min(*l.ResetMS, float64(quotaFresh/time.Millisecond))) * time.Millisecond)
}

// What counts as slow, in milliseconds at the median: Mimecast takes seconds
// for a search and a fraction of one for most else, the proxy next to nothing.
const (
	slowUpstream = 5000
	slowOwn      = 100
)

func atPace(s *Status) *Verdict {
	own, upstream := pace(s)
	switch {
	case own > slowOwn && own > upstream/10:
		return &Verdict{stateWatch, event.ComponentProxy, "The proxy is slow: it adds " + ms(own) + " or more to half of the requests.", "Check this machine's load and the CPU limit."}
	case upstream > slowUpstream:
		return &Verdict{stateWatch, event.ComponentMimecast, "Mimecast is slow: it takes " + ms(upstream) + " or more for half of the requests.", "See Mimecast's service status, and check what the client asks for."}
	default:
		return nil
	}
}

// pace returns the medians of the last minute. The status's own are of the last
// requests, which may be long ago.
func pace(s *Status) (own, upstream float64) {
	var owns, upstreams []float64
	for _, r := range s.Requests {
		if r.UpstreamMS > 0 && s.Now.Sub(r.Time) < time.Minute {
			owns, upstreams = append(owns, r.OwnMS), append(upstreams, r.UpstreamMS)
		}
	}
	if len(owns) == 0 {
		return 0, 0
	}
	slices.Sort(owns)
	slices.Sort(upstreams)
	return owns[len(owns)/2], upstreams[len(owns)/2]
}

func allWell(s *Status) Verdict {
	v := Verdict{State: stateOK, Text: "All is well: the token is valid, and nobody asked for anything in the last minute."}
	if s.LastMinute == 0 {
		return v
	}
	turnedAway := rejected(s.Faults, s.lastMinute())
	v.Text = "All is well: " + plural(s.LastMinute-min(s.LastMinute, turnedAway), "request") + " in the last minute"
	var wrong uint32
	for _, component := range event.Components {
		wrong += lately(s, component)
	}
	if wrong > 0 {
		v.Text += fmt.Sprintf(", of which %d went wrong", wrong)
	}
	v.Text += "."
	if turnedAway > 0 {
		v.Text += fmt.Sprintf(" The proxy rejected %d more.", turnedAway)
	}
	return v
}
