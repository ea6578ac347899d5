//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/simulator"
)

var isolationRequests = flag.Int("isolation", 1000, "how many requests TestNoRequestIsSentWithAnotherAccountsToken makes; 10000 for renewals of tokens too")

// teams are clients with one account each, of the same name.
type teams struct {
	t    testing.TB
	sim  *simulator.Server
	dir  string
	apps []simulator.Application

	mu sync.Mutex // guards the fields below
	// hosts has the host in the base URL of an account, if it is not 127.0.0.1.
	hosts map[int]string
}

// newTeams returns a simulator with n applications, and a clients file with n clients.
func newTeams(t testing.TB, n int, o simulator.Options) *teams {
	t.Helper()
	s := &teams{t: t, dir: t.TempDir(), hosts: map[int]string{}}
	for i := range n {
		s.apps = append(s.apps, simulator.Application{ClientID: fmt.Sprintf("app-%02d", i), ClientSecret: fmt.Sprintf("secret-of-%02d-0", i)})
	}
	o.Applications = s.apps
	s.sim = program.Simulate(t, o)
	for i, app := range s.apps {
		s.put(s.secretFile(i), app.ClientSecret)
	}
	s.write(n)
	return s
}

func (s *teams) put(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		s.t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Error(err)
	}
}

// write writes a clients file with the first n teams.
func (s *teams) write(n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var clients, accounts strings.Builder
	for i := range n {
		fmt.Fprintf(&clients, "  team-%02d: {keys: [{sha256: %x}], account: team-%02[1]d}\n", i, sha256.Sum256([]byte(teamKey(i))))
		fmt.Fprintf(&accounts, "  team-%02d: {base_url: %q, client_id: app-%02[1]d, client_secret_file: %[3]s}\n", i, s.url(i), s.secretFile(i))
	}
	s.put("clients.yaml", "clients:\n"+clients.String()+"accounts:\n"+accounts.String())
}

func (s *teams) url(i int) string {
	if host := s.hosts[i]; host != "" {
		return strings.Replace(s.sim.URL, "127.0.0.1", host, 1)
	}
	return s.sim.URL
}

func (s *teams) secretFile(i int) string { return fmt.Sprintf("secret-%02d", i) }

func teamKey(i int) string { return fmt.Sprintf("the-key-of-team-%02d-for-tests", i) }

// environ returns a configuration with the clients file and without a default account.
func (s *teams) environ(more ...string) []string {
	return program.Environ(s.t, s.sim, append([]string{
		"MIMECAST_CLIENT_ID=", "MIMECAST_CLIENT_SECRET=", "PROXY_CLIENTS_FILE=" + filepath.Join(s.dir, "clients.yaml"),
	}, more...)...)
}

// ask makes a request as a team.
func (s *teams) ask(p *program.Program, i int, method, path, body string) (*http.Response, string, error) {
	res, got, err := p.Do(method, path, strings.NewReader(body), "X-Proxy-Key", teamKey(i), simulator.ApplicationHeader, s.apps[i].ClientID)
	return res, string(got), err
}

// marker is a response header with the client ID of the application that Mimecast served.
const marker = "X-Answered-For"

// isolation is a run of TestNoRequestIsSentWithAnotherAccountsToken.
type isolation struct {
	*teams
	program *program.Program
	// ended is closed when all requests were made.
	ended    chan struct{}
	statuses [teamCount]map[int]int // by team, guarded by mu
	made     atomic.Int64
	changes  atomic.Int64 // of the clients file or what it names
}

// leastChanges is the minimum number of changes per run. The run makes more requests if
// needed.
const leastChanges = 5

// The teams of that test. Each of the first few has a different problem.
const (
	refusedTeam = iota
	limitedTeam
	slowTeam
	rotatedTeam
	movedTeam
	removedTeam // the last one with a problem
	teamCount   = 50
)

// isolationPaths are the requests to make.
var isolationPaths = []struct{ method, path, body string }{
	{"GET", "/identity/whoami", ""},
	{"POST", "/api/account/get-account", `{"data":[]}`},
	{"POST", "/_simulator/echo", strings.Repeat("x", 5000)},
	{"GET", "/partner/v1/customers?pageSize=5", ""},
}

