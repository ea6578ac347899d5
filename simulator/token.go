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

// maxForm is the largest body of a token request, in bytes.
const maxForm = 64 << 10

// issuer issues and checks tokens. A token contains its expiry and is signed, so issuer
// stores none: 100,000 tokens take no memory. Tokens coexist until they expire, and an
// expired token differs from one that was never issued.
type issuer struct {
	key []byte

	mu         sync.Mutex
	first      string            // client ID of Options.ClientID's application
	secrets    map[string]string // by client ID
	ttl        time.Duration
	generation map[string]int64 // of an application's tokens; tokens of an earlier generation are revoked
}

// claims are the contents of a token.
type claims struct {
	App        string `json:"client_id"`
	ID         string `json:"jti"`
	Generation int64  `json:"gen"`
	Expiry     int64  `json:"exp"` // in milliseconds, because tests use short lifetimes
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

// revoke revokes the tokens of the applications, or of all if apps is empty.
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

// current returns the generation of an application's tokens. The caller must hold mu.
func (i *issuer) current(app string) int64 { return i.generation[""] + i.generation[app] }

func (i *issuer) matches(id, secret string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	known, ok := i.secrets[id]
	return ok && secret == known
}

// tokenHeader is the header of every token, a JSON Web Token (RFC 7519).
var tokenHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// issue returns a new token for the application, and its lifetime.
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
	_, _ = mac.Write([]byte(body)) // hash.Hash never returns an error
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// denial is the error with which the gateway rejects a token.
type denial struct{ code, message string }

var (
	noToken      = &denial{"Unauthorized Request", "No valid credentials were provided"}
	unknownToken = &denial{"token_verification_failed", "The access token could not be verified"}
	expiredToken = &denial{"token_expired", "The access token has expired"}
)

// authenticate returns the application of the Authorization header. More than one header is
// ambiguous and rejected.
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

// application returns the application whose token a request has, even if the token has
// expired or was revoked; "" if there is none.
func (i *issuer) application(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	c, _ := i.read(strings.TrimSpace(token))
	return c.App
}

// parse returns the claims of a token, if this simulator issued it and it is not revoked.
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

// token is the token endpoint for the client credentials grant. The client secret must be
// in the form body: no client is known to use another way.
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

// application returns the client ID of a request: its token's, or the one in a token
// request's form. It is "" unless a fault applies to only one application.
func (s *Simulator) application(r *http.Request) string {
	switch {
	case !s.faults.byApplication():
		return ""
	case r.URL.Path != tokenPath:
		return s.issuer.application(r)
	}
	head, _ := io.ReadAll(io.LimitReader(r.Body, maxForm)) // the next read returns the error
	r.Body = &peeked{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
	form, _ := url.ParseQuery(string(head)) // an invalid form has no client_id
	return form.Get("client_id")
}

// peeked is a body whose beginning was already read.
type peeked struct {
	io.Reader
	io.Closer
}

// readForm parses the form in the body and rejects repeated parameters (RFC 6749, section
// 3.2). It ignores the query.
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
