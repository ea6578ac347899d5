package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// view is what the page's template is given.
type view struct {
	Status
	// Minutes is what the plots show.
	Minutes          int
	Parts            []part
	Traffic, Latency plot
	Tally            tally
	Faults           []Fault
	Filter           filter
	Shown            []Request
	Buttons          []button
	Assets           map[string]string
}

// part is one of the four that a request's way leads over.
type part struct {
	Name, State string
	// Figure is the one number to know, Notes say more.
	Figure string
	Notes  []string
}

// tally sums the window up.
type tally struct{ Requests, Fine, Tool, Failed uint32 }

func newView(s Status, query url.Values, actions []Action) view {
	v := view{Status: s, Minutes: s.WindowSeconds / 60, Buttons: buttons(actions), Assets: assetPaths, Filter: newFilter(query)}
	v.Shown = v.Filter.apply(s.Requests)
	v.Parts = []part{toolPart(&s), proxyPart(&s), tokenPart(&s), mimecastPart(&s)}
	v.Tally = sumUp(s.Points)
	v.Traffic, v.Latency = trafficPlot(&s, v.Tally), latencyPlot(&s)
	v.Faults = slices.DeleteFunc(slices.Clone(s.Faults), func(f Fault) bool {
		// What was denied has a list of its own.
		return slices.ContainsFunc(s.Denials, func(d Denial) bool { return d.Reason == f.Code })
	})
	return v
}

func sumUp(points []Point) tally {
	var t tally
	for _, p := range points {
		t.Requests += p.Requests
		t.Tool += p.Tool
		t.Failed += p.Proxy + p.Token + p.Mimecast
	}
	t.Fine = t.Requests - min(t.Requests, t.Tool+t.Failed)
	return t
}

func trafficPlot(s *Status, t tally) plot {
	p := stack(s.Points,
		layer{"failed", failed},
		layer{"tool", func(p Point) float64 { return float64(p.Tool) }},
		layer{"fine", func(p Point) float64 { return max(0, float64(p.Requests)-float64(p.Tool)-failed(p)) }})
	p.Axis = axis(s.WindowSeconds / 60)
	p.Label = fmt.Sprintf("Bars: requests in the last %d minutes. %d went well, %d were the tool's own fault, %d failed.", s.WindowSeconds/60, t.Fine, t.Tool, t.Failed)
	return p
}

func latencyPlot(s *Status) plot {
	p := stack(s.Points,
		layer{"own", func(p Point) float64 { return p.OwnMS }},
		layer{"upstream", func(p Point) float64 { return p.UpstreamMS }})
	p.Axis = axis(s.WindowSeconds / 60)
	p.Label = fmt.Sprintf("Bars: the mean time until an answer began, in steps of %d seconds. At most %s of it was the proxy's own and %s Mimecast's.",
		s.StepSeconds, ms(p.Series[0].Max), ms(p.Series[1].Max))
	return p
}

func failed(p Point) float64 { return float64(p.Proxy) + float64(p.Token) + float64(p.Mimecast) }

// stateOf returns the state of one of the four: the verdict's where that names
// it, else whether enough was its fault lately.
func stateOf(s *Status, culprit string) string {
	switch {
	case s.Verdict.Culprit == culprit:
		return s.Verdict.State
	case percent(lately(s, culprit), s.LastMinute) >= notable:
		return stateWatch
	default:
		return stateOK
	}
}

func toolPart(s *Status) part {
	p := part{Name: "Tool", State: stateOf(s, "tool"), Figure: strconv.FormatUint(uint64(s.LastMinute), 10) + " requests/min"}
	if n := lately(s, "tool"); n > 0 {
		p.Notes = []string{fmt.Sprintf("%d of them its own fault", n)}
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%d since the start", s.Total))
	return p
}

func proxyPart(s *Status) part {
	p := part{Name: "Proxy", State: stateOf(s, "proxy"), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "adds " + ms(s.Latency.OwnP50MS)
	}
	note := fmt.Sprintf("%d in flight", s.InFlight)
	if s.MaxRequests > 0 {
		note += fmt.Sprintf(" of %d", s.MaxRequests)
	}
	p.Notes = []string{note, "up " + span(s.Now.Sub(s.Started))}
	return p
}

func tokenPart(s *Status) part {
	p := part{Name: "Token", State: stateOf(s, "token"), Figure: "none held"}
	switch {
	case s.Token.Rejected:
		p.Figure = "rejected"
	case s.Token.Valid:
		p.Figure = span(s.Token.Expiry.Sub(s.Now)) + " left"
		p.Notes = []string{"renewal " + until(s.Token.NextRenewal, s.Now)}
	case s.Token.Held:
		p.Figure = "expired"
	}
	if s.Token.LastError != "" {
		p.Notes = []string{"next try " + until(s.Token.RetryAt, s.Now)}
	}
	if s.Renewing {
		p.Notes = []string{"being fetched now"}
	}
	return p
}

func mimecastPart(s *Status) part {
	p := part{Name: "Mimecast", State: stateOf(s, "mimecast"), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "answers in " + ms(s.Latency.UpstreamP50MS)
	}
	p.Notes = []string{"rate limit not told"}
	if l := s.RateLimit; l != nil {
		p.Notes = []string{"rate limit: " + quota(l) + " left"}
	}
	if s.Latency.Count > 0 {
		p.Notes = append(p.Notes, "95 % within "+ms(s.Latency.UpstreamP95MS))
	}
	return p
}

// quota returns what is left of a rate limit.
func quota(l *RateLimit) string { return number(l.Remaining) + " of " + number(l.Limit) }

// reset returns when Mimecast gives the quota back, where it said so.
func reset(l *RateLimit, now time.Time) string {
	if l.ResetMS == nil {
		return ""
	}
	at := l.SeenAt.Add(time.Duration(*l.ResetMS * float64(time.Millisecond)))
	if !at.After(now) {
		return "by now"
	}
	return until(at, now)
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

// filter narrows the list of requests.
type filter struct {
	Text string
	// Show is one of the values of shows.
	Show  string
	Shows []choice
}

type choice struct{ Value, Label string }

var shows = []choice{{"all", "all"}, {"wrong", "that went wrong"}, {"retried", "sent again"}, {"slow", "over one second"}}

func newFilter(query url.Values) filter {
	f := filter{Text: query.Get("q"), Show: "all", Shows: shows}
	for _, c := range shows {
		if c.Value == query.Get("show") {
			f.Show = c.Value
		}
	}
	return f
}

func (f filter) apply(requests []Request) []Request {
	terms := strings.Fields(strings.ToLower(f.Text))
	return slices.DeleteFunc(slices.Clone(requests), func(r Request) bool { return !f.shows(r) || !matches(r, terms) })
}

func (f filter) shows(r Request) bool {
	switch f.Show {
	case "wrong":
		return r.Fault != ""
	case "retried":
		return r.Retried
	case "slow":
		return r.DurationMS > 1000
	default:
		return true
	}
}

// matches reports whether each term is somewhere in what is shown of r.
func matches(r Request, terms []string) bool {
	text := strings.ToLower(strings.Join([]string{
		r.Method, r.Path, strconv.Itoa(r.Status), r.RequestID, r.MimecastID, r.TraceID, r.Client, r.Route, r.Fault, r.Culprit, r.Error,
	}, "\n"))
	return !slices.ContainsFunc(terms, func(term string) bool { return !strings.Contains(text, term) })
}
