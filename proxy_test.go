package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/config"
	built "mimecast-proxy/internal/program"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// These tests run the built program as a process, over real sockets and TLS,
// in front of the simulator.

var renewalsFor = flag.Duration("renewals-for", 6*time.Second, "how long TestRenewalsCostNoRequestAnything asks; the figure in the docs is of 60s")

func TestMain(m *testing.M) {
	if os.Getenv("TEST_CHILD") != "" {
		os.Exit(child())
	}
	os.Exit(built.Main(m))
}

// program is the proxy as a process.
type program struct {
	t          *testing.T
	cmd        *exec.Cmd
	stdout     built.Output
	stderr     built.Output
	url, admin string
	client     *http.Client
	ended      chan struct{}
}

// start runs the program and does not wait for anything.
func start(t *testing.T, environ []string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(built.Binary(), args...)
	cmd.Env = environ
	return startCommand(t, cmd)
}

func startCommand(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.ended); _ = p.cmd.Wait() }() // the state tells how it ended
	t.Cleanup(p.cleanUp)
	p.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// bearer matches a token that got into a text.
var bearer = regexp.MustCompile(`Bearer [A-Za-z0-9._~+/-]{16,}`)

func (p *program) cleanUp() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Kill() // it has most often ended by now
	<-p.ended
	if all := p.stdout.String() + p.stderr.String(); strings.Contains(all, simulator.DefaultClientSecret) || bearer.MatchString(all) {
		p.t.Errorf("a secret was printed:\n%s", all)
	}
	if strings.Contains(p.stderr.String(), "panic:") {
		p.t.Errorf("it panicked:\n%s", p.stderr.String())
	}
}

// serve runs the proxy until it is ready.
func serve(t *testing.T, sim *simulator.Server, more ...string) *program {
	t.Helper()
	p := start(t, built.Environ(t, sim, more...))
	p.awaitServing()
	p.awaitReady()
	return p
}

func (p *program) awaitServing() {
	p.t.Helper()
	p.stderr.Await(p.t, "the line that says where it serves", func(text string) bool {
		for line := range strings.Lines(text) {
			var said struct{ Msg, Message, Listen, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Listen != "" {
				p.url, p.admin = "http://"+said.Listen, "http://"+said.Admin
				return true
			}
		}
		return false
	})
}

func (p *program) awaitReady() {
	p.t.Helper()
	healthcheck := exec.Command(built.Binary(), "healthcheck", "--wait", built.Patience.String())
	healthcheck.Env = []string{"PROXY_ADMIN_LISTEN=" + strings.TrimPrefix(p.admin, "http://")}
	if out, err := healthcheck.CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s\n%s", err, out, p.stderr.String())
	}
}

// exit waits until the program has ended and returns its code.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(built.Patience):
		p.t.Fatalf("it does not end:\n%s", p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *program) do(method, path string, body io.Reader, header ...string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return res, got, err
}

func (p *program) must(method, path, body string, header ...string) (*http.Response, string) {
	p.t.Helper()
	res, got, err := p.do(method, path, strings.NewReader(body), header...)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.stderr.String())
	}
	return res, string(got)
}

// metric returns the value of one sample of /metrics.
func (p *program) metric(sample string) float64 {
	p.t.Helper()
	res, err := p.client.Get(p.admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	return built.Sample(p.t, res.Body, sample)
}

func TestToolWithoutOAuthReachesMimecast(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	res, body := p.must("GET", "/identity/whoami", "", "Authorization", "MC old:key", "Cookie", "a=b")
	if res.StatusCode != 200 || !strings.Contains(body, "account-codes") || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
	}
	res, body = p.must("POST", "/api/audit/get-audit-events", `{"meta":{"pagination":{"pageSize":2}},"data":[{}]}`, "Content-Type", "application/json")
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
	p.stderr.Await(t, "the access line", func(text string) bool {
		return strings.Contains(text, `"path":"/identity/whoami"`) && strings.Contains(text, `"status":200`)
	})
}

