// Package account carries with a request's context which Mimecast account it uses
// and which client it is from. Guard sets both, once the request may pass; proxy and
// upstream read them.
package account

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"mimecast-proxy/secret"
)

// Account is an account at Mimecast: where its requests go, by which token, and
// over which connections. It must not be copied.
type Account struct {
	// Name is a label for log, metrics and error responses, such as [Default].
	Name string
	// BaseURL is the API's. A path in it is put before each request's.
	BaseURL *url.URL
	Tokens  TokenSource
	// Transport carries the requests. Its errors are problems, but for those of a
	// request whose context has ended.
	Transport http.RoundTripper
	// TokenPath is the path, unescaped, by which requests to BaseURL would reach the token
	// endpoint; empty: none would.
	TokenPath string
	// SealKeys returns the client secrets that batch URLs are sealed with, newest
	// first. nil: there are none.
	SealKeys func() []secret.Text

	// inFlight and kept are what the account uses, and the others its share; 0: it has
	// none, and may use all.
	inFlight, maxRequests, kept, maxKept atomic.Int64
}

// Default is the name of the account of the MIMECAST_ variables.
const Default = "default"

// SetShare bounds what the account may use of what all accounts share: in-flight requests,
// and bytes of kept request bodies. 0: no bound.
func (a *Account) SetShare(requests int, bytes int64) {
	a.maxRequests.Store(int64(requests))
	a.maxKept.Store(bytes)
}

// MaxRequests returns the most in-flight requests; 0: no bound.
func (a *Account) MaxRequests() int { return int(a.maxRequests.Load()) }

// IsOneOfSeveral reports whether there are other accounts, even if they have sent nothing
// yet: only then an account has a share. A nil account has none.
func (a *Account) IsOneOfSeveral() bool { return a != nil && a.MaxRequests() > 0 }

// Enter counts a request as in flight until [Account.Leave] is called, or reports that as
// many as may be are in flight. displace ends a request of the account, whose place then
// counts as free, and reports whether it did; it may be nil.
func (a *Account) Enter(displace func() bool) bool {
	limit := a.maxRequests.Load()
	if n := a.inFlight.Add(1); limit > 0 && n > limit && (displace == nil || !displace()) {
		a.inFlight.Add(-1)
		return false
	}
	return true
}

// Leave ends what [Account.Enter] began.
func (a *Account) Leave() { a.inFlight.Add(-1) }

// InFlight returns the number of in-flight requests.
func (a *Account) InFlight() int { return int(a.inFlight.Load()) }

// Keep counts n bytes of a request body as kept until [Account.Drop] is called, or reports
// that they are not left. A nil account has no bound.
func (a *Account) Keep(n int64) bool { return a == nil || take(&a.kept, n, a.maxKept.Load()) }

// Drop ends what [Account.Keep] began.
func (a *Account) Drop(n int64) {
	if a != nil {
		a.kept.Add(-n)
	}
}

// take adds n to used, unless that is more than most; 0: there is no most.
func take(used *atomic.Int64, n, most int64) bool {
	if total := used.Add(n); most > 0 && total > most {
		used.Add(-n)
		return false
	}
	return true
}

// Token is a bearer token.
type Token interface {
	// Authorization is the value of the Authorization header.
	Authorization() string
	// Expiry is when the token may no longer be sent.
	Expiry() time.Time
}

// TokenSource is where an account's tokens come from.
type TokenSource interface {
	// Token returns the token to use now.
	Token(ctx context.Context) (Token, error)
	// Renew returns a token other than rejected, for which the upstream returned
	// 401; or rejected itself, if another would not help.
	Renew(ctx context.Context, rejected Token) (Token, error)
	// Expire makes the source treat a token as expired: the upstream says that it
	// is, and it could not be renewed.
	Expire(t Token)
}

// ErrTokenExpired is why a request was not sent: its token expired before there was
// a connection. Nothing of it was written.
var ErrTokenExpired = errors.New("the token expired before it was sent")

// The context's keys.
type (
	accountKey struct{}
	clientKey  struct{}
	tokenKey   struct{}
)

// scope is a context that has an account and a client.
type scope struct {
	context.Context
	account *Account
	client  string
}

// Value implements context.Context.
func (s *scope) Value(key any) any {
	switch key {
	case accountKey{}:
		return s.account
	case clientKey{}:
		return s.client
	}
	return s.Context.Value(key)
}

// NewContext returns a context for a request of the client with that name, for which
// the empty name stands for a client that is known by its address alone. The account
// is the one that the request uses.
func NewContext(ctx context.Context, a *Account, client string) context.Context {
	return &scope{ctx, a, client}
}

// Of returns the account of a request; nil if nobody set one.
func Of(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}

// ClientOf names the client of a request: its name or, without one, its address.
func ClientOf(r *http.Request) string {
	if name, _ := r.Context().Value(clientKey{}).(string); name != "" {
		return name
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // a unix socket's peer
	}
	return host
}

// WithToken returns a context for a request that bears the token: it is not sent
// any more once that has expired.
func WithToken(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, t)
}

// Expiry returns when the token of a request expires; zero if it bears none.
func Expiry(ctx context.Context) time.Time {
	if t, ok := ctx.Value(tokenKey{}).(Token); ok {
		return t.Expiry()
	}
	return time.Time{}
}
