package token

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
)

const (
	// fetchTimeout bounds one token request, response included.
	fetchTimeout = 30 * time.Second
	// maxResponseBytes bounds the token endpoint's response, in bytes. A real one has
	// about 100 and a long JWT.
	maxResponseBytes = 64 << 10
)

// ClientCredentials fetches tokens by the client credentials grant (RFC 6749, section
// 4.4). The secret is sent in the form body (section 2.3.1), once for each fetch. URL, ID
// and Secret must be set.
type ClientCredentials struct {
	// URL is the token endpoint.
	URL string
	// ID and Secret return the current credentials. They are called before each fetch
	// and must not block.
	ID, Secret func() secret.Text
	// From names the settings that they come from, for an error; empty: the variables.
	From string
	// Transport sends the request; nil means http.DefaultTransport.
	Transport http.RoundTripper
	// OnClockSkew, unless nil, is called after each response with a Date header, with
	// how far this machine's clock is ahead of the token endpoint's; negative: behind.
	// A difference that whole seconds and the time of the request explain is 0.
	OnClockSkew func(ahead time.Duration)

	lastUsed atomic.Pointer[credentials] // of the last fetch
}

type credentials struct {
	id, secret secret.Text
	from       string
}

func (c *credentials) equal(d *credentials) bool {
	return c.id.Equal(d.id) && c.secret.Equal(d.secret)
}

func (c *ClientCredentials) current() *credentials {
	return &credentials{c.ID(), c.Secret(), cmp.Or(c.From, "MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET")}
}

// Changed reports whether the current credentials differ from those of the last fetch.
// It is false before the first.
func (c *ClientCredentials) Changed() bool {
	used := c.lastUsed.Load()
	return used != nil && !c.current().equal(used)
}

// Fetch requests one token. If the credentials are rejected and have been replaced
// meanwhile, it tries the new ones at once. The error is an [*Error], or that of a
// context that ended.
func (c *ClientCredentials) Fetch(ctx context.Context) (*Token, error) {
	t, err := c.fetch(ctx)
	if e, ok := errors.AsType[*Error](err); ok && e.Outcome == event.TokenRefused && c.Changed() {
		return c.fetch(ctx)
	}
	return t, err
}

func (c *ClientCredentials) fetch(ctx context.Context) (*Token, error) {
	creds := c.current()
	c.lastUsed.Store(creds)
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout,
		fmt.Errorf("no response within %v", fetchTimeout))
	defer cancel()

	recorder := &responseRecorder{url: c.URL, base: cmp.Or[http.RoundTripper](c.Transport, http.DefaultTransport), onClockSkew: c.OnClockSkew}
	client := &http.Client{Transport: recorder, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	grant := clientcredentials.Config{
		ClientID:     creds.id.Reveal(),
		ClientSecret: creds.secret.Reveal(),
		TokenURL:     c.URL,
		AuthStyle:    oauth2.AuthStyleInParams,
	}
	began := time.Now()
	response, err := grant.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, recorder.fetchError(ctx, err, creds)
	}
	return newFromResponse(response, recorder.expiresIn, began)
}

// newFromResponse checks the token in a response. x/oauth2 accepts any text; a token
// that no header can carry, or that has expired, would fail every request.
func newFromResponse(response *oauth2.Token, expiresIn json.RawMessage, began time.Time) (*Token, error) {
	if !strings.EqualFold(cmp.Or(response.TokenType, "bearer"), "bearer") {
		return nil, unusableError("its token_type is not Bearer")
	}
	if !isB64Token(response.AccessToken) {
		return nil, unusableError("its access_token has characters that RFC 6750 does not allow in a bearer token")
	}
	lifetime, err := parseLifetime(expiresIn)
	if err != nil {
		return nil, err
	}
	t := New(response.AccessToken, began, began.Add(lifetime))
	if !t.ValidAt(time.Now()) {
		return nil, unusableError("the token had expired by the time it arrived")
	}
	return t, nil
}

func unusableError(what string) error {
	return &Error{Outcome: event.TokenFailed, Status: http.StatusOK, Reason: "the token endpoint's response is unusable: " + what +
		"; check MIMECAST_TOKEN_URL"}
}

// parseLifetime reads expires_in: a number of seconds, or one in a string, as
// gateways of the kind that Mimecast runs send it. None or zero is taken as
// [DefaultLifetime], more than [MaxLifetime] as MaxLifetime.
func parseLifetime(expiresIn json.RawMessage) (time.Duration, error) {
	var value any
	if len(expiresIn) > 0 {
		if err := json.Unmarshal(expiresIn, &value); err != nil {
			return 0, unusableError("its expires_in is not a number")
		}
	}
	var seconds float64
	switch v := value.(type) {
	case nil:
	case float64:
		seconds = v
	case string:
		var err error
		if seconds, err = strconv.ParseFloat(v, 64); err != nil {
			return 0, unusableError("its expires_in is not a number")
		}
	default:
		return 0, unusableError("its expires_in is not a number")
	}
	switch {
	case seconds == 0:
		return DefaultLifetime, nil
	case seconds >= MaxLifetime.Seconds():
		return MaxLifetime, nil
	case seconds > 0:
		return time.Duration(seconds * float64(time.Second)), nil
	}
	return 0, unusableError("its expires_in is negative") // or NaN
}

