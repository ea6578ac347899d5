package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// tokens is a token source as requests use it: with an error response for the client
// if there is no token.
type tokens struct {
	source   *token.Source
	redactor *telemetry.Redactor
	remedy   string // for rejected credentials
	// gone is set if the account was removed or replaced; nil: never.
	gone *atomic.Bool
}

func (t tokens) Token(ctx context.Context) (account.Token, error) {
	tok, err := t.source.Token(ctx)
	if err != nil {
		return nil, t.problem(ctx, err)
	}
	return tok, nil
}

func (t tokens) Renew(ctx context.Context, rejected account.Token) (account.Token, error) {
	held, ok := rejected.(*token.Token)
	if !ok {
		return nil, fmt.Errorf("renewing a foreign token of type %T", rejected)
	}
	tok, err := t.source.Renew(ctx, held)
	if err != nil {
		return nil, t.problem(ctx, err)
	}
	return tok, nil
}

func (t tokens) Expire(expired account.Token) {
	if held, ok := expired.(*token.Token); ok {
		t.source.Expire(held)
	}
}

// credentialsRemedy says what to do about credentials that Mimecast rejects: it depends
// on whether they come from files, which are reloaded, or from variables.
func credentialsRemedy(cfg config.Config) string {
	id, key := cfg.ClientID.Variable(), cfg.ClientSecret.Variable()
	idFile, keyFile := strings.HasSuffix(id, "_FILE"), strings.HasSuffix(key, "_FILE")
	switch {
	case cfg.IsStored():
		return "Run mimecast-proxy connect again; the proxy reloads the credentials."
	case idFile && keyFile:
		return "Correct the file in " + id + " or " + key + "; the proxy reloads both."
	case keyFile:
		return "Correct the file in " + key + ", which the proxy reloads; if you change " + id + ", restart the proxy."
	case idFile:
		return "Change " + key + " and restart the proxy; it reloads the file in " + id + "."
	default:
		return "Change " + id + " or " + key + " and restart the proxy."
	}
}

// problem returns the error response to a request for which there is no token. Its
// detail has no secret in it, whatever the token endpoint sent.
func (t tokens) problem(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err // the request ended: there is nothing to say about tokens
	}
	p := tokenProblem(err, t.remedy)
	if errors.Is(err, token.ErrStopped) && t.gone != nil && t.gone.Load() {
		p.Detail = "The client's account was changed or removed in PROXY_CLIENTS_FILE while the request waited. Retry."
	}
	p.Detail = t.redactor.Redact(p.Detail)
	return p
}

// tokenProblem says why there is no token. The remedy is for credentials that are
// refused.
func tokenProblem(err error, remedy string) *problem.Problem {
	if errors.Is(err, token.ErrStopped) {
		return problem.New(event.ShuttingDown, "The proxy is shutting down.").Because(err)
	}
	e, ok := errors.AsType[*token.Error](err)
	if ok && e.Outcome == event.TokenRefused {
		return problem.New(event.CredentialsRefused, "%s. %s", e.Reason, remedy).Because(err)
	}
	p := problem.New(event.TokenUnavailable, "There is no token: %s. The proxy keeps retrying.", strings.TrimSuffix(tokenErrorDetail(err), ".")).Because(connectionError(err))
	p.RetryAfter = time.Second
	if ok {
		p.RetryAfter = max(e.RetryAfter, time.Second)
	}
	return p
}

// tokenErrorDetail says why the token endpoint gave no token and, if it could not be
// reached, what that means.
func tokenErrorDetail(err error) string {
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		return "the token endpoint issued none"
	}
	if e.Status != 0 || e.Err == nil {
		return e.Reason
	}
	return e.Reason + ". " + upstream.Explain(e.Err).Detail
}

// withDetail is err with its detail, for the log.
func withDetail(err error) error {
	if e, ok := errors.AsType[*token.Error](err); ok && e.Status == 0 && e.Err != nil {
		return fmt.Errorf("%s (%w)", tokenErrorDetail(err), connectionError(err))
	}
	return err
}

// connectionError is why the token endpoint could not be reached, without the words
// that the detail has; err itself if it has another reason.
func connectionError(err error) error {
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Err != nil {
		return p.Err
	}
	return err
}

// outcomeOf returns how a token request ended.
func outcomeOf(err error) event.TokenOutcome {
	if err == nil {
		return event.TokenOK
	}
	if e, ok := errors.AsType[*token.Error](err); ok {
		return e.Outcome
	}
	return event.TokenFailed
}