func TestRenewalsCostNoRequestAnything(t *testing.T) {
	const rate, slow = 200, 500 * time.Millisecond
	sim := built.Simulate(t, simulator.Options{TokenTTL: 4 * time.Second})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: slow})
	p := serve(t, sim)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for end := time.Now().Add(*renewalsFor); time.Now().Before(end); {
		began := <-tick.C
		wg.Go(func() {
			res, _, err := p.do("GET", "/identity/whoami", nil)
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
	}
	wg.Wait()
	slices.Sort(took)
	t.Logf("%d requests, %d token requests: p50 %v, p99 %v, slowest %v", len(took), sim.TokenRequests(), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	if n := sim.TokenRequests(); n < 2 {
		t.Errorf("%d token requests: no renewal was seen", n)
	}
	// A request that waits for a token waits for as long as the endpoint takes.
	// How many were slow on this machine is in the log; that none waited is
	// what the proxy itself counts.
	if n := p.metric(`mimecast_proxy_requests_total{code="200",method="GET"}`); int(n) != len(took) {
		t.Errorf("%v requests counted, %d made", n, len(took))
	}
	if late := len(took) - len(slices.DeleteFunc(slices.Clone(took), func(d time.Duration) bool { return d >= slow })); late > len(took)/100 {
		t.Errorf("%d of %d requests took as long as the token endpoint does", late, len(took))
	}
}

func TestRevocationUnder100ClientsReachesNoneOfThem(t *testing.T) {
	for name, c := range map[string]struct {
		method, path string
		size         int
	}{
		"GET":           {"GET", "/identity/whoami", 0},
		"POST of 1 KiB": {"POST", "/_simulator/echo", 1 << 10},
		"POST of 8 MiB": {"POST", "/_simulator/echo", 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			sim := built.Simulate(t, simulator.Options{})
			p := serve(t, sim, "PROXY_REPLAY_MEMORY=1GiB")
			sim.RevokeTokens()
			before := sim.TokenRequests()
			body := bytes.Repeat([]byte("x"), c.size)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					res, _, err := p.do(c.method, c.path, bytes.NewReader(body))
					if err != nil || res.StatusCode != 200 {
						t.Errorf("%v %v", res, err)
					}
				})
			}
			wg.Wait()
			if n := sim.TokenRequests() - before; n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
			if n := p.metric(`mimecast_proxy_unauthorized_retries_total{outcome="recovered"}`); n < 1 || n > 100 {
				t.Errorf("%v recovered", n)
			}
		})
	}
}

func Test401ThatAFreshTokenDoesNotCureCostsLittle(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	sim.AddFault(simulator.Fault{Path: "/api/account/get-account", Status: 401, Code: "token_verification_failed"})
	for range 50 {
		res, body := p.must("POST", "/api/account/get-account", `{"data":[]}`)
		if res.StatusCode != 401 || !strings.Contains(body, "token_verification_failed") || res.Header.Get(problem.Header) != "" {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if n := sim.TokenRequests(); n > 3 { // the first, and one in 10 s
		t.Errorf("%d token requests for 50 answers of 401", n)
	}
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("elsewhere: %d", res.StatusCode)
	}
}

// upload sends a file as file-upload wants it.
func (p *program) upload(t *testing.T, content io.Reader, size int64, sum string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.url+"/api/file/file-upload", content)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Mc-Arg", fmt.Sprintf(`{"data":[{"sha256":"%s","fileSize":%d}]}`, sum, size))
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.stderr.String())
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
	const limit = 64 << 10
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim, "PROXY_REPLAY_LIMIT=64KiB")
	for i, size := range []int{limit - 1, limit, limit + 1, 100 * limit} {
		content := bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4+1)[:size]
		sum := sha256.Sum256(content)
		if i > 0 {
			// A token that was fetched for a 401 is left in place for 10 s.
			p = serve(t, sim, "PROXY_REPLAY_LIMIT=64KiB")
		}
		sim.RevokeTokens()
		// Over the limit Expect: 100-continue lets the 401 come in time.
		if status := p.upload(t, bytes.NewReader(content), int64(size), hex.EncodeToString(sum[:])); status != 200 {
			t.Errorf("%d bytes: %d", size, status)
		}
	}
}

