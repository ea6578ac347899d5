package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// These tests run the built program as a process, over real sockets and TLS, against the
// simulator.

var (
	renewalsFor = flag.Duration("renewals-for", 6*time.Second, "how long TestRenewalsCostNoRequestAnything asks; the figure in the docs is of 60s")
	streamed    = flag.Int64("streamed-mib", 256, "how many MiB TestStreamEitherWayTakesNoMemory sends each way; 1024 to be sure")
	revokedBody = flag.Int("revoked-body-mib", 1, "the biggest body of TestRevocationUnder100ClientsReachesNoneOfThem, in MiB; 8 to be sure")
)

func TestMain(m *testing.M) {
	suite.Parallel(4) // most of them wait
	os.Exit(program.Main(m))
}

func TestToolWithoutOAuthReachesMimecast(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	res, body := p.Must("GET", "/identity/whoami", "", "Authorization", "MC old:key", "Cookie", "a=b")
	if res.StatusCode != 200 || !strings.Contains(body, "account-codes") || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
	}
	res, body = p.Must("POST", "/api/audit/get-audit-events", `{"meta":{"pagination":{"pageSize":2}},"data":[{}]}`, "Content-Type", "application/json")
	if res.StatusCode != 200 || !strings.Contains(body, `"pagination"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	for _, r := range sim.Requests() {
		if n := len(r.Header["Authorization"]); r.Target != "/oauth/token" && (n != 1 || !strings.HasPrefix(r.Header["Authorization"][0], "Bearer ") || r.Header["Cookie"] != nil) {
			t.Errorf("%s arrived with %v", r.Target, r.Header)
		}
	}
	if sim.TokenRequests() != 1 {
		t.Errorf("%d token requests", sim.TokenRequests())
	}
	p.Stderr.Await(t, "the access line", func(text string) bool {
		return strings.Contains(text, `"path":"/identity/whoami"`) && strings.Contains(text, `"status":200`)
	})
}

func TestRenewalsCostNoRequestAnything(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const rate, slow = 200, 500 * time.Millisecond
	sim := program.Simulate(t, simulator.Options{TokenTTL: 4 * time.Second, RequestLog: 1 << 20})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: slow})
	p := program.Serve(t, sim)
	p.WatchSignals()
	began := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var asked []exchange
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for time.Since(began) < *renewalsFor {
		began := <-tick.C
		wg.Go(func() {
			res, _, err := p.Do("GET", "/identity/whoami", nil)
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
			}
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, exchange{began, time.Now()})
		})
	}
	wg.Wait()
	slices.SortFunc(asked, func(a, b exchange) int { return int(a.took() - b.took()) })
	t.Logf("%d requests, %d token requests: p50 %v, p99 %v, slowest %v", len(asked), sim.TokenRequests(), asked[len(asked)/2].took(), asked[len(asked)*99/100].took(), asked[len(asked)-1].took())
	if n := p.Metric(`mimecast_proxy_requests_total{code="200",method="GET"}`); int(n) != len(asked) {
		t.Errorf("%v requests counted, %d made", n, len(asked))
	}
	// The log shows how long requests took on this machine. A request that waited for a
	// renewal could not begin and end within it.
	renewals := 0
	for _, r := range sim.Requests() {
		if r.Target != "/oauth/token" || r.Time.Before(began) || time.Since(r.Time) < slow {
			continue
		}
		renewals++
		if !slices.ContainsFunc(asked, func(e exchange) bool { return e.began.After(r.Time) && e.ended.Before(r.Time.Add(slow)) }) {
			t.Errorf("no request passed during the renewal at %v", r.Time)
		}
	}
	if renewals == 0 {
		t.Errorf("%d token requests: no renewal was seen", sim.TokenRequests())
	}
}

// exchange has the times at which a request began and its response ended.
type exchange struct{ began, ended time.Time }

func (e exchange) took() time.Duration { return e.ended.Sub(e.began) }

func TestRevocationUnder100ClientsReachesNoneOfThem(t *testing.T) {
	for name, c := range map[string]struct {
		method, path string
		size         int
	}{
		"GET":           {"GET", "/identity/whoami", 0},
		"POST of 1 KiB": {"POST", "/_simulator/echo", 1 << 10},
		"big POST":      {"POST", "/_simulator/echo", *revokedBody << 20},
	} {
		t.Run(name, func(t *testing.T) {
			if c.size > 1<<10 {
				suite.Slow(t)
			}
			sim := program.Simulate(t, simulator.Options{})
			p := program.Serve(t, sim, "PROXY_REPLAY_MEMORY=1GiB")
			sim.RevokeTokens()
			before := sim.TokenRequests()
			body := bytes.Repeat([]byte("x"), c.size)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					res, _, err := p.Do(c.method, c.path, bytes.NewReader(body))
					if err != nil || res.StatusCode != 200 {
						t.Errorf("%v %v", res, err)
					}
				})
			}
			wg.Wait()
			if n := sim.TokenRequests() - before; n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
			if n := p.Metric(`mimecast_proxy_unauthorized_retries_total{outcome="recovered"}`); n < 1 || n > 100 {
				t.Errorf("%v recovered", n)
			}
		})
	}
}

func Test401ThatAFreshTokenDoesNotCureCostsLittle(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	p.WatchSignals()
	sim.AddFault(simulator.Fault{Path: "/api/account/get-account", Status: 401, Code: "token_verification_failed"})
	for range 50 {
		res, body := p.Must("POST", "/api/account/get-account", `{"data":[]}`)
		if res.StatusCode != 401 || !strings.Contains(body, "token_verification_failed") || res.Header.Get(problem.Header) != "" {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if n := sim.TokenRequests(); n > 3 { // one at the start, and one in 10 s
		t.Errorf("%d token requests for 50 answers of 401", n)
	}
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("elsewhere: %d", res.StatusCode)
	}
}

// upload sends a file as Mimecast's file-upload expects it.
func upload(t *testing.T, p *program.Program, content io.Reader, size int64, sum string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/api/file/file-upload", content)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Mc-Arg", fmt.Sprintf(`{"data":[{"sha256":"%s","fileSize":%d}]}`, sum, size))
	res, err := p.Client.Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Stderr.String())
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == 200 && !strings.Contains(string(body), `"fail":[]`) {
		t.Errorf("not taken whole: %s", body)
	}
	return res.StatusCode
}

func TestUploadsUnderAtAndOverTheLimitSurviveARevocation(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_REPLAY_LIMIT=64KiB")
	p.WatchSignals()
	for i, size := range []int{limit - 1, limit, limit + 1, 100 * limit} {
		content := bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4+1)[:size]
		sum := sha256.Sum256(content)
		if i > 0 {
			// The proxy keeps a token that it fetched after a 401 for 10 s, so start a new
			// proxy.
			p = program.Serve(t, sim, "PROXY_REPLAY_LIMIT=64KiB")
		}
		sim.RevokeTokens()
		// Over the limit, Expect: 100-continue lets the 401 arrive before the body.
		if status := upload(t, p, bytes.NewReader(content), int64(size), hex.EncodeToString(sum[:])); status != 200 {
			t.Errorf("%d bytes: %d", size, status)
		}
	}
}

// zeros returns a stream of n zero bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestStreamEitherWayTakesNoMemory(t *testing.T) {
	suite.Slow(t)
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	const room = 16 << 20
	size := *streamed << 20
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	p.Must("GET", "/identity/whoami", "")
	idle := p.Resident().Now

	sum := sha256.New()
	if _, err := io.Copy(sum, zeros(size)); err != nil {
		t.Fatal(err)
	}
	if status := upload(t, p, zeros(size), size, hex.EncodeToString(sum.Sum(nil))); status != 200 {
		t.Errorf("up: %d", status)
	}
	up := p.Resident().Most
	res, err := p.Client.Post(p.URL+fmt.Sprintf("/api/archive/get-file?size=%dMiB", *streamed), "application/json", strings.NewReader(`{"data":[{"id":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size {
		t.Errorf("down: %d bytes, %v", n, err)
	}
	down := p.Resident().Most
	t.Logf("resident: idle %.1f MiB; at most %.1f MiB while %d MiB went up, %.1f MiB when as much came down", program.MiB(idle), program.MiB(up), *streamed, program.MiB(down))
	if up-idle > room || down-idle > room {
		t.Errorf("more than %d bytes over idle", room)
	}
}

func TestSIGTERMLosesNoRequestInFlight(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	p.WatchSignals()
	const n = 20
	before := len(sim.Requests())
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Delay: 2 * time.Second})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if res, _, err := p.Do("GET", "/identity/whoami", nil); err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
			}
		})
	}
	program.Await(t, "all requests at Mimecast", func() bool {
		return len(sim.Requests())-before >= n || p.Metric("mimecast_proxy_requests_in_flight") == n
	})
	p.Signal(syscall.SIGTERM)
	wg.Wait()
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

