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

// tokens is the token source for requests. If there is no token, its error is the error
// response for the client.
type tokens struct {
	source   *token.Source
	redactor *telemetry.Redactor
	remedy   string // for rejected credentials
	// gone is set when the account is removed or replaced; nil: it never is.
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

// credentialsRemedy returns the advice for rejected credentials. The proxy reloads files and
// stored connections, but needs a restart for variables.
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

// problem returns the error response for a request without a token. It redacts secrets that
// the token endpoint may have sent back.
func (t tokens) problem(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err // the request ended, so the token is not the problem
	}
	p := tokenProblem(err, t.remedy)
	if errors.Is(err, token.ErrStopped) && t.gone != nil && t.gone.Load() {
		p.Detail = "The client's account was changed or removed in PROXY_CLIENTS_FILE while the request waited. Retry."
	}
	p.Detail = t.redactor.Redact(p.Detail)
	return p
}

// tokenProblem returns the error response that explains why there is no token. It includes
// the remedy if Mimecast rejected the credentials.
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

// tokenErrorDetail explains why the token endpoint issued no token. If the endpoint could not
// be reached, the text includes the likely cause.
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

// withDetail adds the detail of a connection error to err, for the log.
func withDetail(err error) error {
	if e, ok := errors.AsType[*token.Error](err); ok && e.Status == 0 && e.Err != nil {
		return fmt.Errorf("%s (%w)", tokenErrorDetail(err), connectionError(err))
	}
	return err
}

// connectionError returns the cause of a connection error, without the text that the detail
// repeats. It returns other errors unchanged.
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
