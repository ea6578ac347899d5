// Package secret holds text that must not be printed: a client secret, a bearer token
// or an API key.
//
// The type redacts itself, so a forgotten redaction leaks nothing. A Stringer is not
// enough: fmt prints unexported fields of a struct without calling their methods. So
// the text is in a closure, which printers show at most as an address.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
)

const redacted = "[redacted]"

// Text is a string that no fmt verb, JSON encoder or logger prints. The zero
// value holds the empty string.
type Text struct {
	reveal func() string
}

// New returns a Text with the string s.
func New(s string) Text {
	return Text{reveal: func() string { return s }}
}

// Reveal returns the text. Review each call, since the text can leak there.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// IsZero reports whether the text is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both texts are the same. The time depends only on their
// lengths.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(u.Reveal())) == 1
}

// String returns "[redacted]", or "" for an empty text. So a log shows whether a secret
// is missing.
func (t Text) String() string {
	if t.IsZero() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter, to redact for every verb, including %x and %#v.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON encoders use.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
