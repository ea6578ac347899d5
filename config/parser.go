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

// VariableError is one error in one variable.
type VariableError struct {
	// Variable is the variable's name, or NAME_FILE.
	Variable string
	// Found describes the value found. It never contains a secret.
	Found string
	// Accepted describes the accepted values.
	Accepted string
}

// String returns one line for the operator.
func (f VariableError) String() string {
	return f.Variable + ": " + f.Found + "; accepted: " + f.Accepted
}

// Error reports everything that is wrong with a configuration.
type Error struct {
	// Errors are in the order of [Variables].
	Errors []VariableError
	// Warnings may contain the cause: a misspelled variable counts as not set.
	Warnings []string
}

// Error returns one line per error and warning.
func (e *Error) Error() string {
	lines := []string{"the configuration cannot be used:"}
	for _, f := range e.Errors {
		lines = append(lines, "  "+f.String())
	}
	for _, w := range e.Warnings {
		lines = append(lines, "  note: "+w)
	}
	return strings.Join(append(lines, "See mimecast-proxy help for every variable."), "\n")
}

// invalidValue is the error of a variable's type for a value that it rejects.
type invalidValue struct {
	// value is the invalid part; empty means all of it.
	value string
	// reason follows the value in the error text.
	reason string
	// hidden is set if errors must not show the value.
	hidden bool
	// hint replaces the documented accepted values with something more specific; empty
	// to keep them.
	hint string
}

func (r invalidValue) Error() string { return r.reason }

// invalid returns an invalidValue for the whole value.
func invalid(format string, args ...any) error {
	return invalidValue{reason: fmt.Sprintf(format, args...)}
}

// parser collects the settings and errors of one environment.
type parser struct {
	environ  map[string]string // without empty values
	empty    map[string]bool   // names that are set to the empty string
	errs     []VariableError
	warnings []string
	foreign  []string // warnings about names that resemble no known variable
	files    []*File
	clients  Clients // zero before they are read

	stored                 *Stored // nil if no stored connection is used
	storedID, storedSecret Credential
	fromStored             map[string]bool // variables whose value comes from the stored connection
}

func newParser(environ []string) *parser {
	p := &parser{environ: map[string]string{}, empty: map[string]bool{}, fromStored: map[string]bool{}}
	for _, v := range environ {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" { // Windows has names that begin with =
			continue
		}
		delete(p.environ, name)
		if p.empty[name] = value == ""; value != "" {
			p.environ[name] = value
		}
	}
	p.lowerCaseWins("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
	return p
}

// decode parses the environment into the struct and collects the errors of the fields'
// types.
func (p *parser) decode() variables {
	v, err := env.ParseAsWithOptions[variables](env.Options{Environment: p.environ})
	if err != nil {
		aggregate, ok := errors.AsType[env.AggregateError](err)
		if !ok {
			panic(err) // the struct is wrong
		}
		for _, err := range aggregate.Errors {
			p.addInvalid(err)
		}
	}
	p.checkChoices(v)
	return v
}

// addInvalid collects the error that a field's type returned.
func (p *parser) addInvalid(err error) {
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
		r, ok := errors.AsType[invalidValue](err)
		if !ok {
			panic(err) // the type of the variable returns other errors
		}
		found := "its value " + r.reason
		if !r.hidden {
			found = quoted(cmp.Or(r.value, p.environ[v.Name])) + " " + r.reason
		}
		p.addError(v.Name, found, cmp.Or(r.hint, v.Accepts))
	}
}

// checkChoices checks the variables with a oneof tag.
func (p *parser) checkChoices(v variables) {
	t, value := reflect.TypeFor[variables](), reflect.ValueOf(v)
	for i := range t.NumField() {
		field := t.Field(i)
		words, ok := field.Tag.Lookup("oneof")
		if !ok || slices.Contains(strings.Fields(words), value.Field(i).String()) {
			continue
		}
		v := describe(field)
		p.addError(v.Name, quoted(p.environ[v.Name])+" is not one of them", v.Accepts)
	}
}

func (p *parser) addError(variable, found, accepted string) {
	p.errs = append(p.errs, VariableError{variable, found, accepted})
}

func (p *parser) addWarning(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// hasError reports whether the variable or its NAME_FILE has an error.
func (p *parser) hasError(variable string) bool {
	return slices.ContainsFunc(p.errs, func(f VariableError) bool { return strings.TrimSuffix(f.Variable, "_FILE") == variable })
}

// keepErrorsOf drops the errors of other variables.
func (p *parser) keepErrorsOf(variable string) {
	p.errs = slices.DeleteFunc(p.errs, func(f VariableError) bool { return f.Variable != variable })
}

// err returns the errors in the order of [Variables]; nil if there are none.
func (p *parser) err() error {
	if len(p.errs) == 0 {
		return nil
	}
	manual := Variables()
	position := func(f VariableError) int {
		return slices.IndexFunc(manual, func(v Variable) bool {
			return f.Variable == v.Name || v.File && f.Variable == v.Name+"_FILE"
		})
	}
	slices.SortStableFunc(p.errs, func(a, b VariableError) int { return cmp.Compare(position(a), position(b)) })
	return &Error{p.errs, p.warnings}
}

// maxQuoted limits the part of a value that errors show, in bytes.
const maxQuoted = 100

// quoted quotes a value on one line. It hides the parts of a URL that may contain a
// password: user and query.
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