func TestNoRequestIsSentWithAnotherAccountsToken(t *testing.T) {
	suite.Slow(t)
	// With this lifetime, a token's renewals and revocations alternate.
	s := &isolation{teams: newTeams(t, teamCount, simulator.Options{TokenTTL: 20 * time.Second, RequestLog: -1}), ended: make(chan struct{})}
	s.misbehave()
	s.program = s.startQuietly()
	s.sim.SetApplication(simulator.Application{ClientID: s.apps[refusedTeam].ClientID, ClientSecret: "another"})
	s.sim.RevokeTokens(s.apps[refusedTeam].ClientID)
	for i := range s.statuses {
		s.statuses[i] = map[int]int{}
	}
	began := time.Now()
	s.run(*isolationRequests)
	s.verify(*isolationRequests, time.Since(began))
}

// startQuietly starts the program without access lines, of which there would be too many.
// The log then does not have the addresses, so it uses a socket.
func (s *isolation) startQuietly() *program.Program {
	dir := program.ShortDir(s.t)
	p := program.Start(s.t, s.environ("PROXY_LOG_LEVEL=error", "PROXY_LISTEN=unix:"+dir+"/data", "PROXY_ADMIN_LISTEN=unix:"+dir+"/admin"))
	p.Listen, p.Admin = dir+"/data", dir+"/admin"
	p.URL, p.AdminURL = socketURL(p.Listen), socketURL(p.Admin)
	return p.AwaitReady()
}

// socketURL returns the URL of a socket for a Program's Client.
func socketURL(path string) string {
	return "http://" + strings.Trim(strings.ReplaceAll(strings.ToLower(path), "/", "."), ".")
}

// misbehave marks each application's responses and gives some applications problems.
func (s *isolation) misbehave() {
	for i, app := range s.apps {
		f := simulator.Fault{Application: app.ClientID, Header: map[string]string{marker: app.ClientID}}
		switch i {
		case limitedTeam:
			f.Status = http.StatusTooManyRequests
			f.Header["X-RateLimit-Limit"], f.Header["X-RateLimit-Remaining"], f.Header["X-RateLimit-Reset"] = "50", "0", "600000"
		case slowTeam:
			f.Delay = 100 * time.Millisecond
		}
		s.sim.AddFault(f)
	}
}

func (s *isolation) run(requests int) {
	var asking, others sync.WaitGroup
	const workers = 24
	for w := range workers {
		asking.Go(func() {
			r := rand.New(rand.NewPCG(17, uint64(w)))
			for s.made.Add(1) <= int64(requests) || s.changes.Load() < leastChanges {
				s.one(r)
			}
		})
	}
	others.Go(s.revoke)
	others.Go(s.reload)
	asking.Wait()
	close(s.ended)
	others.Wait()
}

// one makes a request as a random team.
func (s *isolation) one(r *rand.Rand) {
	i, what := r.IntN(teamCount), isolationPaths[r.IntN(len(isolationPaths))]
	res, body, err := s.ask(s.program, i, what.method, what.path, what.body)
	if err != nil {
		s.t.Errorf("team %d: %v", i, err)
		return
	}
	from := res.Header.Get(marker)
	if from != "" && from != s.apps[i].ClientID || res.StatusCode == http.StatusOK && from == "" {
		s.t.Errorf("team %d got the response of %q: %d", i, from, res.StatusCode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.statuses[i][res.StatusCode]++; i > removedTeam && res.StatusCode != http.StatusOK {
		s.t.Errorf("team %d, which has no trouble, got %d: %.300s", i, res.StatusCode, body)
	}
}

// revoke revokes the tokens of one application after the other. None loses two tokens
// within 10 s, because the proxy does not replace the second one at once.
func (s *isolation) revoke() {
	tick := time.NewTicker(12 * time.Second / teamCount)
	defer tick.Stop()
	order := rand.New(rand.NewPCG(17, 17)).Perm(teamCount)
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			s.sim.RevokeTokens(s.apps[order[n%teamCount]].ClientID)
		case <-s.ended:
			return
		}
	}
}

// reload repeatedly changes the clients file and what it refers to: a secret, an
// account's URL, and whether an account exists.
func (s *isolation) reload() {
	tick := time.NewTicker(700 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-s.ended:
			return
		}
		switch n % 4 {
		case 0:
			rotated := fmt.Sprintf("secret-of-%02d-%d", rotatedTeam, n)
			s.sim.SetApplication(simulator.Application{ClientID: s.apps[rotatedTeam].ClientID, ClientSecret: rotated})
			s.put(s.secretFile(rotatedTeam), rotated)
		case 1, 3:
			s.mu.Lock()
			if s.hosts[movedTeam] = "localhost"; n%4 == 3 {
				delete(s.hosts, movedTeam)
			}
			s.mu.Unlock()
			s.writeWithout(n%8 < 4)
		}
		s.program.Signal(syscall.SIGHUP)
		s.changes.Add(1)
	}
}

