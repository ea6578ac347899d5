// Package secret holds text that must not be printed: a client secret, a
// bearer token, an API key.
//
// The redaction is in the type, so that forgetting it does not compile into a
// leak. A Stringer alone is not enough, since fmt reads unexported fields of a
// struct that holds one without calling its methods; the text is therefore
// kept in a closure, which every printer shows as an address at most.
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

// Reveal returns the text itself. Each call is a place to review.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// IsZero reports whether the text is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both texts are the same, in a time that depends on
// their lengths alone.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(u.Reveal())) == 1
}

// String returns a fixed placeholder, or nothing for an empty text, so that a
// log can still tell a missing secret from a present one.
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
