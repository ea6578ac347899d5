// Package secret holds text that must not be printed: a client secret, a
// bearer token, an API key.
//
// The type redacts itself, so that a forgotten redaction is not a leak. A Stringer alone
// is not enough: fmt prints unexported fields of a struct without calling their methods.
// The text is therefore in a closure, which every printer shows as an address at most.
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

// New returns a Text that holds s.
func New(s string) Text {
	return Text{reveal: func() string { return s }}
}

// Reveal returns the text. Review each call: it is where a secret can leak.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// IsZero reports whether the text is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both texts are the same, in a time that depends only on their
// lengths.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(u.Reveal())) == 1
}

// String returns "[redacted]", or "" for an empty text, so that a log shows whether a
// secret is missing.
func (t Text) String() string {
	if t.IsZero() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter, so that %x, %#v and the rest are covered.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON encoders heed.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
