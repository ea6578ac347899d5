package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/guard"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

// accounts holds the accounts that clients use. Clients and accounts change when
// PROXY_CLIENTS_FILE does.
type accounts struct {
	cfg      config.Config
	tel      *telemetry.Telemetry
	redactor *telemetry.Redactor
	// setClients puts the clients into effect. After an error the old ones remain.
	setClients func([]guard.Client) error
	// forget is called with an account that no request uses any more.
	forget func(*account.Account)
	// drainInterval is the time between two checks of a retired account for in-flight
	// requests. Two checks in a row must find none: a request may be about to start.
	drainInterval time.Duration

	mu sync.Mutex // guards the rest
	// byName has the accounts in use. The map is replaced, never modified.
	byName map[string]*mimecastAccount
	roots  *x509.CertPool
	// inForce is the last directory applied; empty before the first one.
	inForce config.Directory
	// running is nil before the accounts are started.
	running context.Context
	retired sync.WaitGroup // goroutines that wait for retired accounts
}

// apply puts a directory's clients into effect, with the accounts that they use. If it
// returns an error, nothing has changed. Accounts that stay in use are not interrupted.
func (a *accounts) apply(dir *config.Directory) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil && a.running.Err() != nil {
		return errors.New("the proxy is shutting down")
	}
	next := a.accountsOf(dir)
	a.redactSecrets(&a.inForce, dir) // both, since dir may be rejected
	if err := a.setClients(guardClients(dir, next)); err != nil {
		return fmt.Errorf("putting the clients in force: %w", err)
	}
	a.inForce = *dir
	a.tel.KeepClients(convert(dir.Clients, func(c config.Client) string { return c.Name }))
	requests, bytes := 0, int64(0)
	if len(next) > 1 {
		requests, bytes = max(1, a.cfg.MaxRequests/2), max(1, a.cfg.ReplayMemory/2)
	}
	for name, one := range next {
		one.SetShare(requests, bytes)
		if a.byName[name] == one {
			continue
		}
		a.tel.AddAccount(name)
		if a.running != nil {
			one.start(a.running)
		}
	}
	for _, spec := range dir.Accounts {
		if one := next[spec.Name]; one != nil {
			one.setCredentials(spec)
		}
	}
	for name, one := range a.byName {
		if next[name] != one {
			a.retire(one)
		}
	}
	a.byName = next
	return nil
}

// accountsOf returns the accounts that the directory's clients use. It keeps an account in
// use if its settings are the same, and creates the others.
func (a *accounts) accountsOf(dir *config.Directory) map[string]*mimecastAccount {
	specs := map[string]config.Account{}
	for _, spec := range dir.Accounts {
		specs[spec.Name] = spec
	}
	next := map[string]*mimecastAccount{}
	for _, client := range dir.Clients {
		name := accountOf(client)
		if next[name] != nil {
			continue
		}
		spec, fromFile := specs[name]
		one := a.byName[name]
		switch {
		case !fromFile && one == nil:
			one = newAccount(defaultAccount(a.cfg), a.cfg, a.roots, a.tel, a.redactor)
		case fromFile && (one == nil || !one.is(spec)):
			one = newFileAccount(spec, a.cfg, a.roots, a.tel, a.redactor)
		}
		next[name] = one
	}
	return next
}

// accountOf returns the name of a client's account.
func accountOf(c config.Client) string {
	if c.Account == "" {
		return account.Default
	}
	return c.Account
}

// guardClients converts a directory's clients for the guard.
func guardClients(dir *config.Directory, byName map[string]*mimecastAccount) []guard.Client {
	return convert(dir.Clients, func(c config.Client) guard.Client {
		return guard.Client{
			Name: c.Name, Keys: c.Keys, Digests: c.Digests, Routes: c.Allow, MaxRequests: c.MaxRequests,
			Account: byName[accountOf(c)].Account,
		}
	})
}

// directoryOf returns the clients of a configuration. Without a clients file, that is a
// single client with no name.
func directoryOf(cfg config.Config) *config.Directory {
	if !cfg.Clients.IsZero() {
		return cfg.Clients.Current()
	}
	return &config.Directory{Clients: []config.Client{{Keys: cfg.APIKey.Values()}}}
}

// redactSecrets adds the directories' secrets to the redactor.
func (a *accounts) redactSecrets(dirs ...*config.Directory) {
	var keys, secrets []secret.Text
	for _, dir := range dirs {
		for _, c := range dir.Clients {
			keys = append(keys, c.Keys...)
		}
		for _, spec := range dir.Accounts {
			secrets = append(secrets, spec.ClientSecret)
		}
	}
	redactKeys(a.redactor, keys...)
	a.redactor.Set("client secrets of PROXY_CLIENTS_FILE", secrets...)
}