// isB64Token reports whether s is a b64token of RFC 6750, section 2.1.
func isB64Token(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" {
		return false
	}
	for _, b := range []byte(body) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("-._~+/", b) >= 0:
		default:
			return false
		}
	}
	return true
}

// responseRecorder is a RoundTripper that keeps what x/oauth2 hides: the status, headers
// and body of a response without a token.
type responseRecorder struct {
	url  string
	base http.RoundTripper
	res  *http.Response // nil until there is a response
	body []byte
	// expiresIn is hidden from x/oauth2, which rejects a token whose lifetime is not a
	// whole number.
	expiresIn json.RawMessage
	// readErr is why the body could not be read to its end; nil if it was.
	readErr     error
	onClockSkew func(time.Duration)
}

func (r *responseRecorder) RoundTrip(req *http.Request) (*http.Response, error) {
	// Without Accept-Encoding the response may be gzip (RFC 9110, section 12.5.3).
	req = req.Clone(req.Context())
	req.Header.Set("Accept-Encoding", "identity")
	began := time.Now()
	res, err := r.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	r.res = res
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && r.onClockSkew != nil {
		r.onClockSkew(clockSkew(date, began, time.Now()))
	}
	r.body, err = readResponse(res.Body)
	_ = res.Body.Close() // only what was read counts
	if err != nil {
		r.readErr = err
		return nil, err
	}
	if json.Valid(r.body) { // x/oauth2 parses a form if the type is text
		res.Header.Set("Content-Type", "application/json")
	}
	res.Body = io.NopCloser(bytes.NewReader(r.takeExpiresIn()))
	return res, nil
}

// readResponse reads a bounded response body. Some servers and devices compress it
// without being asked, some without a Content-Encoding, and some put a byte order mark
// before it. No JSON begins as gzip does.
func readResponse(body io.Reader) ([]byte, error) {
	text, err := readBounded(body)
	if err == nil && bytes.HasPrefix(text, []byte("\x1f\x8b")) {
		var unpacked *gzip.Reader
		if unpacked, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
			text, err = readBounded(unpacked)
		}
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), err
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxResponseBytes+1))
	if err == nil && len(text) > maxResponseBytes {
		err = fmt.Errorf("it has more than %d bytes", maxResponseBytes)
	}
	return text, err
}

// takeExpiresIn returns the body without expires_in, which it keeps.
func (r *responseRecorder) takeExpiresIn() []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(r.body, &fields) != nil {
		return r.body
	}
	r.expiresIn = fields["expires_in"]
	delete(fields, "expires_in")
	rest, err := json.Marshal(fields)
	if err != nil { // what was read from JSON can be written as such
		panic(err)
	}
	return rest
}

// clockSkew returns how far this machine's clock is ahead of the one that dated a
// response, which was requested at began and came at ended. It compares wall clocks.
func clockSkew(date, began, ended time.Time) time.Duration {
	began, ended = began.Round(0), ended.Round(0)
	if end := date.Add(time.Second); end.Before(began) {
		return began.Sub(end)
	}
	return min(0, ended.Sub(date))
}

// fetchError turns a failed fetch into an [*Error]. Of the response it contains only the
// status and Mimecast's code, since a response may echo the secret.
func (r *responseRecorder) fetchError(ctx context.Context, err error, creds *credentials) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("requesting a token: %w", context.Cause(ctx))
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if r.res == nil {
		return &Error{Outcome: event.TokenFailed, Reason: "cannot reach the token endpoint", Err: err}
	}
	e := &Error{Outcome: event.TokenFailed, Status: r.res.StatusCode, RetryAfter: mimecast.RetryAfter(r.res.Header, time.Now())}
	code := r.errorCodeSuffix(creds)
	switch status := r.res.StatusCode; {
	case status == http.StatusUnauthorized, code != "" && (status == http.StatusBadRequest || status == http.StatusForbidden):
		e.Outcome = event.TokenRefused
		e.Reason = fmt.Sprintf("Mimecast rejected the client ID or the secret (status %d%s); check %s", status, code, creds.from)
	case status >= 300 && status < 400:
		e.Reason = fmt.Sprintf("the token endpoint responded with a redirect (status %d), which the proxy does not follow; check MIMECAST_BASE_URL and MIMECAST_TOKEN_URL", status)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusGone:
		e.Reason = fmt.Sprintf("there is no token endpoint at %s (status %d%s); check MIMECAST_TOKEN_URL, or MIMECAST_BASE_URL if that is not set", r.url, status, code)
	case status != http.StatusOK:
		e.Reason = fmt.Sprintf("the token endpoint responded with status %d%s", status, code)
	case r.readErr != nil:
		e.Reason, e.Err = "the token endpoint's response cannot be read", err
	case !json.Valid(r.body):
		e.Reason = "the token endpoint's response is not JSON, perhaps a page of a firewall or corporate proxy; check MIMECAST_TOKEN_URL"
	default:
		e.Reason = "the token endpoint's response has no access_token" + code
	}
	return e
}

// errorCodeSuffix returns ", code X" with the error code of the response; empty if there
// is none that is safe to print.
func (r *responseRecorder) errorCodeSuffix(creds *credentials) string {
	code := mimecast.Code(r.body)
	if !isErrorCode(code) || strings.Contains(code, creds.secret.Reveal()) {
		return ""
	}
	return ", code " + code
}

// isErrorCode reports whether s has the form of an error code.
func isErrorCode(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, b := range []byte(s) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("-_. ", b) >= 0:
		default:
			return false
		}
	}
	return true
}
