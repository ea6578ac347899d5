package api1

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// pythonToJSON rewrites what Python's str prints of a dict as JSON: quotes, escapes, and
// the words True, False and None. It checks the tokens, and leaves the grammar to the
// JSON decoder. ok is false if a token is none of Python's.
func pythonToJSON(in []byte) (out []byte, ok bool) {
	for len(in) > 0 {
		switch c := in[0]; {
		case c == '\'' || c == '"':
			text, rest, ok := pythonString(in)
			if !ok {
				return nil, false
			}
			out, in = append(out, text...), rest
		case isWordByte(c):
			n := 1
			for n < len(in) && isWordByte(in[n]) {
				n++
			}
			word, rest := in[:n], in[n:]
			if len(rest) > 0 && (rest[0] == '\'' || rest[0] == '"') && bytes.ContainsAny(word, "uU") && n == 1 {
				word = nil // Python 2 marks Unicode: u'data'
			}
			out, in = append(out, pythonWord(word)...), rest
		default:
			out, in = append(out, c), in[1:]
		}
	}
	return out, true
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func pythonWord(word []byte) []byte {
	switch string(word) {
	case "True":
		return []byte("true")
	case "False":
		return []byte("false")
	case "None":
		return []byte("null")
	}
	return word
}

// pythonString returns the string that in begins with as JSON, and what follows it.
func pythonString(in []byte) (text, rest []byte, ok bool) {
	quote := in[0]
	var value []byte
	for in = in[1:]; len(in) > 0; {
		switch in[0] {
		case quote:
			return encode(string(value)), in[1:], true
		case '\n', '\r':
			return nil, nil, false
		case '\\':
			r, n := pythonEscape(in)
			if n == 0 {
				return nil, nil, false
			}
			value, in = utf8.AppendRune(value, r), in[n:]
		default:
			value, in = append(value, in[0]), in[1:]
		}
	}
	return nil, nil, false
}

// pythonEscape returns the character of the escape that in begins with, and its length;
// 0 if it is none.
func pythonEscape(in []byte) (r rune, n int) {
	if len(in) < 2 {
		return 0, 0
	}
	digits := 0
	switch in[1] {
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case '\\', '\'', '"':
		return rune(in[1]), 2
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	}
	if digits == 0 || len(in) < 2+digits {
		return 0, 0
	}
	v, err := strconv.ParseUint(string(in[2:2+digits]), 16, 31)
	if err != nil {
		return 0, 0
	}
	return rune(v), 2 + digits
}