// writeWithout writes the clients file, without removedTeam if removed is set.
func (s *isolation) writeWithout(removed bool) {
	s.write(teamCount)
	if !removed {
		return
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "clients.yaml"))
	if err != nil {
		s.t.Error(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(line string) bool {
		return strings.HasPrefix(line, fmt.Sprintf("  team-%02d:", removedTeam))
	})
	s.put("clients.yaml", strings.Join(lines, ""))
}

func (s *isolation) verify(requests int, took time.Duration) {
	counts := s.sim.Counts()
	if counts.Misplaced != 0 {
		s.t.Errorf("%d requests had another application's token", counts.Misplaced)
	}
	total := 0
	for i, statuses := range s.statuses {
		for _, n := range statuses {
			total += n
		}
		if i <= removedTeam {
			s.t.Logf("team %d: %v", i, statuses)
		}
	}
	if total < requests {
		s.t.Errorf("%d responses", total)
	}
	if n := s.statuses[refusedTeam][http.StatusOK]; n > 0 {
		s.t.Errorf("the refused team got 200 %d times", n)
	}
	if n := s.statuses[limitedTeam][http.StatusTooManyRequests]; n == 0 {
		s.t.Error("the limited team got no 429")
	}
	s.t.Logf("%d requests in %v, %d token requests, %.0f reloads, %d misplaced", total, took.Round(time.Millisecond), counts.TokenRequests,
		s.program.Metric(`mimecast_proxy_file_reloads_total{file="PROXY_CLIENTS_FILE",outcome="changed"}`), counts.Misplaced)
	if n := s.program.Metric(`mimecast_proxy_file_reloads_total{file="PROXY_CLIENTS_FILE",outcome="failed"}`); n > 0 {
		s.t.Errorf("%.0f versions of the clients file were rejected", n)
	}
}

func TestProxyIsReadyOnceEveryAccountHasHeldAToken(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := newTeams(t, 3, simulator.Options{})
	refused, err := simulator.NamedFault("token-refused")
	if err != nil {
		t.Fatal(err)
	}
	refused.Application = s.apps[2].ClientID
	fault := s.sim.AddFault(refused)
	s.write(2)
	p := program.Start(t, s.environ()).AwaitServing().AwaitReady() // no client uses the third account
	s.write(3)
	p.Signal(syscall.SIGHUP)
	p.Stderr.Await(t, "the refusal of the third account", func(text string) bool {
		return strings.Contains(text, `"account":"team-02"`) && strings.Contains(text, `"msg":"token request failed"`)
	})
	if res, body := p.AdminGet("/readyz"); res.StatusCode != http.StatusOK || !strings.Contains(body, `"team-02"`) {
		t.Errorf("an account that was added took the proxy out: %d %s", res.StatusCode, body)
	}
	second := program.Start(t, s.environ()).AwaitServing()
	program.Await(t, "the reason", func() bool {
		_, body := second.AdminGet("/readyz")
		return strings.Contains(body, "account team-02: no token was held yet: ") && !strings.Contains(body, "account team-01")
	})
	if second.Ready() {
		t.Error("ready without a token of every account")
	}
	s.sim.RemoveFault(fault)
	second.AwaitReady()
	_, status := second.AdminGet("/api/status")
	_, page := second.AdminGet("/")
	for i := range s.apps {
		name := fmt.Sprintf("team-%02d", i)
		if !strings.Contains(status, `"`+name+`"`) || !strings.Contains(page, name) {
			t.Errorf("%s is not on the page and in /api/status", name)
		}
	}
}

// checkReport is the output of check --json.
type checkReport struct {
	OK    bool
	Steps []struct {
		Step, Account string
		OK            bool
		Products      []struct{ Product string }
	}
}

// failed returns the failed steps with their accounts.
func (r checkReport) failed() (all []string) {
	for _, step := range r.Steps {
		if !step.OK {
			all = append(all, step.Account+" "+step.Step)
		}
	}
	return all
}

// products returns the accounts whose products were checked.
func (r checkReport) products() (all []string) {
	for _, step := range r.Steps {
		if len(step.Products) == len(mimecast.Products) {
			all = append(all, step.Account)
		}
	}
	return all
}

