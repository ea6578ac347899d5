package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/config"
	"mimecast-proxy/secret"
	"mimecast-proxy/simulator"
)

// accountsRig is a proxy in front of a simulator, whose clients a test replaces.
type accountsRig struct {
	*components
	t   *testing.T
	sim *simulator.Server
	url string
	log *output
	// stop ends the accounts, and stopped is closed when they have ended.
	stop    context.CancelFunc
	stopped chan struct{}
}

// accountsAtWork starts a proxy with the accounts of some applications.
func accountsAtWork(t *testing.T, names ...string) *accountsRig {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	var apps []simulator.Application
	for _, name := range []string{"a", "b", "c"} {
		apps = append(apps, simulator.Application{ClientID: "app-" + name, ClientSecret: secretOf(name)})
	}
	sim, err := simulator.Start(simulator.Options{Applications: apps, Quotas: map[string]simulator.Quota{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() }) // what still hangs is cut
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &accountsRig{t: t, sim: sim, log: &output{more: make(chan struct{}, 1)}, stopped: make(chan struct{})}
	r.components = assembled(t, Env{Stderr: r.log},
		"MIMECAST_CLIENT_ID="+simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET="+simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL="+sim.URL, "MIMECAST_CA_FILE="+ca)
	r.accounts.drainInterval = 50 * time.Millisecond
	r.apply(names...)
	r.serve()
	return r
}

func (r *accountsRig) serve() {
	front := httptest.NewServer(r.handler())
	r.url = front.URL
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { defer close(r.stopped); r.accounts.run(ctx) }()
	r.t.Cleanup(func() {
		front.Close()
		stop()
		<-r.stopped
		r.accounts.closeIdleConnections()
		http.DefaultClient.CloseIdleConnections()
	})
}

// secretOf is the client secret of the application that the account uses.
func secretOf(name string) string { return "client-secret-of-" + name }

// spec is an account of the clients file.
func (r *accountsRig) spec(name string) config.Account {
	base, err := url.Parse(r.sim.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	return config.Account{
		Name: name, BaseURL: base, TokenURL: base.JoinPath("/oauth/token"),
		ClientID: secret.New("app-" + name), ClientSecret: secret.New(secretOf(name)), SecretFile: "secret-" + name,
	}
}

// directoryOfSpecs has a client for each account, with the same name.
func directoryOfSpecs(specs ...config.Account) *config.Directory {
	d := &config.Directory{Accounts: specs}
	for _, spec := range specs {
		d.Clients = append(d.Clients, config.Client{Name: spec.Name, Keys: []secret.Text{secret.New(keyOf(spec.Name))}, Account: spec.Name})
	}
	return d
}

func keyOf(name string) string { return "the-key-of-client-" + name }

// apply puts the accounts of some names in force.
func (r *accountsRig) apply(names ...string) {
	r.t.Helper()
	r.applySpecs(convert(names, r.spec)...)
}

func (r *accountsRig) applySpecs(specs ...config.Account) {
	r.t.Helper()
	if err := r.accounts.apply(directoryOfSpecs(specs...)); err != nil {
		r.t.Fatal(err)
	}
}

// one returns the account in use that has the name; nil if there is none.
func (r *accountsRig) one(name string) *mimecastAccount {
	all := r.accounts.list()
	if i := slices.IndexFunc(all, func(a *mimecastAccount) bool { return a.name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// holding returns the account once it holds a token.
func (r *accountsRig) holding(name string) *mimecastAccount {
	r.t.Helper()
	one := r.one(name)
	if _, err := one.source.Token(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return one
}

// get makes a request as a client, whose account has its name, and returns the status.
func (r *accountsRig) get(name string) int {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/identity/whoami", nil)
	if err != nil {
		r.t.Error(err)
		return 0
	}
	req.Header.Set("X-Proxy-Key", keyOf(name))
	req.Header.Set(simulator.ApplicationHeader, "app-"+name)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Error(err)
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// hang makes a request of a client that Mimecast does not answer before release. Its
// status is in the channel then.
func (r *accountsRig) hang(name string) (release func(), status chan int) {
	r.t.Helper()
	until, status := make(chan struct{}), make(chan int, 1)
	fault := r.sim.AddFault(simulator.Fault{Application: "app-" + name, Until: until})
	one := r.one(name)
	go func() { status <- r.get(name) }()
	r.await("a request in flight", func() bool {
		return one.InFlight() == 1 && slices.ContainsFunc(r.sim.Faults(), func(f simulator.ArmedFault) bool { return f.ID == fault && f.Hits == 1 })
	})
	r.sim.RemoveFault(fault)
	return func() { close(until) }, status
}

func (r *accountsRig) await(what string, so func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !so(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not so after a minute", what)
		}
	}
}

// metricsOf reports whether the metrics name an account.
func (r *accountsRig) metricsOf(name string) bool {
	w := httptest.NewRecorder()
	r.tel.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, "/metrics", nil))
	return strings.Contains(w.Body.String(), `account="`+name+`"`)
}

func (r *accountsRig) has(status chan int, want int) {
	r.t.Helper()
	if got := <-status; got != want {
		r.t.Errorf("the request in flight got %d", got)
	}
}

// hasEnded reports whether nothing renews the account's token any more.
func (a *mimecastAccount) hasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

func TestAddedAccountTakesHalfAndNothingElseFromTheOther(t *testing.T) {
	r := accountsAtWork(t, "a")
	a := r.holding("a")
	if n := a.MaxRequests(); n != 0 {
		t.Errorf("the only account has a share of %d", n)
	}
	fetched := a.source.Status().Fetched
	r.apply("a", "b")
	b := r.holding("b")
	if r.one("a") != a || a.source.Status().Fetched != fetched {
		t.Error("the account before is another, or has another token")
	}
	if half := r.cfg.MaxRequests / 2; a.MaxRequests() != half || b.MaxRequests() != half {
		t.Errorf("shares of %d and %d", a.MaxRequests(), b.MaxRequests())
	}
	if r.get("a") != 200 || r.get("b") != 200 || !r.metricsOf("b") {
		t.Error("not both are used")
	}
	r.apply("a")
	if a.MaxRequests() != 0 || r.get("b") != 401 || r.one("b") != nil {
		t.Error("the second account is still there")
	}
	if n := r.sim.Counts().Misplaced; n > 0 {
		t.Errorf("%d requests had another's token", n)
	}
}

func TestNewURLIsANewAccountAndRequestsInFlightEndOnTheOld(t *testing.T) {
	r := accountsAtWork(t, "a", "b")
	old, b := r.holding("a"), r.holding("b")
	release, status := r.hang("a")
	moved := r.spec("a")
	moved.BaseURL = moved.BaseURL.JoinPath("/") // which is another text
	r.applySpecs(moved, r.spec("b"))
	if r.one("a") == old || r.one("b") != b {
		t.Fatal("not the account with the new URL is new")
	}
	r.holding("a")
	if old.InFlight() != 1 || r.one("a").InFlight() != 0 {
		t.Error("the request in flight changed accounts")
	}
	release()
	r.has(status, 200)
	r.await("the end of the old account", old.hasEnded)
	if !r.metricsOf("a") {
		t.Error("the metrics of the name are gone")
	}
}

func TestNewCredentialsCauseOneTokenRequestAtOnce(t *testing.T) {
	r := accountsAtWork(t, "a", "b")
	a, b := r.holding("a"), r.holding("b")
	before, fetched := r.sim.TokenRequests(), b.source.Status().Fetched
	rotated := r.spec("a")
	rotated.ClientSecret = secret.New("rotated-secret")
	r.sim.SetApplication(simulator.Application{ClientID: "app-a", ClientSecret: "rotated-secret"})
	held, err := a.source.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.applySpecs(rotated, r.spec("b"))
	r.await("another token", func() bool {
		now, err := a.source.Token(t.Context())
		return err == nil && now != held
	})
	r.applySpecs(rotated, r.spec("b")) // which changes nothing
	if r.one("a") != a || r.one("b") != b || b.source.Status().Fetched != fetched {
		t.Error("an account was replaced, or the other's token")
	}
	if r.get("a") != 200 {
		t.Error("the new token is not used")
	}
	if n := r.sim.TokenRequests() - before; n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func TestAnotherClientIDIsAnotherAccount(t *testing.T) {
	r := accountsAtWork(t, "a", "b")
	a := r.holding("a")
	release, status := r.hang("a")
	moved := r.spec("b") // the application of b, under the name of a
	moved.Name, moved.SecretFile = "a", r.spec("a").SecretFile
	r.applySpecs(moved)
	if r.one("a") == a || r.one("a").sealed.previous.Equal(secret.New(secretOf("a"))) {
		t.Error("the clients of another application have the token and the seals of the one before")
	}
	now := r.holding("a")
	if n := len(now.SealKeys()); n != 1 {
		t.Errorf("%d secrets open batch URLs", n)
	}
	release()
	r.has(status, 200)
	if !now.source.Status().Valid || !a.gone.Load() {
		t.Error("the new account has no token, or the old one still reports")
	}
}

func TestRemovedAccountEndsWithItsLastRequest(t *testing.T) {
	r := accountsAtWork(t, "a", "b", "c")
	busy, idle := r.holding("a"), r.holding("b")
	release, status := r.hang("a")
	r.apply("c")
	r.await("the end of the renewals", func() bool { return idle.hasEnded() && busy.hasEnded() })
	r.await("the end of the idle account", func() bool { return !r.metricsOf("b") })
	if !r.metricsOf("a") {
		t.Error("the account ended before its request") // both were removed at the same time
	}
	if r.get("c") != 200 || r.get("a") != 401 {
		t.Error("the removed client is known, or the one that stayed is not")
	}
	release()
	r.has(status, 200)
	r.await("the end of the account", func() bool { return !r.metricsOf("a") })
	if !r.metricsOf("c") {
		t.Error("the metrics of the account that stayed are gone")
	}
}

func TestRejectedVersionChangesNothing(t *testing.T) {
	r := accountsAtWork(t, "a")
	a := r.holding("a")
	before := r.sim.TokenRequests()
	for _, name := range []string{"b", "c", "b"} { // more often than the redactor remembers
		bad := directoryOfSpecs(r.spec(name))
		bad.Clients[0].Allow = []string{"no such route"}
		if err := r.accounts.apply(bad); err == nil {
			t.Fatal("a client with a bad route is in force")
		}
	}
	if r.one("a") != a || len(r.accounts.list()) != 1 || a.MaxRequests() != 0 || r.metricsOf("b") {
		t.Error("a rejected version has changed the accounts")
	}
	if r.get("a") != 200 || r.get("b") != 401 || r.sim.TokenRequests() != before {
		t.Error("a rejected version has changed who may call")
	}
	for _, text := range []string{secretOf("a"), keyOf("a")} {
		if got := r.redactor.Redact("it is " + text); strings.Contains(got, text) {
			t.Errorf("a secret in force is not redacted: %s", got)
		}
	}
}

func TestNameThatComesBackKeepsItsMetricsWhenTheOldAccountEnds(t *testing.T) {
	r := accountsAtWork(t, "a", "b")
	old := r.holding("a")
	release, status := r.hang("a")
	r.apply("b")
	r.apply("a", "b")
	if r.holding("a") == old || r.get("a") != 200 {
		t.Error("the name did not come back as a new account")
	}
	release()
	r.has(status, 200)
	r.await("the end of the old account", old.hasEnded)
	r.accounts.retired.Wait()
	if r.one("a").hasEnded() || !r.metricsOf("a") || r.get("a") != 200 {
		t.Error("the end of the old account took the new one with it")
	}
}

func TestAccountThatNoClientUsesIsNotStarted(t *testing.T) {
	r := accountsAtWork(t, "a")
	r.holding("a")
	before := r.sim.TokenRequests()
	d := directoryOfSpecs(r.spec("a"), r.spec("b"), r.spec("c"))
	d.Clients = slices.DeleteFunc(d.Clients, func(c config.Client) bool { return c.Name == "b" })
	if err := r.accounts.apply(d); err != nil {
		t.Fatal(err)
	}
	r.holding("c")
	if n := r.sim.TokenRequests() - before; n != 1 || r.one("b") != nil || r.metricsOf("b") {
		t.Errorf("%d token requests", n)
	}
}

func TestShutdownDoesNotWaitForARemovedAccount(t *testing.T) {
	r := accountsAtWork(t, "a", "b")
	old := r.holding("a")
	release, status := r.hang("a")
	r.apply("b")
	r.stop()
	<-r.stopped // while the request hangs
	if !old.hasEnded() {
		t.Error("the account's token is still renewed")
	}
	release()
	r.has(status, 200)
}
