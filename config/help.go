package config

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Variable documents one environment variable.
type Variable struct {
	// Name is the name of the variable.
	Name string
	// Default is the default value, or a description of it.
	Default string
	// Help is the meaning.
	Help string
	// Accepts describes the accepted values; empty if any text is accepted.
	Accepts string
	// Required variables have no default. Those with File may also be set by NAME_FILE.
	Required, File bool

	isValue bool // Default is a value, not a description
}

// Variables returns the documentation of every variable, in the order of the struct.
func Variables() []Variable {
	var all []Variable
	for field := range reflect.TypeFor[variables]().Fields() {
		all = append(all, describe(field))
	}
	return all
}

func describe(field reflect.StructField) Variable {
	tag := field.Tag
	value, literal := tag.Lookup("envDefault")
	v := Variable{
		Name:     tag.Get("env"),
		Default:  cmp.Or(value, tag.Get("shown"), "required"),
		Help:     tag.Get("help"),
		Accepts:  tag.Get("accepts"),
		Required: tag.Get("required") == "true",
		File:     tag.Get("file") == "true",
		isValue:  literal,
	}
	if words := strings.Fields(tag.Get("oneof")); len(words) > 0 {
		last := len(words) - 1
		v.Accepts = strings.Join(words[:last], ", ") + " or " + words[last]
	}
	return v
}

// variable returns the variable with that name. It panics if there is none.
func variable(name string) Variable {
	for _, v := range Variables() {
		if v.Name == name {
			return v
		}
	}
	panic("no variable " + name)
}

// variableOf returns the variable that a field of the struct describes. It panics if
// there is none.
func variableOf(field string) Variable {
	f, ok := reflect.TypeFor[variables]().FieldByName(field)
	if !ok {
		panic("no field " + field)
	}
	return describe(f)
}

// names returns the names by which the variable may be set.
func (v Variable) names() []string {
	if v.File {
		return []string{v.Name, v.Name + "_FILE"}
	}
	return []string{v.Name}
}

// nameColumnWidth and helpWidth are the layout of the help text, in columns.
const (
	nameColumnWidth = 29
	helpWidth       = 80
)

// rules apply to all variables.
const rules = "An empty variable counts as not set. NAME_FILE names a file that contains NAME. " +
	"The proxy checks every file every 2 s and applies changes without a restart. If it cannot use a new version, it keeps the last good one. " +
	"A UTF-8 byte order mark and a trailing line end are not part of a value. Write sizes as 8MiB, 512KiB or bytes, and durations as 30s or 1m30s."

// WriteHelp writes the help of every variable in two columns, 80 characters wide. It
// ignores write errors.
func WriteHelp(w io.Writer) {
	var b strings.Builder
	for _, v := range Variables() {
		text := v.Help
		if v.Accepts != "" {
			text += ". Accepted: " + v.Accepts
		}
		if v.Required {
			text += " [required]"
		} else {
			text += " [default: " + v.Default + "]"
		}
		writeColumns(&b, v.names(), wrap(text, helpWidth-nameColumnWidth-1))
	}
	b.WriteString("\n")
	for _, line := range wrap(rules, helpWidth-2) {
		b.WriteString("  " + line + "\n")
	}
	_, _ = io.WriteString(w, b.String()) // a closed terminal needs no help text
}

// writeColumns writes two columns side by side.
func writeColumns(b *strings.Builder, left, right []string) {
	for i := range max(len(left), len(right)) {
		var name, text string
		if i < len(left) {
			name = "  " + left[i]
		}
		if i < len(right) {
			text = right[i]
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s %s", nameColumnWidth, name, text), " ") + "\n")
	}
}

// wrap breaks text into lines of at most width bytes. Longer words stay whole.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// Markdown returns the table of variables for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, v := range Variables() {
		names, value, text := "`"+v.Name+"`", v.Default, v.Help
		if v.File {
			names += ", `_FILE`"
		}
		if v.isValue {
			value = "`" + value + "`"
		}
		if v.Accepts != "" {
			text += ". Accepted: " + v.Accepts
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", names, value, strings.ReplaceAll(text, "|", `\|`))
	}
	return b.String()
}