// zeros is a stream of so many zeros.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// resident returns the resident memory of the process now and at its most, in
// bytes.
func (p *program) resident(t *testing.T) (now, most int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			most = kib << 10
		}
	}
	return now, most
}

func TestOneGiBEitherWayTakesNoMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	const size, room = 1 << 30, 16 << 20
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	p.must("GET", "/identity/whoami", "")
	idle, _ := p.resident(t)

	sum := sha256.New()
	if _, err := io.Copy(sum, zeros(size)); err != nil {
		t.Fatal(err)
	}
	if status := p.upload(t, zeros(size), size, hex.EncodeToString(sum.Sum(nil))); status != 200 {
		t.Errorf("up: %d", status)
	}
	_, up := p.resident(t)
	res, err := p.client.Post(p.url+"/api/archive/get-file?size=1GiB", "application/json", strings.NewReader(`{"data":[{"id":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size {
		t.Errorf("down: %d bytes, %v", n, err)
	}
	_, down := p.resident(t)
	t.Logf("resident: idle %.1f MiB; at most %.1f MiB while 1 GiB went up, %.1f MiB when another came down", mib(idle), mib(up), mib(down))
	if up-idle > room || down-idle > room {
		t.Errorf("more than %d bytes over idle", room)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func TestSIGTERMLosesNoRequestInFlight(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	const n = 20
	before := len(sim.Requests())
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Delay: 2 * time.Second})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if res, _, err := p.do("GET", "/identity/whoami", nil); err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
			}
		})
	}
	await(t, "all requests at Mimecast", func() bool {
		return len(sim.Requests())-before >= n || p.metric("mimecast_proxy_requests_in_flight") == n
	})
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
}

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(built.Patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v", what, built.Patience)
		}
	}
}

func TestSecondSignalCutsWithAnAnswer(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Delay: time.Minute})
	answered := make(chan string, 1)
	go func() {
		res, _, err := p.do("GET", "/identity/whoami", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- res.Header.Get(problem.Header)
	}()
	await(t, "the request in flight", func() bool { return p.metric("mimecast_proxy_requests_in_flight") == 1 })
	for range 2 {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.stderr.Await(t, "the drain", func(text string) bool { return strings.Contains(text, "draining") })
	}
	if got := <-answered; got != "shutting_down" {
		t.Errorf("the client got %q", got)
	}
	if code := p.exit(); code != 1 {
		t.Errorf("exit %d, though a request was cut", code)
	}
}

func TestTruncationStaysTruncation(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim)
	sim.AddFault(simulator.Fault{Path: "/api/archive/get-file", Cut: simulator.CutShort, CutAfter: 10_000})
	res, err := p.client.Post(p.url+"/api/archive/get-file?size=100KiB", "application/json", strings.NewReader(`{"data":[{"id":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || res.StatusCode != 200 {
		t.Errorf("%d, %d bytes and no error", res.StatusCode, n)
	}
}

func TestBadConfigurationNamesEveryFaultAndExits2(t *testing.T) {
	p := start(t, []string{"MIMECAST_REGION=eu", "PROXY_LISTEN=0.0.0.0:8080", "PROXY_ALLOW=get /x"})
	if code := p.exit(); code != 2 {
		t.Errorf("exit %d", code)
	}
	for _, name := range []string{"MIMECAST_CLIENT_ID:", "MIMECAST_CLIENT_SECRET:", "MIMECAST_REGION:", "PROXY_ALLOW"} {
		if !strings.Contains(p.stderr.String(), name) {
			t.Errorf("%s is not named:\n%s", name, p.stderr.String())
		}
	}
}

func TestRefusedCredentialsAreSaidAtOnceAndWithoutAStorm(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{ClientSecret: "another"})
	p := start(t, built.Environ(t, sim))
	p.awaitServing()
	for range 100 {
		res, body := p.must("GET", "/identity/whoami", "")
		if res.StatusCode != 502 || res.Header.Get(problem.Header) != "credentials_refused" || !strings.Contains(body, "MIMECAST_CLIENT_SECRET") {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if n := sim.TokenRequests(); n > 10 {
		t.Errorf("%d token requests", n)
	}
	p.stderr.Await(t, "the log line", func(text string) bool { return strings.Contains(text, "InvalidClientIdentifier") })
	check := start(t, built.Environ(t, sim), "check")
	if code := check.exit(); code != 1 || !strings.Contains(check.stdout.String(), "Mimecast rejected the client ID or the secret") {
		t.Errorf("check: exit %d\n%s", code, check.stdout.String())
	}
}

func TestCorrectedSecretFileIsTakenUpWithoutARestart(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := slices.DeleteFunc(built.Environ(t, sim), func(v string) bool { return strings.HasPrefix(v, "MIMECAST_CLIENT_SECRET=") })
	p := start(t, append(env, "MIMECAST_CLIENT_SECRET_FILE="+path))
	p.awaitServing()
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 502 {
		t.Errorf("%d", res.StatusCode)
	}
	if err := os.WriteFile(path, []byte(simulator.DefaultClientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.awaitReady()
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("after the correction: %d", res.StatusCode)
	}
}

func TestCheckPassesStepByStep(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := start(t, built.Environ(t, sim), "check", "--json")
	var report struct {
		OK    bool
		Steps []struct {
			Step string
			OK   bool
		}
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d\n%s%s", code, p.stdout.String(), p.stderr.String())
	}
	if err := json.Unmarshal([]byte(p.stdout.String()), &report); err != nil || !report.OK || len(report.Steps) != 5 {
		t.Errorf("%v\n%s", err, p.stdout.String())
	}
}

func TestDemoNeedsNothingAndFindsAnotherPort(t *testing.T) {
	// Take 8080 where it is free; where it is not, somebody else has.
	if l, err := net.Listen("tcp", "127.0.0.1:8080"); err == nil {
		defer l.Close()
	}
	p := start(t, []string{"PROXY_LOG_FORMAT=json", "PROXY_ADMIN_LISTEN=127.0.0.1:0"}, "demo")
	p.awaitServing()
	p.stdout.Await(t, "what to try", func(text string) bool { return strings.Contains(text, "/revoke") })
	text := p.stdout.String()
	if !strings.Contains(text, "127.0.0.1:8080 is taken") {
		t.Errorf("no word about the port:\n%s", text)
	}
	var revoke string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 4 && strings.HasSuffix(fields[3], "/revoke") {
			revoke = fields[3]
		}
	}
	p.awaitReady()
	res, err := p.client.Post(revoke, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("after the revocation: %d", res.StatusCode)
	}
	p.stderr.Await(t, "the retry in the log", func(text string) bool { return strings.Contains(text, `"retried":true`) })
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
}

// child is the command that TestRunLendsACommandTheProxy runs.
func child() int {
	base := os.Getenv("MIMECAST_BASE_URL")
	if os.Getenv("TEST_CHILD") == "sleep" {
		fmt.Println("sleeping")
		time.Sleep(time.Minute)
	}
	if os.Getenv("TEST_CHILD") == "environ" {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return 0
	}
	res, err := http.Get(base + "/identity/whoami")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer res.Body.Close()
	fmt.Println(res.StatusCode, base == os.Getenv("MIMECAST_PROXY_URL"), os.Getenv("MIMECAST_CLIENT_ID")+os.Getenv("MIMECAST_CLIENT_SECRET"), os.Args[1:])
	return 7
}

func TestRunLendsACommandTheProxy(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := start(t, built.Environ(t, sim, "TEST_CHILD=1"), "run", "--", os.Args[0], "--flag", "arg")
	if code := p.exit(); code != 7 || p.stdout.String() != "200 true  [--flag arg]\n" {
		t.Errorf("exit %d\n%s%s", code, p.stdout.String(), p.stderr.String())
	}
	p = start(t, built.Environ(t, sim, "TEST_CHILD=sleep"), "run", "--", os.Args[0])
	p.stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "sleeping") })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit %d after SIGTERM", code)
	}
	for argv, want := range map[string]int{"/nowhere/command": 127, t.TempDir(): 126} {
		if code := start(t, built.Environ(t, sim), "run", "--", argv).exit(); code != want {
			t.Errorf("%s: exit %d, want %d", argv, code, want)
		}
	}
}

func TestPortThatIsTakenIsSaidAtTheStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sim := built.Simulate(t, simulator.Options{})
	p := start(t, built.Environ(t, sim, "PROXY_LISTEN="+l.Addr().String()))
	if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), "taken by another program") {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
}

