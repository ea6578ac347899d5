package simulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const tokenPath = "/oauth/token"

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// issuer issues and checks tokens. It stores none: a token contains its expiry and is
// signed with a key, so that a hundred thousand cost
// nothing, tokens coexist until they expire, and one that has expired can still
// be distinguished from one that never was.
type issuer struct {
	key []byte

	mu         sync.Mutex
	first      string            // the ID of the application of Options.ClientID
	secrets    map[string]string // by client ID
	ttl        time.Duration
	generation map[string]int64 // of an application's tokens: those of an earlier one were revoked
}

// claims are the content of a token.
type claims struct {
	App        string `json:"client_id"`
	ID         string `json:"jti"`
	Generation int64  `json:"gen"`
	Expiry     int64  `json:"exp"` // in milliseconds, for tests with short lives
}

func (i *issuer) setCredentials(id, secret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.secrets, i.first)
	i.first = id
	i.secrets[id] = secret
}

func (i *issuer) setApplication(a Application) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a.ClientSecret == "" {
		delete(i.secrets, a.ClientID)
		return
	}
	i.secrets[a.ClientID] = a.ClientSecret
}

func (i *issuer) setTTL(ttl time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ttl = ttl
}

// revoke revokes the tokens of the applications; of all if there are none.
func (i *issuer) revoke(apps []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(apps) == 0 {
		i.generation[""]++
	}
	for _, app := range apps {
		i.generation[app]++
	}
}

// current returns the generation of an application's tokens. The caller holds mu.
func (i *issuer) current(app string) int64 { return i.generation[""] + i.generation[app] }

func (i *issuer) matches(id, secret string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	known, ok := i.secrets[id]
	return ok && secret == known
}

// tokenHeader is the same in each token, as in any JSON web token.
var tokenHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// issue returns a new token for the application and how long it lives.
func (i *issuer) issue(app string, now time.Time) (string, time.Duration) {
	i.mu.Lock()
	ttl, generation := i.ttl, i.current(app)
	i.mu.Unlock()
	text, err := json.Marshal(claims{App: app, ID: rand.Text(), Generation: generation, Expiry: now.Add(ttl).UnixMilli()})
	if err != nil { // strings and numbers always marshal
		panic(err)
	}
	body := tokenHeader + "." + base64.RawURLEncoding.EncodeToString(text)
	return body + "." + i.sign(body), ttl
}

func (i *issuer) sign(body string) string {
	mac := hmac.New(sha256.New, i.key)
	_, _ = mac.Write([]byte(body)) // a hash takes everything
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// denial is why the gateway does not take a token.
type denial struct{ code, message string }

var (
	noToken      = &denial{"Unauthorized Request", "No valid credentials were provided"}
	unknownToken = &denial{"token_verification_failed", "The access token could not be verified"}
	expiredToken = &denial{"token_expired", "The access token has expired"}
)

// authenticate returns the application that the Authorization headers speak
// for. More than one is rejected, since it is ambiguous which one counts.
func (i *issuer) authenticate(headers []string, now time.Time) (app string, denied *denial) {
	if len(headers) == 0 {
		return "", noToken
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", noToken
	}
	c, ok := i.parse(strings.TrimSpace(token))
	if !ok {
		return "", unknownToken
	}
	if now.UnixMilli() >= c.Expiry {
		return "", expiredToken
	}
	return c.App, nil
}

// application returns the application whose token a request has, even if it has expired or
// was revoked; empty if there is none.
func (i *issuer) application(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	c, _ := i.read(strings.TrimSpace(token))
	return c.App
}

// parse returns the claims of a token, if this simulator issued it and it was not
// revoked.
func (i *issuer) parse(token string) (c claims, ok bool) {
	if c, ok = i.read(token); !ok {
		return c, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return c, c.Generation == i.current(c.App)
}

// read returns the claims of a token, if this simulator issued it.
func (i *issuer) read(token string) (c claims, ok bool) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 || !hmac.Equal([]byte(token[dot+1:]), []byte(i.sign(token[:dot]))) {
		return c, false
	}
	_, payload, _ := strings.Cut(token[:dot], ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claims{}, false
	}
	return c, true
}

// token is the token endpoint: the client credentials grant, with the client's
// secret in the form body, which is the only way that clients are seen to use.
func (s *Simulator) token(w http.ResponseWriter, r *http.Request) {
	form, err := readForm(w, r)
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "InvalidRequest", err.Error())
		return
	}
	if form.Get("grant_type") != "client_credentials" {
		s.reject(w, r, http.StatusBadRequest, "UnsupportedGrantType", "The grant type must be client_credentials")
		return
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	s.journal.setApplication(r, id)
	if id == "" || secret == "" {
		s.reject(w, r, http.StatusBadRequest, "0001", "The client credentials are missing")
		return
	}
	if !s.issuer.matches(id, secret) {
		s.reject(w, r, http.StatusUnauthorized, "InvalidClientIdentifier", "Client credentials are invalid")
		return
	}
	token, ttl := s.issuer.issue(id, s.opts.Now())
	answer := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int64(ttl / time.Second), "scope": ""}
	faultOf(r.Context()).patchToken(answer)
	s.respond(w, r, http.StatusOK, answer)
}

// application returns the client ID that a request is of: its token's, or that of the form
// of a token request. It is only looked for if a fault applies to one application.
func (s *Simulator) application(r *http.Request) string {
	switch {
	case !s.faults.byApplication():
		return ""
	case r.URL.Path != tokenPath:
		return s.issuer.application(r)
	}
	head, _ := io.ReadAll(io.LimitReader(r.Body, maxForm)) // a later read gets the error
	r.Body = &peeked{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
	form, _ := url.ParseQuery(string(head)) // a form that is none names nobody
	return form.Get("client_id")
}

// peeked is a body whose beginning was read.
type peeked struct {
	io.Reader
	io.Closer
}

// readForm reads a form and insists that it is one, with each parameter once
// (RFC 6749, section 3.2). The query is no part of it.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("the content type must be application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("the form cannot be read")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return nil, fmt.Errorf("the parameter %q is repeated", name)
		}
	}
	return r.PostForm, nil
}
