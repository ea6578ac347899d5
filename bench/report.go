package main

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// report is the result of a run, in the order of the measurements.
type report struct {
	sections []*section
	curves   []*curve
	rounds   int
}

// section is a table of medians with a column for each proxy.
type section struct {
	id, title, note string
	rows            []*row
	goals           map[string]goal // by label
	names           []string        // the columns, if other than the subjects
}

type row struct {
	label, unit string
	values      map[string][]float64 // by proxy
}

// curve is a cost as a function of the work.
type curve struct {
	name, x, y string
	points     plotter.XYs
}

func (r *report) section(id, title, note string) *section {
	fmt.Fprintln(os.Stderr, "measuring:", title) // a section takes minutes
	s := &section{id: id, title: title, note: note}
	r.sections = append(r.sections, s)
	return s
}

func (r *report) curve(name, x, y string) *curve {
	c := &curve{name: name, x: x, y: y}
	r.curves = append(r.curves, c)
	return c
}

// add adds a point and returns y.
func (c *curve) add(x, y float64) float64 {
	c.points = append(c.points, plotter.XY{X: x, Y: y})
	return y
}

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

// blocks returns each table as Markdown, by its ID.
func (r *report) blocks(subjects []string) (ids []string, blocks map[string]string) {
	blocks = map[string]string{}
	for _, s := range r.sections {
		if len(s.rows) == 0 {
			continue // it failed
		}
		ids = append(ids, s.id)
		blocks[s.id] = s.table(subjects) + "\n" + r.origin()
	}
	return ids, blocks
}

// origin returns the date, versions and machine of the run.
func (r *report) origin() string {
	return fmt.Sprintf("Measured: %s, %s, %s/%s, %d cores, %s, `-rounds %d`.\n", time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, cores(), processor(), r.rounds)
}

// write prints the tables and draws the plots into a folder. If docs is set, it also
// updates the tables in that folder's documents and the plots below it.
func (r *report) write(w io.Writer, plots, docs string, subjects []string) error {
	var text strings.Builder
	ids, blocks := r.blocks(subjects)
	for _, id := range ids {
		fmt.Fprintf(&text, "<!-- bench: %s -->\n%s\n", id, blocks[id])
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return err
	}
	if plots != "" {
		if err := os.WriteFile(filepath.Join(plots, "report.md"), []byte(text.String()), 0o644); err != nil {
			return err
		}
		if err := r.draw(plots, subjects); err != nil {
			return err
		}
	}
	if docs == "" {
		return nil
	}
	return errors.Join(r.draw(filepath.Join(docs, "images"), subjects), replaceBlocks(docs, blocks))
}

func (r *report) draw(folder string, subjects []string) error {
	for _, c := range r.curves {
		if len(c.points) < 2 {
			continue // it failed
		}
		if err := c.draw(folder); err != nil {
			return err
		}
	}
	return r.bars(folder, subjects)
}

// table returns the section as Markdown.
func (s *section) table(subjects []string) string {
	var w strings.Builder
	columns := s.columns(subjects)
	note := s.note
	if slices.Contains(columns, naive) && s.goals == nil {
		note += " In parentheses: relative to the naive proxy."
	}
	heads := columns
	if s.goals != nil {
		heads = append(slices.Clone(columns), "compared", "goal", "met")
	}
	fmt.Fprintf(&w, "%s\n\n| | %s |\n|---|%s\n", note, strings.Join(heads, " | "), strings.Repeat("---:|", len(heads)))
	for _, row := range s.rows {
		fmt.Fprintf(&w, "| %s |", row.title())
		for _, c := range columns {
			fmt.Fprintf(&w, " %s |", row.cell(c, s.goals == nil))
		}
		if s.goals != nil {
			fmt.Fprintf(&w, " %s |", row.verdict(s.goals[row.label]))
		}
		fmt.Fprintln(&w)
	}
	return w.String()
}

// verdict returns three cells: the compared value, the goal, and whether it is met.
func (r *row) verdict(g goal) string {
	value, ok := g.compared(r.values[ours], r.values[naive])
	switch {
	case !ok || g.kind == noGoal && len(r.values[naive]) == 0:
		return fmt.Sprintf(" | %v |", g)
	case g.kind == noGoal:
		return number(value) + " | |"
	case g.isMet(value):
		return fmt.Sprintf("%s | %v | yes", number(value), g)
	}
	return fmt.Sprintf("%s | %v | **no**", number(value), g)
}

func (s *section) columns(subjects []string) []string {
	seen := map[string]bool{}
	for _, r := range s.rows {
		for name := range maps.Keys(r.values) {
			seen[name] = true
		}
	}
	if s.names != nil {
		subjects = s.names
	}
	return slices.DeleteFunc(append([]string{direct}, subjects...), func(n string) bool { return !seen[n] })
}

func (r *row) title() string {
	if r.unit == "" {
		return r.label
	}
	return r.label + ", " + r.unit
}

// cell returns a proxy's median and, if relative, its ratio to the naive proxy's.
func (r *row) cell(name string, relative bool) string {
	values := r.values[name]
	if len(values) == 0 {
		return ""
	}
	text := number(median(values))
	if base := r.values[naive]; relative && len(base) > 0 && name != naive && median(base) != 0 {
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
	case f < .1 && f > -.1:
		return fmt.Sprintf("%.3f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// cores returns the machine's number of processors, even if this process may use fewer.
func cores() int {
	data, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Count(string(data), "processor\t:")
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

// draw plots a curve with a logarithmic x-axis.
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
	// Leave room for the last point and its label.
	p.Y.Min, p.X.Max, p.Y.Max = 0, p.X.Max*1.5, p.Y.Max*1.1
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
			if !strings.HasPrefix(s.id, "cost-") {
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
	chart.Color = color.Gray{Y: 96}
	p.Add(chart)
	p.NominalX(labels...)
	p.X.Padding, p.Y.Max = 1*vg.Centimeter, p.Y.Max*1.1
	return p.Save(28*vg.Centimeter, 9*vg.Centimeter, filepath.Join(folder, "cost.svg"))
}
