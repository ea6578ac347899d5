package guard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"mimecast-proxy/secret"
)

type digest [sha256.Size]byte

// entry is a key, or a token that the stub issues for one. Digests are compared, in
// constant time, so that the time reveals neither the key nor its length.
type entry struct {
	digest digest
	client *client
	// token is what the token stub issues to clients that know the key. It is
	// derived from the key, so that every replica accepts it, also after a restart,
	// for as long as the key is valid. Zero: the key itself.
	token secret.Text
	// isToken marks a token, which is valid as Bearer alone.
	isToken bool
}

// keyring finds keys in a time that depends neither on how many there are nor on which
// one matches.
type keyring struct {
	// seed is random, so that a caller cannot choose a key by its place in the map.
	seed    digest
	entries map[digest]*entry // by tag
}

func newKeyring() *keyring {
	k := &keyring{entries: make(map[digest]*entry)}
	_, _ = rand.Read(k.seed[:]) // never fails
	return k
}

// tag returns the keyed hash of a digest. As every input has the same length, SHA-256 is
// one with the seed before the input.
func (k *keyring) tag(d digest) digest {
	var input [2 * sha256.Size]byte
	copy(input[:], k.seed[:])
	copy(input[sha256.Size:], d[:])
	return sha256.Sum256(input[:])
}

// tokenLabel separates this use of the key from others.
const tokenLabel = "mimecast-proxy token stub, version 1"

// addText adds a key and its token.
func (k *keyring) addText(c *client, key secret.Text) error {
	token := StubToken(key)
	of := func(text secret.Text) digest { return sha256.Sum256([]byte(text.Reveal())) }
	if err := k.add(&entry{digest: of(key), client: c, token: token}); err != nil {
		return err
	}
	return k.add(&entry{digest: of(token), client: c, token: token, isToken: true})
}

// add adds an entry, unless the client has it already. A text that is both a key and a
// token counts as a key.
func (k *keyring) add(e *entry) error {
	tag := k.tag(e.digest)
	other := k.entries[tag]
	switch {
	case other == nil, other.client == e.client && other.isToken:
		k.entries[tag] = e
	case other.client != e.client:
		return fmt.Errorf("client %q has the same key; give each client its own keys", other.client.name)
	}
	return nil
}

// noEntry is compared if no entry matches, so that this takes as long.
var noEntry entry

// find returns the entry of a key, or of a token if tokens is set; nil if there is
// none.
func (k *keyring) find(text string, tokens bool) *entry {
	var buf [128]byte // so that a key of a usual length is not copied to the heap
	d := digest(sha256.Sum256(append(buf[:0], text...)))
	e, ok := k.entries[k.tag(d)]
	if !ok {
		e = &noEntry
	}
	same := subtle.ConstantTimeCompare(d[:], e.digest[:]) == 1
	if !same || !ok || text == "" || e.isToken && !tokens {
		return nil
	}
	return e
}

// client returns the client of a key, or of a token if tokens is set; nil if there
// is none.
func (k *keyring) client(text string, tokens bool) *client {
	if e := k.find(text, tokens); e != nil {
		return e.client
	}
	return nil
}

// credential returns what a request's headers carry as key, and whether it may be a
// token; empty if they carry none. X-Proxy-Key takes precedence over Authorization,
// which a client may need for the token that it believes to be Mimecast's. A repeated
// header carries no key.
func credential(h http.Header) (text string, mayBeToken bool) {
	if values := h["X-Proxy-Key"]; len(values) > 0 {
		if len(values) > 1 {
			return "", false
		}
		return values[0], false
	}
	return parseAuthorization(h["Authorization"])
}

// parseAuthorization returns what an Authorization or Proxy-Authorization carries:
// the token of Bearer, or the password of Basic, which is none of the stub's tokens.
func parseAuthorization(values []string) (text string, mayBeToken bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, value, _ := strings.Cut(values[0], " ")
	value = strings.TrimLeft(value, " ")
	if strings.EqualFold(scheme, "Bearer") {
		return value, true
	}
	if strings.EqualFold(scheme, "Basic") {
		return basicPassword(value), false
	}
	return "", false
}

// basicPassword returns the password of Basic credentials (RFC 7617, section 2); empty
// if there is none.
func basicPassword(encoded string) string {
	pair, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	_, password, _ := strings.Cut(string(pair), ":")
	return password
}

// addChallenge lists the schemes that carry a key (RFC 9110, section 11.6.1).
func addChallenge(h http.Header) {
	h["Www-Authenticate"] = []string{`Bearer realm="mimecast-proxy"`, `Basic realm="mimecast-proxy", charset="UTF-8"`}
}

// StubToken returns the token that the token stub issues to clients that know a key. It
// is as secret as the key. One that is known by its digest alone has no such token.
func StubToken(key secret.Text) secret.Text {
	// HMAC appends these zeros itself (RFC 2104, section 2). Go rejects keys that are
	// shorter than 112 bits if GODEBUG is fips140=only.
	padded := make([]byte, max(sha256.BlockSize, len(key.Reveal())))
	copy(padded, key.Reveal())
	mac := hmac.New(sha256.New, padded)
	mac.Write([]byte(tokenLabel))
	return secret.New(base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}
