package batch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"mimecast-proxy/secret"
)

const (
	// label keeps the keys of seals apart from any other use of a client secret, and has
	// the version of their content.
	label = "mimecast-proxy batch URL 1"
	// sealLife is how long a seal is valid after it was made, and after the expiry that
	// Mimecast states. Mimecast keeps batches as long. Later, the host in the URL may have
	// another owner.
	sealLife = 7 * 24 * time.Hour
	// expirySize is the length of the time before the URL, in seconds since 1970.
	expirySize = 8
)

// encoding of seals. It is strict, so that each seal has one spelling.
var encoding = base64.RawURLEncoding.Strict()

var errNoSecret = errors.New("there is no client secret")

// newAEAD returns the cipher for a client secret. Each replica that has the secret gets
// the same.
func newAEAD(key secret.Text) (cipher.AEAD, error) {
	if key.IsZero() { // an empty secret is no secret
		return nil, errNoSecret
	}
	derived, err := hkdf.Key(sha256.New, []byte(key.Reveal()), nil, label, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal returns a URL as a text that only the holders of the key can read or make, and that
// opens for the same list only. Mimecast states when the URL expires; zero: it does not.
func seal(key cipher.AEAD, list, address string, expiry, now time.Time) string {
	if expiry.Before(now) {
		expiry = now
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(expiry.Add(sealLife).Unix()))
	return encoding.EncodeToString(key.Seal(nil, nil, append(plain, address...), boundTo(list)))
}

// boundTo returns the additional data of the seals in a list.
func boundTo(list string) []byte { return []byte(label + " " + list) }

// open returns the URL of a seal that was made for the list with one of the secrets, and
// has not expired.
func open(keys []secret.Text, list, text string, now time.Time) (address string, ok bool) {
	sealed, err := encoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which decoders skip
		return "", false
	}
	for _, key := range keys {
		aead, err := newAEAD(key)
		if err != nil {
			continue
		}
		if plain, err := aead.Open(nil, nil, sealed, boundTo(list)); err == nil && len(plain) > expirySize {
			until := time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)
			return string(plain[expirySize:]), now.Before(until)
		}
	}
	return "", false
}
