package admin

import (
	"fmt"
	"math"
	"strconv"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// The plots are bars, drawn by paths in a box of this size. They are stretched
// to fit, so their words stand beside them in HTML.
const (
	plotWidth  = 900
	plotHeight = 100
)

// plot is a stack of series over time.
type plot struct {
	name string
	// first is the first step, in Unix seconds, and step how many seconds each has.
	first       int64
	step, steps int
	Caption     string
	Legend      []entry
	// Top is the value at the upper edge, Upper how it is written there.
	Top    float64
	Upper  string
	Series []series
	// Axis are marks in time at equal distances. Label describes the plot for screen
	// readers.
	Axis  []string
	Label string
}

// entry says what the bars of a class are.
type entry struct{ Class, Text string }

// series is one layer, the lowest first.
type series struct {
	Class string
	Path  string
	// Max is the largest value.
	Max float64
}

// layer says what to draw.
type layer struct {
	class string
	value func(event.Point) float64
}

// stack draws layers on top of each other.
func stack(points []event.Point, layers ...layer) plot {
	p := plot{steps: len(points), Series: make([]series, len(layers))}
	for _, point := range points {
		sum := 0.0
		for _, l := range layers {
			sum += l.value(point)
		}
		p.Top = max(p.Top, sum)
	}
	p.Top = ceiling(p.Top)
	for i, l := range layers {
		p.Series[i] = p.draw(points, layers[:i], l)
	}
	return p
}

// draw makes the bars of one layer, which stands on those below it.
func (p *plot) draw(points []event.Point, below []layer, l layer) series {
	s := series{Class: l.class}
	var path []byte
	width := float64(plotWidth) / float64(max(len(points), 1))
	for i, point := range points {
		v := l.value(point)
		if v <= 0 {
			continue
		}
		s.Max = max(s.Max, v)
		base := 0.0
		for _, b := range below {
			base += b.value(point)
		}
		height := v / p.Top * plotHeight
		path = append(path, 'M')
		path = coordinate(path, float64(i)*width)
		path = append(path, ' ')
		path = coordinate(path, plotHeight-base/p.Top*plotHeight)
		path = append(path, 'v')
		path = coordinate(path, -height)
		path = append(path, 'h')
		path = coordinate(path, width*.8)
		path = append(path, 'v')
		path = coordinate(path, height)
		path = append(path, 'z')
	}
	s.Path = string(path)
	return s
}

func coordinate(b []byte, v float64) []byte {
	return strconv.AppendFloat(b, math.Round(v*100)/100, 'f', -1, 64)
}

// ceiling returns the next number that reads well: 1, 2 or 5 times a power of
// ten, and 1 at least.
func ceiling(v float64) float64 {
	if v <= 1 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 2, 5, 10} {
		if v <= n*power {
			return n * power
		}
	}
	return 10 * power
}

// axis marks the last minutes.
func axis(minutes int) []string {
	return []string{fmt.Sprintf("%d min ago", minutes), strconv.Itoa(minutes * 2 / 3), strconv.Itoa(minutes / 3), "now"}
}

func (p plot) figure() g.Node {
	return el("figure",
		el("figcaption", id(p.name+"-caption"),
			textEl("span", "caption", p.Caption),
			el("ul", class("legend"), g.Map(p.Legend, func(e entry) g.Node { return textEl("li", e.Class, e.Text) })),
		),
		el("div", id(p.name), class("plot"), attr("data-first", fmt.Sprint(p.first)), attr("data-seconds", strconv.Itoa(p.step)), attr("data-steps", strconv.Itoa(p.steps)),
			textEl("span", "top-value", p.Upper),
			p.bars(),
			el("div", class("axis"), attr("aria-hidden", "true"), g.Map(p.Axis, func(mark string) g.Node { return el("span", text(mark)) })),
		),
		el("p", id(p.name+"-reading"), class("reading"), attr("aria-hidden", "true")),
	)
}

// bars draws the series over a grid.
func (p plot) bars() g.Node {
	path := func(of, d string) g.Node { return el("path", class(of), attr("d", d)) }
	return svg(fmt.Sprintf("0 0 %d %d", plotWidth, plotHeight), p.Label,
		path("grid", fmt.Sprintf("M0 .5h%dM0 50h%d", plotWidth, plotWidth)),
		g.Map(p.Series, func(s series) g.Node { return path(s.Class, s.Path) }),
	)
}
