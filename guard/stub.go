package guard

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

const (
	// dummyToken is for clients that insist on a token if no key is required. It
	// grants nothing.
	dummyToken = "mimecast-proxy-stub-token"
	// stubTokenTTL is Mimecast's own, in seconds.
	stubTokenTTL = 1799
	// maxTokenRequest bounds the body of a token request, in bytes: it is read before
	// the client's key is known.
	maxTokenRequest = 64 << 10
)

// isTokenEndpoint reports whether a path might be read as that of the token
// endpoint, or as one below it: no client's credentials may reach the real one.
func (g *Guard) isTokenEndpoint(t target) bool {
	return t.anyInterpretation(func(path string) bool {
		return isBelow(path, mimecast.TokenPath) || slices.ContainsFunc(g.roster.Load().tokenPaths, func(root string) bool { return isBelow(path, root) })
	})
}

// anyInterpretation reports whether is returns true for one of the target's
// interpretations, in lower case.
func (t target) anyInterpretation(is func(path string) bool) bool {
	return is(strings.ToLower(t.path)) ||
		slices.ContainsFunc(t.decodings, func(text string) bool { return is(strings.ToLower(lenientPath(text))) })
}

// isBelow reports whether a path is root or below it. Nothing is below "/" here,
// since that would be everything.
func isBelow(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}

// serveTokenStub is the token stub: clients that insist on OAuth get a token here
// (RFC 6749, section 4.4). It reports whether it rejected the request.
func (g *Guard) serveTokenStub(w http.ResponseWriter, r *http.Request, t target) (rejected bool) {
	if r.Method != http.MethodPost || t.path != mimecast.TokenPath {
		g.reject(w, r, problem.New(event.RouteNotAllowed, "The proxy does not forward to the token endpoint. A client that insists on a token gets one from POST /oauth/token."))
		return true
	}
	if !g.tokenStub {
		g.reject(w, r, problem.New(event.RouteNotAllowed, "PROXY_TOKEN_STUB is false. Send the request without a token, or set PROXY_TOKEN_STUB=true for clients that insist on one."))
		return true
	}
	token, p := g.checkTokenRequest(w, r)
	if p != nil {
		g.reject(w, r, p)
		return true
	}
	writeToken(w, token)
	return false
}

// checkTokenRequest requires that the client secret is a key, if one is required, and
// returns the token to issue. The client ID, the grant type and the rest may be
// anything.
func (g *Guard) checkTokenRequest(w http.ResponseWriter, r *http.Request) (token string, p *problem.Problem) {
	ro := g.roster.Load()
	if c, ok := ro.clientWithoutKey(g, r); ok {
		if c == nil {
			return "", ro.keyRequired(g, r)
		}
		g.reportClient(r, c)
		return dummyToken, nil
	}
	text, mayBeToken := credential(r.Header)
	e := ro.keys.find(text, mayBeToken)
	if e == nil {
		if text, e, p = g.findInTokenRequest(ro.keys, w, r); p != nil {
			return "", p
		}
	}
	if e == nil {
		return "", ro.clientSecretRequired()
	}
	g.reportClient(r, e.client)
	if e.token.IsZero() {
		return text, nil
	}
	return e.token.Reveal(), nil
}

// clientSecretRequired is why a token request without a valid client secret is rejected.
func (ro *roster) clientSecretRequired() *problem.Problem {
	must := "the proxy's API key, the value of PROXY_API_KEY"
	if ro.named {
		must = "a key of PROXY_CLIENTS_FILE"
	}
	return problem.New(event.APIKeyRequired, "The client secret must be %s. The client ID may be anything.", must)
}

// findInTokenRequest returns the client secret of a token request with its entry; nil
// if it is no key.
func (g *Guard) findInTokenRequest(keys *keyring, w http.ResponseWriter, r *http.Request) (string, *entry, *problem.Problem) {
	if !g.unauthenticated.take(nil) {
		return "", nil, g.unauthenticated.tooBusy()
	}
	defer g.unauthenticated.release()
	setBodyDeadline(w)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTokenRequest))
	if err != nil {
		return "", nil, problem.New(event.BadRequestBody, "The token request cannot be read. Send a form with client_id and client_secret, and no more.").Because(err)
	}
	for _, text := range append(headerSecrets(r), bodySecrets(body)...) {
		if e := keys.find(text, false); e != nil {
			return text, e, nil
		}
	}
	return "", nil, nil
}

// headerSecrets returns the client secret in Basic credentials, which a client
// of OAuth's escapes as it would in a form (RFC 6749, section 2.3.1).
func headerSecrets(r *http.Request) []string {
	_, password, ok := r.BasicAuth()
	plain, err := url.QueryUnescape(password)
	if !ok || err != nil || len(r.Header["Authorization"]) != 1 {
		return nil
	}
	return []string{plain}
}

// bodySecrets returns the possible client secrets in the body of a token request: none
// if it is missing or repeated. Some clients send JSON under another content type, and
// some forget to escape a form.
func bodySecrets(body []byte) []string {
	var grant struct {
		Secret string `json:"client_secret"`
	}
	if json.Unmarshal(body, &grant) == nil {
		return []string{grant.Secret}
	}
	var secrets []string
	for field := range strings.SplitSeq(string(body), "&") {
		raw, ok := strings.CutPrefix(field, "client_secret=")
		if !ok {
			continue
		}
		if secrets != nil {
			return nil
		}
		secrets = []string{raw}
		if s, err := url.QueryUnescape(raw); err == nil {
			secrets = append(secrets, s)
		}
	}
	return secrets
}

// writeToken sends a response in Mimecast's format.
func writeToken(w http.ResponseWriter, token string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749, section 5.1
	// If the client is gone, the access log has it.
	_ = json.NewEncoder(w).Encode(struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
		Scope       string `json:"scope"`
	}{token, "Bearer", stubTokenTTL, ""})
}
