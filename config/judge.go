package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Fault is one thing that is wrong with one variable.
type Fault struct {
	Variable string
	// Found says what was found, and never a secret's value.
	Found string
	// Accepted says what would be right.
	Accepted string
}

// String is one line for the operator.
func (f Fault) String() string {
	return f.Variable + ": " + f.Found + "; accepted: " + f.Accepted
}

// Error is a configuration that cannot be used, with all that is wrong with it.
type Error struct {
	// Faults are in the order of the manual.
	Faults []Fault
	// Warnings may say why: a misspelt name is not set.
	Warnings []string
}

// Error returns a line a fault.
func (e *Error) Error() string {
	lines := []string{"the configuration cannot be used:"}
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.String())
	}
	for _, w := range e.Warnings {
		lines = append(lines, "  note: "+w)
	}
	return strings.Join(append(lines, "See mimecast-proxy help for every variable."), "\n")
}

// refusal is why a type of a variable does not accept a value.
type refusal struct {
	// value is the part that is refused; empty means all of it.
	value string
	// reason follows the value in a sentence.
	reason string
	// hidden says that the value is not to be shown.
	hidden bool
	// accepted is better advice than the manual's; empty means the manual's.
	accepted string
}

func (r refusal) Error() string { return r.reason }

// refuse returns a refusal of a whole value.
func refuse(format string, args ...any) error {
	return refusal{reason: fmt.Sprintf(format, args...)}
}

// judge collects what is wrong with one environment.
type judge struct {
	environ  map[string]string // without empty values
	empty    map[string]bool   // names that are set, but to nothing
	faults   []Fault
	warnings []string
	foreign  []string // warnings of names that resemble none of ours
	files    []*File
}

func newJudge(environ []string) *judge {
	j := &judge{environ: map[string]string{}, empty: map[string]bool{}}
	for _, v := range environ {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" { // Windows has names that begin with =
			continue
		}
		delete(j.environ, name)
		if j.empty[name] = value == ""; value != "" {
			j.environ[name] = value
		}
	}
	j.eitherCase("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
	return j
}

// decode maps the environment to the struct and notes what its types refuse.
func (j *judge) decode() variables {
	v, err := env.ParseAsWithOptions[variables](env.Options{Environment: j.environ})
	if err != nil {
		aggregate, ok := errors.AsType[env.AggregateError](err)
		if !ok {
			panic(err) // the struct is wrong
		}
		for _, err := range aggregate.Errors {
			j.refused(err)
		}
	}
	j.choices(v)
	return v
}

// refused notes what the type of one variable said of its value.
func (j *judge) refused(err error) {
	failed, ok := errors.AsType[env.ParseError](err)
	if !ok {
		panic(err) // the struct is wrong
	}
	v := variableOf(failed.Name)
	all := []error{failed.Err}
	if joined, ok := failed.Err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		r, ok := errors.AsType[refusal](err)
		if !ok {
			panic(err) // the type of the variable has no refusals
		}
		found := "its value " + r.reason
		if !r.hidden {
			found = quoted(cmp.Or(r.value, j.environ[v.Name])) + " " + r.reason
		}
		j.fault(v.Name, found, cmp.Or(r.accepted, v.Accepts))
	}
}

// choices judges the variables that accept but a few words.
func (j *judge) choices(v variables) {
	t, value := reflect.TypeFor[variables](), reflect.ValueOf(v)
	for i := range t.NumField() {
		field := t.Field(i)
		words, ok := field.Tag.Lookup("oneof")
		if !ok || slices.Contains(strings.Fields(words), value.Field(i).String()) {
			continue
		}
		v := describe(field)
		j.fault(v.Name, quoted(j.environ[v.Name])+" is not one of them", v.Accepts)
	}
}

func (j *judge) fault(variable, found, accepted string) {
	j.faults = append(j.faults, Fault{variable, found, accepted})
}

func (j *judge) warning(format string, args ...any) {
	j.warnings = append(j.warnings, fmt.Sprintf(format, args...))
}

// faulty reports whether a fault with the variable was noted, or with the file
// in its place.
func (j *judge) faulty(variable string) bool {
	return slices.ContainsFunc(j.faults, func(f Fault) bool { return strings.TrimSuffix(f.Variable, "_FILE") == variable })
}

// keep forgets the faults with other variables.
func (j *judge) keep(variable string) {
	j.faults = slices.DeleteFunc(j.faults, func(f Fault) bool { return f.Variable != variable })
}

// error returns the faults in the order of the manual.
func (j *judge) error() error {
	if len(j.faults) == 0 {
		return nil
	}
	manual := Variables()
	position := func(f Fault) int {
		return slices.IndexFunc(manual, func(v Variable) bool {
			return f.Variable == v.Name || v.File && f.Variable == v.Name+"_FILE"
		})
	}
	slices.SortStableFunc(j.faults, func(a, b Fault) int { return cmp.Compare(position(a), position(b)) })
	return &Error{j.faults, j.warnings}
}

// maxQuoted bounds what of a value is shown, in bytes.
const maxQuoted = 100

// quoted shows a value on one line, without what may be a password in a URL:
// its user and its query.
func quoted(value string) string {
	if at := strings.LastIndexByte(value, '@'); at >= 0 {
		scheme := ""
		for _, s := range []string{"https://", "http://"} {
			if strings.HasPrefix(value, s) {
				scheme = s
			}
		}
		value = scheme + "[redacted]" + value[at:]
	}
	if before, _, ok := strings.Cut(value, "?"); ok {
		value = before + "?[redacted]"
	}
	if len(value) > maxQuoted {
		value = value[:maxQuoted] + "..."
	}
	return fmt.Sprintf("%q", value)
}
