package config

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Variable describes one variable for people.
type Variable struct {
	Name    string
	Default string // in words where it is not a value
	Help    string
	Accepts string
	// Required variables have no default. File ones may come from NAME_FILE.
	Required, File bool
}

// Variables returns every variable, in the order in which to read them.
func Variables() []Variable {
	t := reflect.TypeFor[variables]()
	all := make([]Variable, 0, t.NumField())
	for f := range t.Fields() {
		v := Variable{
			Name:     f.Tag.Get("env"),
			Default:  cmp.Or(f.Tag.Get("envDefault"), f.Tag.Get("shown")),
			Help:     f.Tag.Get("help"),
			Accepts:  f.Tag.Get("accepts"),
			Required: f.Tag.Get("required") == "true",
			File:     f.Tag.Get("file") == "true",
		}
		if v.Required {
			v.Default = "required"
		}
		all = append(all, v)
	}
	return all
}

// accepted returns what a variable accepts.
func accepted(name string) string {
	for _, v := range Variables() {
		if v.Name == name {
			return v.Accepts
		}
	}
	return ""
}

// names returns how the variable may be set.
func (v Variable) names() string {
	if v.File {
		return v.Name + ", " + v.Name + "_FILE"
	}
	return v.Name
}

// WriteHelp prints every variable for a terminal.
func WriteHelp(w io.Writer) error {
	for _, v := range Variables() {
		text := v.Help
		if v.Accepts != "" {
			text += ". Accepted: " + v.Accepts
		}
		if _, err := fmt.Fprintf(w, "  %s (%s)\n%s", v.names(), v.Default, wrap(text, "      ", 80)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "  HTTPS_PROXY, NO_PROXY\n%s", wrap("honoured, as Go does. A variable NAME_FILE names a file that holds NAME; it is read again before each token request", "      ", 80))
	return err
}

// wrap breaks text into lines of at most width, each with an indent.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for _, word := range strings.Fields(text) {
		if line != indent && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// Markdown returns the README's table of variables.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, v := range Variables() {
		names := "`" + strings.ReplaceAll(v.names(), ", "+v.Name+"_FILE", "`, `_FILE") + "`"
		text := v.Help
		if v.Accepts != "" {
			text += " (" + v.Accepts + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", names, v.Default, text)
	}
	b.WriteString("| `HTTPS_PROXY`, `NO_PROXY` | | honoured, as Go does |\n")
	return b.String()
}
