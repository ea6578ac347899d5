package admin

import (
	"fmt"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

func trafficCard(s *Status) g.Node {
	return card("traffic", "card plots", fmt.Sprintf("The last %d minutes", s.minutes()), trafficPlot(s).figure(), latencyPlot(s).figure())
}

// minutes returns how long the window is.
func (s *Status) minutes() int { return s.WindowSeconds / 60 }

// totals sums the window up.
type totals struct{ Requests, Fine, Tool, Failed uint32 }

func sumPoints(points []event.Point) totals {
	var t totals
	for _, p := range points {
		t.Requests += p.Requests
		t.Tool += p.Tool
		t.Failed += p.Proxy + p.Token + p.Mimecast
	}
	t.Fine = t.Requests - min(t.Requests, t.Tool+t.Failed)
	return t
}

func trafficPlot(s *Status) plot {
	p := stack(s.Points,
		layer{"failed", failures},
		layer{"tool", func(p event.Point) float64 { return float64(p.Tool) }},
		layer{"fine", func(p event.Point) float64 { return max(0, float64(p.Requests)-float64(p.Tool)-failures(p)) }})
	t := sumPoints(s.Points)
	p.Caption = fmt.Sprintf("Requests per %d s", s.StepSeconds)
	p.Legend = []entry{
		{"fine", fmt.Sprintf("%d went well", t.Fine)},
		{"tool", fmt.Sprintf("%d the tool's own fault", t.Tool)},
		{"failed", fmt.Sprintf("%d failed", t.Failed)},
	}
	p.Upper = fmt.Sprintf("%.0f", p.Top)
	p.Axis = axis(s.minutes())
	p.Label = fmt.Sprintf("Bars: requests in the last %d minutes. %d went well, %d were the tool's own fault, %d failed.", s.minutes(), t.Fine, t.Tool, t.Failed)
	return p
}

func latencyPlot(s *Status) plot {
	p := stack(s.Points,
		layer{"own", func(p event.Point) float64 { return p.OwnMS }},
		layer{"upstream", func(p event.Point) float64 { return p.UpstreamMS }})
	p.Caption = "Time until an answer begins"
	p.Legend = []entry{{"own", "Proxy"}, {"upstream", "Mimecast"}}
	if l := s.Latency; l.Count > 0 {
		p.Legend[0].Text += fmt.Sprintf(": half within %s, 95 %% within %s", formatMS(l.OwnP50MS), formatMS(l.OwnP95MS))
		p.Legend[1].Text += fmt.Sprintf(": half within %s, 95 %% within %s", formatMS(l.UpstreamP50MS), formatMS(l.UpstreamP95MS))
	}
	p.Upper = formatMS(p.Top)
	p.Axis = axis(s.minutes())
	p.Label = fmt.Sprintf("Bars: the mean time until an answer began, in steps of %d seconds. At most %s of it was the proxy's own and %s Mimecast's.",
		s.StepSeconds, formatMS(p.Series[0].Max), formatMS(p.Series[1].Max))
	return p
}

func failures(p event.Point) float64 {
	return float64(p.Proxy) + float64(p.Token) + float64(p.Mimecast)
}