func TestCheckTestsEveryAccountWhateverHappensToOne(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := newTeams(t, 3, simulator.Options{})
	s.put(s.secretFile(1), "another-secret")
	for _, c := range []struct {
		args             []string
		code             int
		failed, products []string
		text             []string
	}{
		{nil, 1, []string{"team-01 token"}, nil, []string{
			"ok      team-00  request", "FAILED  team-01  token", "ok      team-02  request",
		}},
		{[]string{"--products"}, 1, []string{"team-01 token"}, []string{"team-00", "team-02"}, []string{
			"ok      team-00  products", "FAILED  team-01  token", "ok      team-02  products", "        yes      Account ",
		}},
		{[]string{"--account", "team-01"}, 1, []string{"team-01 token"}, nil, []string{"FAILED  token"}},
		{[]string{"--account", "team-02", "--products"}, 0, nil, []string{"team-02"}, []string{"ok      request", "ok      products", "All steps passed."}},
	} {
		people := program.Start(t, s.environ(), append([]string{"check"}, c.args...)...)
		code, text := people.Exit(), people.Stdout.String()
		for _, want := range c.text {
			if !strings.Contains(text, want) {
				t.Errorf("%q: no %q in:\n%s", c.args, want, text)
			}
		}
		if code != c.code || strings.Contains(text, "another-secret") || strings.Contains(text, "All steps passed.") != (c.code == 0) {
			t.Errorf("%q: exit %d\n%s%s", c.args, code, text, people.Stderr.String())
		}
		machines := program.Start(t, s.environ(), append([]string{"check", "--json"}, c.args...)...)
		code = machines.Exit()
		var report checkReport
		if err := json.Unmarshal([]byte(machines.Stdout.String()), &report); err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if code != c.code || report.OK != (c.code == 0) || !slices.Equal(report.failed(), c.failed) || !slices.Equal(report.products(), c.products) {
			t.Errorf("%q: exit %d, %+v", c.args, code, report)
		}
	}
}

func TestCheckOfAnUnknownAccountNamesThoseThereAre(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := newTeams(t, 2, simulator.Options{})
	p := program.Start(t, s.environ(), "check", "--account", "team-07")
	if code, said := p.Exit(), p.Stderr.String(); code != 2 || !strings.Contains(said, "--account team-07: there is no such account; choose one of: team-00, team-01") {
		t.Errorf("exit %d: %s", code, said)
	}
	if n := s.sim.TokenRequests(); n > 0 {
		t.Errorf("%d token requests", n)
	}
}

// mostPerAccount is the memory limit of an idle account, in bytes: 0.3 MiB.
const mostPerAccount = 3 << 20 / 10

func TestIdleAccountTakesLittleMemory(t *testing.T) {
	suite.Slow(t)
	t.Parallel() // it mostly waits
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	const more = 50
	alone, s := newTeams(t, 1, simulator.Options{}), newTeams(t, 1+more, simulator.Options{})
	one := program.Start(t, alone.environ()).AwaitServing().AwaitReady()
	if _, _, err := alone.ask(one, 0, "GET", "/identity/whoami", ""); err != nil {
		t.Error(err)
	}
	many := program.Start(t, s.environ()).AwaitServing().AwaitReady() // with a token for each account
	for i := range s.apps {
		if res, body, err := s.ask(many, i, "GET", "/identity/whoami", ""); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("team %d: %v %s", i, err, body)
		}
	}
	var each int64
	// The program releases its startup memory after 10 s without requests.
	program.Await(t, "less than 0.3 MiB for each account", func() bool {
		first := one.Resident().Now
		all := many.Resident().Now
		each = (all - first) / more
		return each < mostPerAccount
	})
	t.Logf("resident for each of %d further accounts: %.2f MiB", more, program.MiB(each))
}

var troubleTurns = flag.Int("trouble", 1, "how many turns TestAccountInTroubleDoesNotSlowTheOthers takes; 100 for a figure")

// troubleRun is a run of that test. Most teams make requests all the time. Meanwhile two
// more teams, with and without a problem, take turns.
type troubleRun struct {
	*teams
	program *program.Program
	mu      sync.Mutex
	team    int // whose turn it is; if nobody's, times are not recorded
	took    [2][]time.Duration
	p99     [2][]float64 // per turn, in seconds
}

const (
	troubledTeam, healthyTeam, nobody = 0, 1, -1
	firstOther, troubleTeams          = 2, 9
	turnTime                          = 500 * time.Millisecond
)

