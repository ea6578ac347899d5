package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"sync/atomic"

	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

// keys hands out the key in force. It may change at any time; what is derived
// from it is kept until it does.
type keys struct {
	key  func() secret.Text
	held atomic.Pointer[keyring]
}

// inForce returns the key to ask for, nil where none is wanted. Two requests
// that meet a new key at once both derive the same from it, so no lock is due.
func (k *keys) inForce() *keyring {
	if k.key == nil {
		return nil
	}
	text := k.key()
	if text.IsZero() {
		return nil
	}
	held := k.held.Load()
	if held == nil || held.text.Reveal() != text.Reveal() {
		held = newKeyring(text)
		k.held.Store(held)
	}
	return held
}

type digest [sha256.Size]byte

// keyring is a key with what proves it. Digests are compared, in constant time,
// so that the time tells nothing of the key, not its length either.
type keyring struct {
	text secret.Text
	key  digest
	// token is what the token stub gives to whoever knows the key. It is made
	// from the key, so that every replica knows it and a restart does not
	// forget it; and it ends with the key.
	token       secret.Text
	tokenDigest digest
}

// tokenLabel says what the key is used for when a token is made from it.
const tokenLabel = "mimecast-proxy token stub, version 1"

func newKeyring(text secret.Text) *keyring {
	mac := hmac.New(sha256.New, []byte(text.Reveal()))
	mac.Write([]byte(tokenLabel))
	token := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	return &keyring{
		text:        text,
		key:         sha256.Sum256([]byte(text.Reveal())),
		token:       secret.New(token),
		tokenDigest: sha256.Sum256([]byte(token)),
	}
}

func (k *keyring) isKey(s string) bool {
	d := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(d[:], k.key[:]) == 1
}

func (k *keyring) isKeyOrToken(s string) bool {
	d := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(d[:], k.key[:])|subtle.ConstantTimeCompare(d[:], k.tokenDigest[:]) == 1
}

// isProvedBy reports whether a request's headers bear the key. X-Proxy-Key goes
// before Authorization, which a client may need for what it believes to be
// Mimecast; a header that comes twice proves nothing.
func (k *keyring) isProvedBy(h http.Header) bool {
	if own := h["X-Proxy-Key"]; len(own) > 0 {
		return len(own) == 1 && k.isKey(own[0])
	}
	given := h["Authorization"]
	if len(given) != 1 {
		return false
	}
	scheme, value, _ := strings.Cut(given[0], " ")
	value = strings.TrimLeft(value, " ")
	if strings.EqualFold(scheme, "Bearer") {
		return k.isKeyOrToken(value)
	}
	password, ok := "", strings.EqualFold(scheme, "Basic")
	if ok {
		password, ok = basicPassword(value)
	}
	return ok && k.isKey(password)
}

// basicPassword returns the password of Basic credentials (RFC 7617, section 2).
func basicPassword(encoded string) (string, bool) {
	pair, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", false
	}
	_, password, ok := strings.Cut(string(pair), ":")
	return password, ok
}

// judgeKey asks for the key, in any of its forms.
func (g *Guard) judgeKey(r *http.Request) *problem.Problem {
	k := g.keys.inForce()
	if k == nil || k.isProvedBy(r.Header) {
		return nil
	}
	what := "asks for its API key"
	if len(r.Header["X-Proxy-Key"])+len(r.Header["Authorization"]) > 0 {
		what = "was given something else than its API key"
	}
	return problem.New(problem.APIKeyRequired, "The proxy %s. Send PROXY_API_KEY's value once, as Authorization: Bearer KEY, as the password of Basic, or as X-Proxy-Key.", what)
}

// challenge says how a client may prove itself (RFC 9110, section 11.6.1).
func challenge(h http.Header) {
	h["Www-Authenticate"] = []string{`Bearer realm="mimecast-proxy"`, `Basic realm="mimecast-proxy", charset="UTF-8"`}
}
