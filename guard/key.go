package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

type digest [sha256.Size]byte

// key is an API key and its stub token, as digests. Digests are compared, in constant
// time, so that the time reveals neither the key nor its length.
type key struct {
	digest digest
	// token is what the token stub issues to clients that know the key. It is
	// derived from the key, so that every replica accepts it, also after a restart,
	// for as long as the key is valid.
	token       secret.Text
	tokenDigest digest
}

// tokenLabel separates this use of the key from others.
const tokenLabel = "mimecast-proxy token stub, version 1"

func newKey(text secret.Text) key {
	mac := hmac.New(sha256.New, []byte(text.Reveal()))
	mac.Write([]byte(tokenLabel))
	token := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	return key{sha256.Sum256([]byte(text.Reveal())), secret.New(token), sha256.Sum256([]byte(token))}
}

// keyring holds the keys of which each request must carry one; nil: no key is
// required.
type keyring struct{ keys []key }

// SetKeys replaces the keys, of which each request must carry one from now on. With
// none, or empty ones alone, no key is required.
func (g *Guard) SetKeys(texts []secret.Text) {
	var ring *keyring
	for _, text := range texts {
		if text.IsZero() {
			continue
		}
		if ring == nil {
			ring = new(keyring)
		}
		ring.keys = append(ring.keys, newKey(text))
	}
	g.keys.Store(ring)
}

// find returns the key that equals s, or whose token does if tokens is set; nil if
// there is none. It takes the same time in each case.
func (k *keyring) find(s string, tokens bool) *key {
	d, found := sha256.Sum256([]byte(s)), -1
	for i := range k.keys {
		same := subtle.ConstantTimeCompare(d[:], k.keys[i].digest[:])
		if tokens {
			same |= subtle.ConstantTimeCompare(d[:], k.keys[i].tokenDigest[:])
		}
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return nil
	}
	return &k.keys[found]
}

// findInHeader returns the key that a request's headers carry, or nil. X-Proxy-Key
// takes precedence over Authorization, which a client may need for the token that it
// believes to be Mimecast's. A repeated header carries no key.
func (k *keyring) findInHeader(h http.Header) *key {
	if values := h["X-Proxy-Key"]; len(values) > 0 {
		if len(values) > 1 {
			return nil
		}
		return k.find(values[0], false)
	}
	values := h["Authorization"]
	if len(values) != 1 {
		return nil
	}
	scheme, value, _ := strings.Cut(values[0], " ")
	value = strings.TrimLeft(value, " ")
	if strings.EqualFold(scheme, "Bearer") {
		return k.find(value, true)
	}
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	password, ok := basicPassword(value)
	if !ok {
		return nil
	}
	return k.find(password, false)
}

// AllowsTunnel reports whether a request to the forward proxy carries a key in
// Proxy-Authorization, as Bearer or as the password of Basic, or no key is required.
func (g *Guard) AllowsTunnel(r *http.Request) bool {
	k := g.keys.Load()
	return k == nil || k.findInHeader(http.Header{"Authorization": r.Header["Proxy-Authorization"]}) != nil
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

// checkKey rejects a request without a valid key, in any of its forms.
func (g *Guard) checkKey(r *http.Request) *problem.Problem {
	k := g.keys.Load()
	if k == nil || g.intercepted(r) || k.findInHeader(r.Header) != nil {
		return nil
	}
	what := "requires its API key"
	if len(r.Header["X-Proxy-Key"])+len(r.Header["Authorization"]) > 0 {
		what = "got something else than its API key"
	}
	return problem.New(event.APIKeyRequired, "The proxy %s. Send PROXY_API_KEY's value once, as Authorization: Bearer KEY, as the password of Basic, or as X-Proxy-Key.", what)
}

// addChallenge lists the schemes that carry a key (RFC 9110, section 11.6.1).
func addChallenge(h http.Header) {
	h["Www-Authenticate"] = []string{`Bearer realm="mimecast-proxy"`, `Basic realm="mimecast-proxy", charset="UTF-8"`}
}

// StubToken returns the token that the token stub issues to clients that know a key.
// It is as secret as the key.
func StubToken(key secret.Text) secret.Text { return newKey(key).token }
