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

// accounts are those that clients use. They and the clients change with
// PROXY_CLIENTS_FILE.
type accounts struct {
	cfg      config.Config
	tel      *telemetry.Telemetry
	redactor *telemetry.Redactor
	// setClients puts clients in force, or rejects them.
	setClients func([]guard.Client) error
	// forget is called with an account that no request uses any more.
	forget func(*account.Account)
	// drainInterval is the time between two looks whether a retired account is unused. It
	// ends at the second that finds none: a request may just be about to use it.
	drainInterval time.Duration

	mu sync.Mutex // guards the rest
	// byName are those in use. The map does not change, but is replaced.
	byName map[string]*mimecastAccount
	roots  *x509.CertPool
	// inForce is the directory that was applied last; empty before the first.
	inForce config.Directory
	// running is nil before the accounts are started.
	running context.Context
	retired sync.WaitGroup // the goroutines of those that are no longer in use
}

// apply puts the clients of a directory in force, with the accounts that they use. After
// an error nothing has changed. No account notices what happens to another.
func (a *accounts) apply(dir *config.Directory) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil && a.running.Err() != nil {
		return errors.New("the proxy is shutting down")
	}
	next := a.accountsOf(dir)
	a.redactSecrets(&a.inForce, dir) // of both, as dir may be rejected
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

// accountsOf returns the accounts that the directory's clients use: those in use if they
// are the same ones, and else new ones.
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

// accountOf names the account of a client.
func accountOf(c config.Client) string {
	if c.Account == "" {
		return account.Default
	}
	return c.Account
}

// guardClients returns the clients of a directory as the guard knows them.
func guardClients(dir *config.Directory, byName map[string]*mimecastAccount) []guard.Client {
	return convert(dir.Clients, func(c config.Client) guard.Client {
		return guard.Client{
			Name: c.Name, Keys: c.Keys, Digests: c.Digests, Routes: c.Allow, MaxRequests: c.MaxRequests,
			Account: byName[accountOf(c)].Account,
		}
	})
}

// directoryOf returns the clients of a configuration: without a clients file, one without
// a name.
func directoryOf(cfg config.Config) *config.Directory {
	if !cfg.Clients.IsZero() {
		return cfg.Clients.Current()
	}
	return &config.Directory{Clients: []config.Client{{Keys: cfg.APIKey.Values()}}}
}

// redactSecrets makes the secrets of directories known to the redactor.
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

// retire ends the renewal of an account's token at once: its credentials may have been
// revoked. Its requests go on with the token that it has. When they have ended its
// connections are closed. Its metrics go too, unless another account has its name now.
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

// removeMetrics removes those of an account, and its token from the redactor, unless an
// account has its name now.
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
	a.mu.Lock()   // from here on apply changes nothing
	a.mu.Unlock() //nolint:staticcheck // it waits for an apply that is under way
	a.retired.Wait()
	for _, one := range a.list() {
		<-one.ended
	}
}

// list returns the accounts in use: that of the variables first, and the others by name.
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

// credentialsChanged says that those of the variables may have.
func (a *accounts) credentialsChanged() {
	for _, one := range a.list() {
		if one.credentials == nil {
			one.credentialsChanged()
		}
	}
}

// trust makes new connections verify by other roots.
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

// fileCredentials are those of an account in PROXY_CLIENTS_FILE.
type fileCredentials struct{ id, secret secret.Text }

// fileAccount is an account of PROXY_CLIENTS_FILE, with its credentials in current.
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

// newFileAccount returns an account of PROXY_CLIENTS_FILE.
func newFileAccount(spec config.Account, cfg config.Config, trusted *x509.CertPool, tel *telemetry.Telemetry, redactor *telemetry.Redactor) *mimecastAccount {
	current := new(atomic.Pointer[fileCredentials])
	one := newAccount(fileAccount(spec, current), cfg, trusted, tel, redactor)
	one.credentials = current
	return one
}

// is reports whether the account is that of a spec, but for a secret that was rotated.
// With another client ID it is another application's, whose token and batch URLs the
// account's clients must not get.
func (a *mimecastAccount) is(spec config.Account) bool {
	return a.baseURL.String() == spec.BaseURL.String() && a.tokenURL.String() == spec.TokenURL.String() &&
		a.region == spec.Region && a.origin == spec.SecretFile && a.id().Equal(spec.ClientID)
}

// setCredentials takes up those of a spec.
func (a *mimecastAccount) setCredentials(spec config.Account) {
	now := &fileCredentials{spec.ClientID, spec.ClientSecret}
	before := a.credentials.Swap(now)
	if !before.id.Equal(now.id) || !before.secret.Equal(now.secret) {
		a.credentialsChanged()
	}
}
