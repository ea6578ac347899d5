package admin

import (
	"fmt"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

func trafficCard(s *Status) g.Node {
	return card("traffic", "card plots", fmt.Sprintf("Traffic in the last %d minutes", s.minutes()), trafficPlot(s).figure(), latencyPlot(s).figure(), stepValues(s))
}

// minutes returns how long the window is.
func (s *Status) minutes() int { return s.WindowSeconds / 60 }

// totals sums the window up.
type totals struct{ Requests, Fine, Client, Failed uint32 }

func sumPoints(points []event.Point) totals {
	var t totals
	for _, p := range points {
		t.Requests += p.Requests
		t.Client += p.Client
		t.Failed += p.Proxy + p.Credentials + p.Mimecast
	}
	t.Fine = t.Requests - min(t.Requests, t.Client+t.Failed)
	return t
}

func trafficPlot(s *Status) plot {
	p := stack(s.Points,
		layer{"failed", failures},
		layer{"client", func(p event.Point) float64 { return float64(p.Client) }},
		layer{"fine", func(p event.Point) float64 { return max(0, float64(p.Requests)-float64(p.Client)-failures(p)) }})
	t := sumPoints(s.Points)
	p.name, p.first, p.step = "plot-requests", firstStep(s), s.StepSeconds
	p.Caption = fmt.Sprintf("Requests per %d s", s.StepSeconds)
	p.Legend = []entry{
		{"fine", fmt.Sprintf("%d succeeded", t.Fine)},
		{"client", plural(t.Client, "client error")},
		{"failed", fmt.Sprintf("%d failed", t.Failed)},
	}
	p.Upper = fmt.Sprintf("%.0f", p.Top)
	p.Axis = axis(s.minutes())
	p.Label = fmt.Sprintf("Requests per %d seconds in the last %d minutes: %d succeeded, %s, %d failed", s.StepSeconds, s.minutes(), t.Fine, plural(t.Client, "client error"), t.Failed)
	return p
}

func latencyPlot(s *Status) plot {
	p := stack(s.Points,
		layer{"own", func(p event.Point) float64 { return p.OwnMS }},
		layer{"upstream", func(p event.Point) float64 { return p.UpstreamMS }})
	p.name, p.first, p.step = "plot-latency", firstStep(s), s.StepSeconds
	p.Caption = fmt.Sprintf("Time until a response begins, mean per %d s", s.StepSeconds)
	p.Legend = []entry{{"own", "Proxy"}, {"upstream", "Mimecast"}}
	if l := s.Latency; l.Count > 0 {
		p.Legend[0].Text += fmt.Sprintf(": median %s, 95 %% within %s", formatMS(l.OwnP50MS), formatMS(l.OwnP95MS))
		p.Legend[1].Text += fmt.Sprintf(": median %s, 95 %% within %s", formatMS(l.UpstreamP50MS), formatMS(l.UpstreamP95MS))
	}
	p.Upper = formatMS(p.Top)
	p.Axis = axis(s.minutes())
	p.Label = fmt.Sprintf("Mean time until a response began, per %d seconds: at most %s in the proxy and %s at Mimecast",
		s.StepSeconds, formatMS(p.Series[0].Max), formatMS(p.Series[1].Max))
	return p
}

func failures(p event.Point) float64 {
	return float64(p.Proxy) + float64(p.Credentials) + float64(p.Mimecast)
}

func firstStep(s *Status) int64 {
	if len(s.Points) == 0 {
		return 0
	}
	return s.Points[0].T
}

// stepValues are the values of the plots in words. page.js shows the one that is pointed
// at.
func stepValues(s *Status) g.Node {
	var items g.Group
	for _, p := range s.Points {
		if p.Requests > 0 {
			items = append(items, el("li", attr("data-step", fmt.Sprint(p.T)), stamp(time.Unix(p.T, 0)), text(": "+stepText(p))))
		}
	}
	if len(items) == 0 {
		return nil
	}
	return el("details", id("values"), el("summary", id("values-summary"), text(fmt.Sprintf("Values of each %d s with requests", s.StepSeconds))), el("ol", class("values"), items))
}

func stepText(p event.Point) string {
	parts := []string{plural(p.Requests, "request")}
	for _, of := range []struct {
		n    uint32
		name string
	}{{p.Client, "client"}, {p.Proxy, "proxy"}, {p.Credentials, "credentials"}, {p.Mimecast, "Mimecast"}} {
		if of.n > 0 {
			parts = append(parts, fmt.Sprintf("%d failed (%s)", of.n, of.name))
		}
	}
	if p.UpstreamMS > 0 {
		parts = append(parts, "proxy "+formatMS(p.OwnMS), "Mimecast "+formatMS(p.UpstreamMS))
	}
	return strings.Join(parts, ", ")
}
