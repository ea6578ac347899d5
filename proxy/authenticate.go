package proxy

import (
	"context"
	"errors"
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
	// Sent reports that a request is sent to the upstream now.
	Sent func(ctx context.Context, at time.Time)
	// Answered reports each response of the upstream and how long its headers took.
	Answered func(ctx context.Context, status int, h http.Header, took time.Duration)
	// Failed reports why the proxy sent its own error response.
	Failed func(ctx context.Context, p *problem.Problem)
}

// Authenticate returns the last layer before the account's connections. It adds the
// account's bearer token, and resends a request once, with another token, if the
// upstream responds with 401. Mimecast's gateway sends the 401 before anything is
// carried out, so the resend is safe for every method.
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
	out.Host = ""                       // the host of the URL is sent
	out.Header = maps.Clone(req.Header) // no value is changed, only whole fields
	out.Header["Authorization"] = []string{token.Authorization()}
	began := time.Now()
	if t.trace.Sent != nil {
		t.trace.Sent(req.Context(), began)
	}
	res, err := account.Of(req.Context()).Transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if t.trace.Answered != nil {
		t.trace.Answered(req.Context(), res.StatusCode, res.Header, time.Since(began))
	}
	if res.StatusCode == http.StatusUnauthorized {
		code := mimecast.Code(resend.BufferPrefix(res))
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
		resend.DrainAndClose(res)
		return nil, context.Cause(ctx)
	case err != nil && namesToken(res):
		resend.DrainAndClose(res)
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
	resend.DrainAndClose(res)
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

// namesToken reports whether a 401 says that its token is the cause.
func namesToken(res *http.Response) bool {
	return mimecast.IsTokenCode(mimecast.Code(resend.BufferPrefix(res)))
}
