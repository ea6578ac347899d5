package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"time"

	"mimecast-proxy/resend"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

// Trace reports what happens to a request. Each func may be nil and must not block.
type Trace struct {
	// Unauthorized reports each 401, with the reason that its body names.
	Unauthorized func(ctx context.Context, reason event.UnauthorizedReason)
	// Retried reports how a 401 ended.
	Retried func(ctx context.Context, outcome event.RetryOutcome)
	// Answered reports each response of the upstream's and how long its headers
	// took.
	Answered func(ctx context.Context, status int, h http.Header, took time.Duration)
	// Held reports how holding a request that got 429 ended.
	Held func(ctx context.Context, outcome event.HoldOutcome)
	// Failed reports why the proxy sent an error response of its own.
	Failed func(ctx context.Context, p *problem.Problem)
}

// Authenticate returns the last layer before the account's connections. It adds the
// account's bearer token, and resends a request once, with another token, if the
// upstream responds with 401. The 401 comes from Mimecast's gateway before anything
// was carried out, so that is safe for any method.
func Authenticate(trace Trace) http.RoundTripper { return &authenticate{trace} }

type authenticate struct{ trace Trace }

// RoundTrip implements http.RoundTripper.
func (t *authenticate) RoundTrip(req *http.Request) (*http.Response, error) {
	res, token, err := t.send(req)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	return t.retryUnauthorized(req, token, res)
}

// send makes one attempt, with the token of the moment at which it is sent. It
// returns that token.
func (t *authenticate) send(req *http.Request) (*http.Response, account.Token, error) {
	for {
		token, err := account.Of(req.Context()).Tokens.Token(req.Context())
		if err != nil {
			return nil, nil, err
		}
		res, err := t.sendWith(req, token)
		if !errors.Is(err, account.ErrTokenExpired) {
			return res, token, err
		}
		if req, err = resend.Rewind(req); err != nil {
			return nil, nil, err
		}
	}
}

func (t *authenticate) sendWith(req *http.Request, token account.Token) (*http.Response, error) {
	out := req.WithContext(account.WithToken(req.Context(), token))
	out.Host = ""                       // the URL's is sent
	out.Header = maps.Clone(req.Header) // no value is changed, only whole fields
	out.Header["Authorization"] = []string{token.Authorization()}
	began := time.Now()
	res, err := account.Of(req.Context()).Transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if t.trace.Answered != nil {
		t.trace.Answered(req.Context(), res.StatusCode, res.Header, time.Since(began))
	}
	if res.StatusCode == http.StatusUnauthorized {
		code := mimecast.Code(bufferPrefix(res))
		if t.trace.Unauthorized != nil {
			t.trace.Unauthorized(req.Context(), event.UnauthorizedReasonOf(code))
		}
	}
	return res, nil
}

// retryUnauthorized renews the token after a 401 and resends the request once.
func (t *authenticate) retryUnauthorized(req *http.Request, rejected account.Token, res *http.Response) (*http.Response, error) {
	ctx := req.Context()
	tokens := account.Of(ctx).Tokens
	token, err := tokens.Renew(ctx, rejected)
	switch {
	case ctx.Err() != nil:
		drainAndClose(res)
		return nil, context.Cause(ctx)
	case err != nil && namesToken(res):
		drainAndClose(res)
		tokens.Expire(rejected)
		t.recordOutcome(ctx, event.RetryRenewalFailed)
		return nil, err
	case err != nil:
		t.recordOutcome(ctx, event.RetryRenewalFailed)
		return res, nil //nolint:nilerr // the 401 is the truth that the client gets
	case token == rejected:
		t.recordOutcome(ctx, event.RetryTokenFresh)
		return res, nil
	}
	again, err := resend.Rewind(req)
	if err != nil {
		t.recordOutcome(ctx, event.RetryNotReplayable)
		return res, nil //nolint:nilerr // likewise
	}
	drainAndClose(res)
	next, _, err := t.send(again)
	switch {
	case err != nil:
		return nil, err
	case next.StatusCode == http.StatusUnauthorized:
		t.recordOutcome(ctx, event.RetryStillUnauthorized)
	default:
		t.recordOutcome(ctx, event.RetryRecovered)
	}
	return next, nil
}

func (t *authenticate) recordOutcome(ctx context.Context, o event.RetryOutcome) {
	if t.trace.Retried != nil {
		t.trace.Retried(ctx, o)
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
