package api1

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// event is an event of API 2.0. Numbers are kept as they were written.
type event20 map[string]any

var errEvent = errors.New("not an event")

func parseEvent(line []byte) (e event20, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&e); err != nil || e == nil {
		return nil, errEvent
	}
	return e, nil
}

// timestamp is when the event happened, in milliseconds since 1970; 0 if it does not
// say.
func (e event20) timestamp() int64 {
	n, err := strconv.ParseInt(text(e["timestamp"]), 10, 64)
	if err != nil || n < 0 || n > lastInstant {
		return 0
	}
	return n
}

// pair is a field of API 1.0 with its value.
type pair struct {
	name  string
	value any
	kind  kind
}

// newerSuffix is what API 2.0 adds to the code that connects a message's events.
var newerSuffix = regexp.MustCompile(`_[0-9]+$`)

// translate returns the fields of an event in API 1.0. Fields that the event lacks are
// left out.
func (t *eventType) translate(e event20) []pair {
	pairs := make([]pair, 0, len(t.fields)+3)
	if at := e.timestamp(); at > 0 {
		pairs = append(pairs, pair{"datetime", time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05-0700"), plain})
	}
	if code := text(e["aggregateId"]); code != "" {
		pairs = append(pairs, pair{"aCode", newerSuffix.ReplaceAllString(code, ""), plain})
	}
	if account := e["accountId"]; account != nil {
		pairs = append(pairs, pair{"acc", account, plain})
	}
	for _, f := range t.fields {
		for _, name := range f.from {
			if v := e[name]; v != nil {
				pairs = append(pairs, pair{f.name, v, f.kind})
				break
			}
		}
	}
	return pairs
}

// appendLine appends the event as a line of fields.
func appendLine(b []byte, pairs []pair) []byte {
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '|')
		}
		value := text(p.value)
		if p.kind == hit && strings.EqualFold(value, "hit") {
			value = "true"
		}
		b = append(append(append(b, p.name...), '='), harmless(value)...)
	}
	return append(b, '\n')
}

// harmless returns a value without what ends a field or a line for some reader: a subject
// is a stranger's text, and would forge fields or events. Python's splitlines splits at
// more than CR and LF.
func harmless(value string) string {
	return strings.Map(func(r rune) rune {
		if r == '|' || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, value)
}

// text is a value as text: lists of texts with commas, other lists and objects as JSON.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		if list, ok := texts(v); ok {
			return strings.Join(list, ", ")
		}
	}
	return string(encode(v))
}

func texts(list []any) (all []string, ok bool) {
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

// appendObject appends the event as a JSON object.
func appendObject(b []byte, pairs []pair) []byte {
	b = append(b, '{')
	for i, p := range pairs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), p.name...), '"', ':')
		b = append(b, encode(p.typed())...)
	}
	return append(b, '}')
}

// encode returns texts, numbers and bools, and what is made of them, as JSON, with <, >
// and & as they are.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// typed is the value as API 1.0's JSON has it. Text that does not fit stays text.
func (p pair) typed() any {
	s, ok := p.value.(string)
	if !ok {
		return p.value
	}
	switch p.kind {
	case number:
		if n := strings.TrimSpace(s); isNumber(n) {
			return json.Number(n)
		}
	case boolean:
		if b, err := strconv.ParseBool(strings.ToLower(s)); err == nil {
			return b
		}
	case hit:
		if strings.EqualFold(s, "hit") {
			return true
		}
	case nested:
		if v := json.RawMessage(s); json.Valid(v) {
			return v
		}
	case plain:
	}
	return s
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && json.Valid([]byte(s))
}