func TestSecondSignalWithNothingInFlightCutsNothing(t *testing.T) {
	t.Parallel()
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_SHUTDOWN_DELAY=1m")
	p.Signal(os.Interrupt)
	p.Stderr.Await(t, "the drain", func(text string) bool { return strings.Contains(text, "draining") })
	p.Signal(os.Interrupt)
	if code := p.Exit(); code != 0 || strings.Contains(p.Stderr.String(), "cut") {
		t.Errorf("exit %d", code)
	}
}

func TestSecondSignalCutsWithAnAnswer(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	p.WatchSignals()
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Delay: time.Minute})
	answered := make(chan string, 1)
	go func() {
		res, _, err := p.Do("GET", "/identity/whoami", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- res.Header.Get(problem.Header)
	}()
	program.Await(t, "the request in flight", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 1 })
	for range 2 {
		p.Signal(syscall.SIGTERM)
		p.Stderr.Await(t, "the drain", func(text string) bool { return strings.Contains(text, "draining") })
	}
	if got := <-answered; got != "shutting_down" {
		t.Errorf("the client got %q", got)
	}
	if code := p.Exit(); code != 1 {
		t.Errorf("exit %d, though a request was cut", code)
	}
}

// Kubernetes sends SIGTERM to a sidecar after POST /quitquitquit.
func TestFirstSignalAfterQuitCutsNothing(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_QUIT_ENDPOINT=true")
	release := make(chan struct{})
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Until: release})
	answered := make(chan int, 1)
	go func() {
		res, _, err := p.Do("GET", "/identity/whoami", nil)
		if err != nil {
			answered <- 0
			return
		}
		answered <- res.StatusCode
	}()
	program.Await(t, "the request in flight", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 1 })
	quit := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + p.Admin}, "quit")
	if code := quit.Exit(); code != 0 {
		t.Fatalf("quit: exit %d\n%s", code, quit.Stderr.String())
	}
	p.Stderr.Await(t, "the drain", func(text string) bool { return strings.Contains(text, "draining") })
	p.Signal(syscall.SIGTERM)
	p.Stderr.Await(t, "the signal", func(text string) bool { return strings.Contains(text, "signal received while draining") })
	close(release)
	if got := <-answered; got != 200 {
		t.Errorf("the client got %d", got)
	}
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestTruncationStaysTruncation(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	sim.AddFault(simulator.Fault{Path: "/api/archive/get-file", Cut: simulator.CutShort, CutAfter: 10_000})
	res, err := p.Client.Post(p.URL+"/api/archive/get-file?size=100KiB", "application/json", strings.NewReader(`{"data":[{"id":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || res.StatusCode != 200 {
		t.Errorf("%d, %d bytes and no error", res.StatusCode, n)
	}
}

func TestBadConfigurationNamesEveryFaultAndExits2(t *testing.T) {
	t.Parallel()
	p := program.Start(t, []string{"MIMECAST_REGION=eu", "PROXY_LISTEN=0.0.0.0:8080", "PROXY_ALLOW=get /x"})
	if code := p.Exit(); code != 2 {
		t.Errorf("exit %d", code)
	}
	for _, name := range []string{"MIMECAST_CLIENT_ID:", "MIMECAST_CLIENT_SECRET:", "MIMECAST_REGION:", "PROXY_ALLOW"} {
		if !strings.Contains(p.Stderr.String(), name) {
			t.Errorf("%s is not named:\n%s", name, p.Stderr.String())
		}
	}
}

func TestRefusedCredentialsAreSaidAtOnceAndWithoutAStorm(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{ClientSecret: "another"})
	p := program.Start(t, program.Environ(t, sim)).AwaitServing()
	for range 100 {
		res, body := p.Must("GET", "/identity/whoami", "")
		if res.StatusCode != 502 || res.Header.Get(problem.Header) != "credentials_refused" || !strings.Contains(body, "MIMECAST_CLIENT_SECRET") {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if n := sim.TokenRequests(); n > 10 {
		t.Errorf("%d token requests", n)
	}
	p.Stderr.Await(t, "the log line", func(text string) bool { return strings.Contains(text, "InvalidClientIdentifier") })
	check := program.Start(t, program.Environ(t, sim), "check")
	if code := check.Exit(); code != 1 || !strings.Contains(check.Stdout.String(), "Mimecast rejected the client ID or the secret") {
		t.Errorf("check: exit %d\n%s", code, check.Stdout.String())
	}
}

func TestCorrectedSecretFileIsTakenUpWithoutARestart(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := slices.DeleteFunc(program.Environ(t, sim), func(v string) bool { return strings.HasPrefix(v, "MIMECAST_CLIENT_SECRET=") })
	p := program.Start(t, append(env, "MIMECAST_CLIENT_SECRET_FILE="+path))
	p.WatchSignals()
	p.AwaitServing()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 502 {
		t.Errorf("%d", res.StatusCode)
	}
	if err := os.WriteFile(path, []byte(simulator.DefaultClientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.AwaitReady()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("after the correction: %d", res.StatusCode)
	}
}

func TestDemoNeedsNothingAndFindsAnotherPort(t *testing.T) {
	t.Parallel()
	// Take port 8080. If that fails, another process has it already.
	if l, err := net.Listen("tcp", "127.0.0.1:8080"); err == nil {
		defer l.Close()
	}
	p := program.Start(t, []string{"PROXY_LOG_FORMAT=json", "PROXY_ADMIN_LISTEN=127.0.0.1:0"}, "demo")
	p.AwaitServing()
	p.Stdout.Await(t, "what to try", func(text string) bool { return strings.Contains(text, "/revoke") })
	text := p.Stdout.String()
	if !strings.Contains(text, "127.0.0.1:8080 is in use") {
		t.Errorf("no word about the port:\n%s", text)
	}
	var revoke string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 4 && strings.HasSuffix(fields[3], "/revoke") {
			revoke = fields[3]
		}
	}
	p.AwaitReady()
	res, err := p.Client.Post(revoke, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("after the revocation: %d", res.StatusCode)
	}
	p.Stderr.Await(t, "the retry in the log", func(text string) bool { return strings.Contains(text, `"retried":true`) })
	p.Signal(os.Interrupt)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

func TestPackagesFormAStar(t *testing.T) {
	t.Parallel()
	leaves := []string{"account", "event", "mimecast", "problem", "resend", "secret"}
	knowing := []string{"admin", "cgroup", "config", "simulator", "telemetry"} // import loggers, metrics or the environment
	out, err := exec.Command("go", "list", "-f", "{{.Name}} {{.ImportPath}}{{range .Deps}} {{.}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[1], "mimecast-proxy/")
		if fields[0] == "main" || name == "app" || strings.HasPrefix(name, "internal/") { // wiring and tests
			continue
		}
		checked++
		for _, dep := range fields[2:] {
			if ours, ok := strings.CutPrefix(dep, "mimecast-proxy/"); ok && !slices.Contains(leaves, ours) {
				t.Errorf("%s imports %s", name, dep)
			}
			if !slices.Contains(knowing, name) && (strings.Contains(dep, "zerolog") || strings.Contains(dep, "prometheus") || strings.Contains(dep, "caarlos0")) {
				t.Errorf("%s knows %s", name, dep)
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d packages were checked", checked)
	}
}
