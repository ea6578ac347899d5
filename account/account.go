// Package account puts a request's Mimecast account and client into its context.
// Package guard sets both once it allows the request. Packages proxy and upstream read
// them.
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

// Account is a Mimecast account: its base URL, its tokens, and its connections. Do not
// copy it.
type Account struct {
	// Name is the label for logs, metrics and error responses, such as [Default].
	Name string
	// BaseURL is the API's base URL. Its path is prepended to each request's path.
	BaseURL *url.URL
	Tokens  TokenSource
	// Transport sends the requests. Its errors are problems, except if the request's
	// context has ended.
	Transport http.RoundTripper
	// TokenPath is the unescaped path with which a request to BaseURL would reach the
	// token endpoint; empty if none would.
	TokenPath string
	// SealKeys returns the client secrets that seal batch URLs, newest first. nil means
	// that there are none.
	SealKeys func() []secret.Text

	// inFlight and kept are what the account uses. maxRequests and maxKept are its
	// share; 0 means no limit.
	inFlight, maxRequests, kept, maxKept atomic.Int64
}

// Default is the name of the account of the MIMECAST_ variables.
const Default = "default"

// SetShare sets the account's share of what all accounts use together: in-flight
// requests, and bytes of kept request bodies. 0 means no limit.
func (a *Account) SetShare(requests int, bytes int64) {
	a.maxRequests.Store(int64(requests))
	a.maxKept.Store(bytes)
}

// MaxRequests returns the maximum of in-flight requests; 0 means no limit.
func (a *Account) MaxRequests() int { return int(a.maxRequests.Load()) }

// IsOneOfSeveral reports whether there are other accounts, even if they have not sent
// requests yet. Only then does an account have a share. It is false for a nil account.
func (a *Account) IsOneOfSeveral() bool { return a != nil && a.MaxRequests() > 0 }

// Enter counts a request as in flight until [Account.Leave], or returns false if the
// limit is reached. At the limit, it calls displace, which may be nil. displace ends
// another request of the account and reports whether it did. The new request then takes
// that place.
func (a *Account) Enter(displace func() bool) bool {
	limit := a.maxRequests.Load()
	if n := a.inFlight.Add(1); limit > 0 && n > limit && (displace == nil || !displace()) {
		a.inFlight.Add(-1)
		return false
	}
	return true
}

// Leave undoes one successful [Account.Enter].
func (a *Account) Leave() { a.inFlight.Add(-1) }

// InFlight returns the number of in-flight requests.
func (a *Account) InFlight() int { return int(a.inFlight.Load()) }

// Keep counts n bytes of a request body as kept until [Account.Drop]. It returns false
// if that would exceed the share. A nil account has no limit.
func (a *Account) Keep(n int64) bool { return a == nil || take(&a.kept, n, a.maxKept.Load()) }

// Drop undoes a successful [Account.Keep] of n bytes.
func (a *Account) Drop(n int64) {
	if a != nil {
		a.kept.Add(-n)
	}
}

// take adds n to used, or returns false if the sum would exceed most. A most of 0 means
// no limit.
func take(used *atomic.Int64, n, most int64) bool {
	if total := used.Add(n); most > 0 && total > most {
		used.Add(-n)
		return false
	}
	return true
}

// Token is a bearer token.
type Token interface {
	// Authorization returns the value of the Authorization header.
	Authorization() string
	// Expiry returns the time from which the token must not be sent.
	Expiry() time.Time
}

// TokenSource provides an account's tokens.
type TokenSource interface {
	// Token returns the current token.
	Token(ctx context.Context) (Token, error)
	// Renew returns a token to use instead of rejected, to which the upstream responded
	// with 401. It returns rejected itself if another token would not help.
	Renew(ctx context.Context, rejected Token) (Token, error)
	// Expire makes the source treat a token as expired. It is for a token that the
	// upstream calls expired and that could not be renewed.
	Expire(t Token)
}

// ErrTokenExpired means that a request's token expired before there was a connection.
// No byte of the request was sent.
var ErrTokenExpired = errors.New("the token expired before it was sent")

// The keys of context values.
type (
	accountKey struct{}
	clientKey  struct{}
	tokenKey   struct{}
)

// scope is a context with an account and a client.
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

// NewContext returns a context for a request that uses account a. client is the
// client's name; empty for a client known only by its address.
func NewContext(ctx context.Context, a *Account, client string) context.Context {
	return &scope{ctx, a, client}
}

// Of returns the account of a request; nil if none was set.
func Of(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}

// ClientOf returns the name of a request's client, or its IP address if it has no name.
// For a unix socket, it returns RemoteAddr.
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

// WithToken returns a context for a request with the token. Once the token has expired,
// the request is no longer sent.
func WithToken(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, t)
}

// Expiry returns when the token of a request expires; zero if the request has no token.
func Expiry(ctx context.Context) time.Time {
	if t, ok := ctx.Value(tokenKey{}).(Token); ok {
		return t.Expiry()
	}
	return time.Time{}
}