func TestAccountInTroubleDoesNotSlowTheOthers(t *testing.T) {
	suite.Slow(t)
	for name, begin := range map[string]func(*teams){
		"refused": func(s *teams) {
			s.sim.SetApplication(simulator.Application{ClientID: s.apps[troubledTeam].ClientID, ClientSecret: "another"})
			s.sim.RevokeTokens(s.apps[troubledTeam].ClientID)
		},
		"limited": func(s *teams) {
			s.sim.AddFault(simulator.Fault{Application: s.apps[troubledTeam].ClientID, Status: http.StatusTooManyRequests, Header: map[string]string{
				"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600000",
			}})
		},
		"slow": func(s *teams) {
			s.sim.AddFault(simulator.Fault{Application: s.apps[troubledTeam].ClientID, Delay: 2 * time.Second})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &troubleRun{teams: newTeams(t, troubleTeams, simulator.Options{RequestLog: -1}), team: nobody}
			s.t = t
			s.program = program.Start(t, s.environ("PROXY_RATE_LIMIT_WAIT=5s", "PROXY_RATE_LIMIT_PACE=on")).AwaitServing().AwaitReady()
			begin(s.teams)
			// Other load on the machine also causes delays, but not in every attempt.
			const attempts = 5
			for n := 1; s.slowed(*troubleTurns); n++ {
				if n == attempts {
					t.Fatal("the account in trouble slows the others")
				}
			}
		})
	}
}

// slowed reports whether the other teams were slower during the troubled team's turns. It
// compares adjacent turns, because the load of a machine changes from second to second.
func (s *troubleRun) slowed(turns int) bool {
	s.p99 = [2][]float64{}
	s.measure(turns)
	more := make([]float64, turns)
	for i := range more {
		more[i] = 100 * (s.p99[troubledTeam][i]/s.p99[healthyTeam][i] - 1)
	}
	low, high := confidence(more)
	s.t.Logf("p99 of the others in %d turns: %.2f ms beside the account in trouble, %.2f ms beside one without (medians); "+
		"in the same pair of turns %+.1f %% (median; 95 %% confidence: %+.1f to %+.1f %%)",
		turns, 1e3*median(s.p99[troubledTeam]), 1e3*median(s.p99[healthyTeam]), median(more), low, high)
	if turns < turnsOfAFigure { // with other load, few turns vary by more than 5 %
		return median(s.p99[troubledTeam]) > 1.5*median(s.p99[healthyTeam])+5e-3
	}
	return low > 5
}

const turnsOfAFigure = 30

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// confidence returns the 95 % confidence interval of the median, by the bootstrap method.
func confidence(of []float64) (low, high float64) {
	r := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // not used for secrets
	medians := make([]float64, 2000)
	for i := range medians {
		drawn := make([]float64, len(of))
		for j := range drawn {
			drawn[j] = of[r.IntN(len(of))]
		}
		medians[i] = median(drawn)
	}
	slices.Sort(medians)
	return medians[len(medians)*25/1000], medians[len(medians)*975/1000]
}

// measure makes the two teams take turns.
func (s *troubleRun) measure(turns int) {
	ended := make(chan struct{})
	var others sync.WaitGroup
	for i := firstOther; i < troubleTeams; i++ {
		others.Go(func() { s.other(i, ended) })
	}
	for n := range 2 * turns {
		// The two teams alternate in who begins a pair of turns.
		s.takeTurn((n + n/2) % 2)
	}
	close(ended)
	others.Wait()
}

// other makes requests as a team, one after the other. Each must succeed.
func (s *troubleRun) other(i int, ended chan struct{}) {
	pause := time.NewTicker(4 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ended:
			return
		}
		s.mu.Lock()
		turn := s.team
		s.mu.Unlock()
		began := time.Now()
		res, body, err := s.ask(s.program, i, "GET", "/identity/whoami", "")
		took := time.Since(began)
		if err != nil || res.StatusCode != http.StatusOK {
			s.t.Errorf("team %d: %v %v %s", i, err, res, body)
			return
		}
		if turn == nobody {
			continue
		}
		s.mu.Lock()
		s.took[turn] = append(s.took[turn], took)
		s.mu.Unlock()
	}
}

// takeTurn makes 50 requests a second as a team and waits until all have ended.
func (s *troubleRun) takeTurn(team int) {
	s.setTurn(team)
	var asking sync.WaitGroup
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range turnTime / (20 * time.Millisecond) {
		<-tick.C
		asking.Go(func() {
			if res, _, err := s.ask(s.program, team, "GET", "/identity/whoami", ""); err != nil || team == healthyTeam && res.StatusCode != http.StatusOK {
				s.t.Errorf("team %d: %v %v", team, err, res)
			}
		})
	}
	s.setTurn(nobody)
	asking.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p99[team] = append(s.p99[team], percentile(s.took[team], 99).Seconds())
	s.took[team] = nil
}

func (s *troubleRun) setTurn(team int) {
	s.mu.Lock()
	s.team = team
	s.mu.Unlock()
}

// percentile returns a percentile of the durations.
func percentile(took []time.Duration, percent int) time.Duration {
	slices.Sort(took)
	return took[len(took)*percent/100]
}
