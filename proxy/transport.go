package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/mimecast"
)

// Token is a bearer token that a [Source] holds.
type Token interface {
	// Authorization is the value of the Authorization header.
	Authorization() string
	// Expiry is when the token may no longer be sent.
	Expiry() time.Time
}

// Source is where tokens come from.
type Source interface {
	// Token returns the token to use now.
	Token(ctx context.Context) (Token, error)
	// Renew returns another token than rejected, which the upstream answered
	// with 401; or rejected itself, where another would not help.
	Renew(ctx context.Context, rejected Token) (Token, error)
	// Expire makes the source treat a token as expired: the upstream says that it
	// is, and it could not be renewed.
	Expire(t Token)
}

// Outcome says how a 401 of the upstream ended.
type Outcome string

// The outcomes.
const (
	Recovered         Outcome = "recovered"          // the answer to the second attempt was not 401
	StillUnauthorized Outcome = "still_unauthorized" // it was
	NotReplayable     Outcome = "not_replayable"     // the body was gone: the 401 went to the client
	RenewalFailed     Outcome = "renewal_failed"     // no new token: the 401 went to the client
	TokenFresh        Outcome = "token_fresh"        // the token is new: the 401 has another cause
)

// Trace is told what happens to a request. Each func may be nil and must not
// block.
type Trace struct {
	// Unauthorized is told of each 401 with the code in its body: the
	// upstream's words, or nothing.
	Unauthorized func(ctx context.Context, code string)
	// Retried is told how a 401 ended.
	Retried func(ctx context.Context, outcome string)
	// Answered is told of each answer of the upstream's and how long its
	// headers took.
	Answered func(ctx context.Context, status int, h http.Header, took time.Duration)
	// Held is told how holding back a request that got 429 ended.
	Held func(ctx context.Context, outcome string)
	// Failed is told why the proxy answered itself.
	Failed func(ctx context.Context, err error)
}

// Transport is a RoundTripper that adds the bearer token, and sends a request
// again once, with another token, where the upstream answers 401. The 401
// comes from Mimecast's gateway before anything was carried out, so that is
// safe for any method.
type Transport struct {
	Base   http.RoundTripper
	Source Source
	// ReplayLimit is the largest body, in bytes, that is kept to be sent again.
	ReplayLimit int64
	// Budget bounds the kept bodies of all requests together.
	Budget *Budget
	// RateLimitWait bounds how long a request that got 429 is held back and
	// sent again; 0 passes 429 on.
	RateLimitWait time.Duration
	Trace         Trace

	limiter limiter
}

// RoundTrip implements http.RoundTripper. The Host that is sent is the URL's,
// whatever req.Host says. It does not change req, and leaves its body open,
// which may still be read while the answer arrives. Where the fault is the
// client's body, the error is a [*ClientBodyError].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if _, err := t.Source.Token(ctx); err != nil { // then the body need not be read
		return nil, err
	}
	body, err := bufferBody(req, t.ReplayLimit, t.Budget)
	if err != nil {
		return nil, err
	}
	defer body.release()
	res, token, err := t.send(req, body)
	renewed := unauthorized(res)
	if renewed {
		res, err = t.retryUnauthorized(req, token, body, res)
	}
	if err == nil && res.StatusCode == http.StatusTooManyRequests && t.RateLimitWait > 0 {
		res, token, err = t.resendWhenReady(req, body, res)
		if unauthorized(res) && !renewed {
			res, err = t.retryUnauthorized(req, token, body, res)
		}
	}
	if err != nil {
		return nil, err
	}
	res.Request = req // the attempt's own would hold the kept body as long as the response
	return res, nil
}

func unauthorized(res *http.Response) bool {
	return res != nil && res.StatusCode == http.StatusUnauthorized
}

// send makes one attempt, with the token of the moment at which it is sent. It
// returns that token.
func (t *Transport) send(req *http.Request, body *replayBody) (*http.Response, Token, error) {
	for {
		token, err := t.Source.Token(req.Context())
		if err != nil {
			return nil, nil, err
		}
		res, err := t.sendWith(req, token, body)
		if failed, ok := errors.AsType[*attemptError](err); !ok || failed.phase == written || !errors.Is(err, errTokenExpired) {
			return res, token, err
		}
	}
}