func TestSocketIsPrivateAndAStaleOneReplaced(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // a socket's path is bounded to about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "p.sock")
	sim := built.Simulate(t, simulator.Options{})
	for range 2 {
		p := serve(t, sim, "PROXY_LISTEN=unix:"+path)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		p.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}
		p.url = "http://any.name"
		if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
		// A second proxy leaves the socket of a living one alone.
		other := start(t, built.Environ(t, sim, "PROXY_LISTEN=unix:"+path))
		if code := other.exit(); code != 1 || !strings.Contains(other.stderr.String(), "another process listens there") {
			t.Errorf("exit %d\n%s", code, other.stderr.String())
		}
		_ = p.cmd.Process.Kill() // leaves the socket behind
		<-p.ended
	}
}

func TestQuitVersionHelpAndUsage(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := serve(t, sim, "PROXY_QUIT_ENDPOINT=true")
	quit := start(t, []string{"PROXY_ADMIN_LISTEN=" + strings.TrimPrefix(p.admin, "http://")}, "quit")
	if code := quit.exit(); code != 0 {
		t.Errorf("quit: exit %d\n%s", code, quit.stderr.String())
	}
	if code := p.exit(); code != 0 {
		t.Errorf("after quit: exit %d\n%s", code, p.stderr.String())
	}
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"version": {0, runtime.Version()}, "help": {0, "MIMECAST_CLIENT_SECRET_FILE"}, "--help": {0, "PROXY_RATE_LIMIT_WAIT"},
		"healthcheck": {1, "is it running"}, "nonsense": {2, "unknown command"}, "check --nonsense": {2, "unknown flag"}, "run": {2, "run needs a command"},
	} {
		p := start(t, []string{"PROXY_ADMIN_LISTEN=127.0.0.1:1"}, strings.Fields(args)...)
		if code := p.exit(); code != want.code || !strings.Contains(p.stdout.String()+p.stderr.String(), want.says) {
			t.Errorf("%s: exit %d\n%s%s", args, code, p.stdout.String(), p.stderr.String())
		}
	}
}

func TestREADMEHasTheVariables(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), config.Markdown()) {
		t.Errorf("README.md does not have this table:\n%s", config.Markdown())
	}
}

func TestPackagesFormAStar(t *testing.T) {
	leaves := []string{"mimecast-proxy/account", "mimecast-proxy/event", "mimecast-proxy/mimecast", "mimecast-proxy/problem", "mimecast-proxy/secret"}
	ignorant := []string{"account", "event", "guard", "mimecast", "problem", "proxy", "secret", "server", "token", "upstream"}
	for _, name := range append([]string{"admin", "cgroup", "config", "simulator", "telemetry"}, ignorant...) {
		out, err := exec.Command("go", "list", "-deps", "./"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			ours := strings.HasPrefix(dep, "mimecast-proxy/") && dep != "mimecast-proxy/"+name
			if ours && !slices.Contains(leaves, dep) {
				t.Errorf("%s imports %s", name, dep)
			}
			if slices.Contains(ignorant, name) && (strings.Contains(dep, "zerolog") || strings.Contains(dep, "prometheus") || strings.Contains(dep, "caarlos0")) {
				t.Errorf("%s knows %s", name, dep)
			}
		}
	}
}
