package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// report is what was measured, in the order of the measurements.
type report struct {
	sections []*section
	curves   []*curve
}

func newReport() *report { return &report{} }

// section is a table of medians, a column for each proxy.
type section struct {
	title, note string
	rows        []*row
}

type row struct {
	label, unit string
	values      map[string][]float64 // by proxy
}

// curve is a cost as the work grows.
type curve struct {
	name, x, y string
	points     plotter.XYs
}

func (r *report) section(title, note string) *section {
	fmt.Fprintln(os.Stderr, "measuring:", title) // it takes minutes
	s := &section{title: title, note: note}
	r.sections = append(r.sections, s)
	return s
}

func (r *report) curve(name, x, y string) *curve {
	fmt.Fprintln(os.Stderr, "measuring:", name)
	c := &curve{name: name, x: x, y: y}
	r.curves = append(r.curves, c)
	return c
}

func (c *curve) add(x, y float64) { c.points = append(c.points, plotter.XY{X: x, Y: y}) }

func (s *section) add(label, unit, name string, value float64) {
	i := slices.IndexFunc(s.rows, func(r *row) bool { return r.label == label })
	if i < 0 {
		i = len(s.rows)
		s.rows = append(s.rows, &row{label, unit, map[string][]float64{}})
	}
	v := s.rows[i].values
	v[name] = append(v[name], value)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// write prints the tables, and puts them with the plots into the folder, if one
// is named.
func (r *report) write(w io.Writer, folder string, subjects []string) error {
	var text bytes.Buffer
	r.tables(&text, subjects)
	if _, err := w.Write(text.Bytes()); err != nil || folder == "" {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "report.md"), text.Bytes(), 0o644); err != nil {
		return err
	}
	for _, c := range r.curves {
		if err := c.draw(folder); err != nil {
			return err
		}
	}
	return r.bars(folder, subjects)
}

func (r *report) tables(w *bytes.Buffer, subjects []string) {
	fmt.Fprintf(w, "%s, %s/%s, %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, processor())
	for _, s := range r.sections {
		columns := s.columns(subjects)
		fmt.Fprintf(w, "\n### %s\n\n%s In parentheses: times the naive proxy's.\n\n| | %s |\n|---|%s\n", s.title, s.note, strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)))
		for _, row := range s.rows {
			fmt.Fprintf(w, "| %s |", row.title())
			for _, c := range columns {
				fmt.Fprintf(w, " %s |", row.cell(c))
			}
			fmt.Fprintln(w)
		}
	}
	for _, c := range r.curves {
		fmt.Fprintf(w, "\n### %s\n\n| %s | %s |\n|---:|---:|\n", c.name, c.x, c.y)
		for _, p := range c.points {
			fmt.Fprintf(w, "| %s | %s |\n", number(p.X), number(p.Y))
		}
	}
}

func (s *section) columns(subjects []string) []string {
	seen := map[string]bool{}
	for _, r := range s.rows {
		for name := range maps.Keys(r.values) {
			seen[name] = true
		}
	}
	return slices.DeleteFunc(append([]string{direct}, subjects...), func(n string) bool { return !seen[n] })
}

func (r *row) title() string {
	if r.unit == "" {
		return r.label
	}
	return r.label + ", " + r.unit
}

func (r *row) cell(name string) string {
	values := r.values[name]
	if len(values) == 0 {
		return ""
	}
	text := number(median(values))
	if base := r.values[naive]; len(base) > 0 && name != naive && median(base) != 0 {
		text += fmt.Sprintf(" (%.2f)", median(values)/median(base))
	}
	return text
}

func number(f float64) string {
	switch {
	case f >= 100 || f == float64(int64(f)):
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// processor returns the processor's name, as Linux reports it.
func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "a processor without a name"
}

// draw plots a curve over logarithmic work.
func (c *curve) draw(folder string) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = c.x, c.y
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	line, points, err := plotter.NewLinePoints(c.points)
	if err != nil {
		return err
	}
	p.Add(plotter.NewGrid(), line, points)
	p.Y.Min = 0
	return p.Save(14*vg.Centimeter, 8*vg.Centimeter, filepath.Join(folder, c.name+".svg"))
}

// bars plots CPU per request at 64 connections.
func (r *report) bars(folder string, subjects []string) error {
	p := plot.New()
	p.Y.Label.Text = "CPU per request, µs"
	p.Y.Min = 0
	var labels []string
	var values plotter.Values
	for _, s := range r.sections {
		for _, row := range s.rows {
			if row.label != "CPU per request, 64 connections" {
				continue
			}
			_, protocol, _ := strings.Cut(s.title, "over ")
			for _, name := range s.columns(subjects) {
				labels = append(labels, name+"\n"+protocol)
				values = append(values, median(row.values[name]))
			}
		}
	}
	if len(values) == 0 {
		return nil
	}
	chart, err := plotter.NewBarChart(values, 1*vg.Centimeter)
	if err != nil {
		return err
	}
	p.Add(chart)
	p.NominalX(labels...)
	return p.Save(20*vg.Centimeter, 9*vg.Centimeter, filepath.Join(folder, "cost.svg"))
}