func (t *Transport) sendWith(req *http.Request, token Token, body *replayBody) (*http.Response, error) {
	out := req.WithContext(context.WithValue(req.Context(), tokenKey{}, token))
	out.Host = ""
	out.Header = maps.Clone(req.Header) // no value is changed, only whole fields
	out.Header["Authorization"] = []string{token.Authorization()}
	hideIdempotency(out.Header)
	if err := body.attach(out); err != nil {
		return nil, err
	}
	began := time.Now()
	res, err := t.Base.RoundTrip(out)
	if err != nil {
		body.closeAttempt()
		if clientErr := body.clientErr(); clientErr != nil {
			return nil, clientErr
		}
		return nil, err
	}
	if t.Trace.Answered != nil {
		t.Trace.Answered(req.Context(), res.StatusCode, res.Header, time.Since(began))
	}
	if res.StatusCode == http.StatusUnauthorized {
		code := mimecast.Code(bufferPrefix(res))
		if t.Trace.Unauthorized != nil {
			t.Trace.Unauthorized(req.Context(), code)
		}
	}
	return res, nil
}

// hideIdempotency spells the idempotency keys as net/http does not. It takes
// them as leave to send a request twice, even a write that the upstream has
// seen, and Mimecast makes no such promise.
func hideIdempotency(h http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = v
		}
	}
}

// attach makes p the body of out. GetBody is also what net/http resends by
// where it knows that the upstream took nothing: a connection that had gone
// stale, an HTTP/2 stream that was refused.
func (p *replayBody) attach(out *http.Request) error {
	out.Header.Del("Expect") // the client has been told to go on, or will be
	out.GetBody = nil
	if p.empty() {
		out.Body = http.NoBody
		return nil
	}
	if p.whole() {
		out.ContentLength = p.size
		out.TransferEncoding = nil
	} else {
		// A 401 can then arrive before the body is on its way and gone.
		out.Header["Expect"] = []string{"100-continue"}
	}
	body, err := p.open()
	out.Body, out.GetBody = body, p.open
	return err
}

// retryUnauthorized takes a 401 as far as it goes: a new token, and the request
// once more.
func (t *Transport) retryUnauthorized(req *http.Request, rejected Token, body *replayBody, res *http.Response) (*http.Response, error) {
	ctx := req.Context()
	token, err := t.Source.Renew(ctx, rejected)
	switch {
	case ctx.Err() != nil:
		drainAndClose(res)
		return nil, context.Cause(ctx)
	case err != nil && namesToken(res):
		drainAndClose(res)
		t.Source.Expire(rejected)
		t.recordOutcome(ctx, RenewalFailed)
		return nil, err
	case err != nil:
		t.recordOutcome(ctx, RenewalFailed)
		return res, nil //nolint:nilerr // the 401 is the truth that the client gets
	case token == rejected:
		t.recordOutcome(ctx, TokenFresh)
		return res, nil
	}
	next, _, err := t.send(req, body)
	switch {
	case errors.Is(err, errBodyConsumed):
		t.recordOutcome(ctx, NotReplayable)
		return res, nil
	case err != nil:
		drainAndClose(res)
		return nil, err
	}
	drainAndClose(res)
	if next.StatusCode == http.StatusUnauthorized {
		t.recordOutcome(ctx, StillUnauthorized)
	} else {
		t.recordOutcome(ctx, Recovered)
	}
	return next, nil
}

func (t *Transport) recordOutcome(ctx context.Context, o Outcome) {
	if t.Trace.Retried != nil {
		t.Trace.Retried(ctx, string(o))
	}
}

const (
	// maxCode bounds what is read of a 401's or a 429's body to find its code or
	// to free its connection.
	maxCode = 8 << 10
	// drainTimeout bounds how long such a body is waited for.
	drainTimeout = 2 * time.Second
)

// bufferPrefix reads the body of an answer, so that its connection can be used by
// others or closed, and leaves it as it was. It returns what there is, up to
// maxCode bytes.
func bufferPrefix(res *http.Response) []byte {
	head, err := readSome(res.Body)
	res.Body = &prefixed{io.MultiReader(bytes.NewReader(head), errReader{err}, res.Body), res.Body, head}
	return head
}

// prefixed is a body whose beginning was read.
type prefixed struct {
	io.Reader
	io.Closer
	head []byte
}

// namesToken reports whether a 401 says that its token is the cause.
func namesToken(res *http.Response) bool {
	body, ok := res.Body.(*prefixed)
	return ok && mimecast.IsTokenCode(mimecast.Code(body.head))
}

// readSome reads up to maxCode bytes, for as long as drainTimeout lasts: a body
// that has not arrived by then is cut off.
func readSome(body io.ReadCloser) ([]byte, error) {
	impatient := time.AfterFunc(drainTimeout, func() { _ = body.Close() })
	defer impatient.Stop()
	return io.ReadAll(io.LimitReader(body, maxCode))
}

// errReader is a reader that gives an error, or nothing at all.
type errReader struct{ err error }

func (f errReader) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// drainAndClose ends with an answer that nobody gets.
func drainAndClose(res *http.Response) {
	_, _ = readSome(res.Body) // only so that the connection can be used again
	_ = res.Body.Close()
}