// retire stops renewing an account's token at once, since its credentials may have been
// revoked. In-flight requests continue with the current token. When they have ended, retire
// closes the account's connections. It also removes the metrics, unless a new account has
// the same name.
func (a *accounts) retire(one *mimecastAccount) {
	if a.running == nil {
		return
	}
	one.gone.Store(true)
	one.stop()
	a.retired.Go(func() {
		<-one.ended
		tick := time.NewTicker(a.drainInterval)
		defer tick.Stop()
		for unused := 0; unused < 2 && a.running.Err() == nil; {
			select {
			case <-tick.C:
			case <-a.running.Done():
			}
			if unused++; one.InFlight() > 0 {
				unused = 0
			}
		}
		one.closeIdleConnections()
		a.forget(one.Account)
		a.removeMetrics(one.name)
	})
}

// removeMetrics removes an account's metrics, and its token from the redactor, unless a new
// account has the same name.
func (a *accounts) removeMetrics(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byName[name] == nil {
		a.tel.RemoveAccount(name)
		a.redactor.Set("token of " + name)
	}
}

// run renews the tokens of the accounts until ctx ends.
func (a *accounts) run(ctx context.Context) {
	a.mu.Lock()
	a.running = ctx
	for _, one := range a.byName {
		one.start(ctx)
	}
	a.mu.Unlock()
	<-ctx.Done()
	a.mu.Lock()   // apply returns an error from now on
	a.mu.Unlock() //nolint:staticcheck // waits for a running apply
	a.retired.Wait()
	for _, one := range a.list() {
		<-one.ended
	}
}

// list returns the accounts in use: the default account first, then the others by name.
func (a *accounts) list() []*mimecastAccount {
	a.mu.Lock()
	byName := a.byName
	a.mu.Unlock()
	all := make([]*mimecastAccount, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if name == account.Default {
			all = slices.Insert(all, 0, byName[name])
		} else {
			all = append(all, byName[name])
		}
	}
	return all
}

// awaitTokens waits until every account holds a token. It returns the first error.
func (a *accounts) awaitTokens(ctx context.Context) error {
	for _, one := range a.list() {
		if _, err := one.source.Token(ctx); err != nil {
			return err
		}
	}
	return nil
}

// credentialsChanged requests a token with the default account's new credentials.
func (a *accounts) credentialsChanged() {
	for _, one := range a.list() {
		if one.credentials == nil {
			one.credentialsChanged()
		}
	}
}

// trust sets the certificate authorities for new connections of all accounts.
func (a *accounts) trust(roots *x509.CertPool) {
	a.mu.Lock()
	a.roots = roots
	a.mu.Unlock()
	for _, one := range a.list() {
		one.trust(roots)
	}
}

func (a *accounts) closeIdleConnections() {
	for _, one := range a.list() {
		one.closeIdleConnections()
	}
}

// fileCredentials are the credentials of an account in PROXY_CLIENTS_FILE.
type fileCredentials struct{ id, secret secret.Text }

// fileAccount describes an account in PROXY_CLIENTS_FILE. It stores the credentials in
// current, and reads them from there.
func fileAccount(spec config.Account, current *atomic.Pointer[fileCredentials]) accountSpec {
	current.Store(&fileCredentials{spec.ClientID, spec.ClientSecret})
	return accountSpec{
		name: spec.Name, region: spec.Region, baseURL: spec.BaseURL, tokenURL: spec.TokenURL,
		id:     func() secret.Text { return current.Load().id },
		secret: func() secret.Text { return current.Load().secret },
		origin: spec.SecretFile,
		from:   "account " + spec.Name + " in PROXY_CLIENTS_FILE",
		remedy: "Correct account " + spec.Name + " in PROXY_CLIENTS_FILE, or the files that it names; the proxy reloads them.",
	}
}

// newFileAccount returns an account for an entry in PROXY_CLIENTS_FILE.
func newFileAccount(spec config.Account, cfg config.Config, trusted *x509.CertPool, tel *telemetry.Telemetry, redactor *telemetry.Redactor) *mimecastAccount {
	current := new(atomic.Pointer[fileCredentials])
	one := newAccount(fileAccount(spec, current), cfg, trusted, tel, redactor)
	one.credentials = current
	return one
}

// is reports whether the account matches a spec, except for a rotated secret. A different
// client ID means a different application. The account's clients must not get that
// application's token or batch URLs.
func (a *mimecastAccount) is(spec config.Account) bool {
	return a.baseURL.String() == spec.BaseURL.String() && a.tokenURL.String() == spec.TokenURL.String() &&
		a.region == spec.Region && a.origin == spec.SecretFile && a.id().Equal(spec.ClientID)
}

// setCredentials replaces the credentials with those of a spec, and requests a token if they
// differ.
func (a *mimecastAccount) setCredentials(spec config.Account) {
	now := &fileCredentials{spec.ClientID, spec.ClientSecret}
	before := a.credentials.Swap(now)
	if !before.id.Equal(now.id) || !before.secret.Equal(now.secret) {
		a.credentialsChanged()
	}
}
