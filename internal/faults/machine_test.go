package faults_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/relay"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

var machineRows = []row{
	{"the clock is set back", "200", "a renewal", "at once: the proxy renews the token and ends a pause", clockSet(-time.Hour), ""},
	{"the clock is set forward", "200, after a token request", "a renewal", "at once", clockSet(time.Hour), ""},
	{"the machine sleeps until the token has expired", "200, after a token request; no expired token is sent", "a renewal", "at once", sleepAndWake, ""},
	{"no file descriptors are left", "connected clients are served, others wait; 502 `upstream_unreachable` if none is left for Mimecast", "`too many open files` at warn", "as soon as some are free", noDescriptors, ""},
	{"64 MiB of memory and 200 uploads of 8 MiB at once", "200 for all, intact", "`replay_buffer_bytes` at most 32 MiB", "at once", littleMemory, ""},
	{"SIGTERM while requests wait for a token", "200 if the token comes in time, else 503 `shutting_down`", "`draining`; exit 0, else `requests were cut` and exit 1", "at the next start", termWaiting, ""},
	{"SIGTERM during an upload", "200, after the upload", "`draining`, `drained`; exit 0", "at the next start", termUploading, ""},
	{"SIGTERM while Mimecast works", "200", "`draining`, `drained`; exit 0", "at the next start", nil, "main.TestSIGTERMLosesNoRequestInFlight"},
	{"SIGTERM during a download", "200, the whole response", "`draining`, `drained`; exit 0", "at the next start", termDownloading, ""},
	{"SIGTERM while a request waits after a 429", "200, after the reset", "`draining`, `drained`; exit 0", "at the next start", termHeld, ""},
	{"SIGTERM, and requests that take longer than `PROXY_SHUTDOWN_TIMEOUT`", "503 `shutting_down`, or a body that ends with an error", "`requests were cut`; exit 1", "at the next start", termTooSlow, ""},
	{"a second signal", "503 `shutting_down`", "`in-flight requests cut`; exit 1", "at the next start", nil, "main.TestSecondSignalCutsWithAnAnswer"},
	{"SIGKILL", "a lost connection, never a wrong response", "none", "at the next start, at the same address", killed, ""},
	{"the port is in use", "no connection", "exit 1, with the variable and what to do", "when it is free", nil, "internal/e2e.TestPortThatIsTakenIsSaidAtTheStart"},
	{"secret file missing or empty at start", "no connection", "exit 2, with the variable and the file", "after you correct the file", secretAtStart, ""},
	{"secret file becomes a dangling link", "200; tokens are renewed with the current secret", "`file reload failed` at warn, once, with the variable and the file", "within 3 s: `file restored`", secretLost(dangling), ""},
	{"secret file becomes a directory", "200; tokens are renewed with the current secret", "`file reload failed` at warn, once, with the variable and the file", "within 3 s: `file restored`", secretLost(directory), ""},
	{"secret file becomes empty", "200; tokens are renewed with the current secret", "`file reload failed` at warn, once, with the variable and the file", "within 3 s: `file restored`", secretLost(empty), ""},
	{"secret rotated by a swap of links, as Kubernetes does it", "200 throughout", "`file reloaded`, and a token request", "within 3 s", secretSwapped, ""},
	{"nobody reads the log", "200 throughout", "`log_lines_dropped_total`", "when somebody reads it again", nil, "internal/hostile.TestLogThatNobodyReadsDelaysNoRequest"},
	{"the reader of the log closes it", "200 throughout", "none; exit 0 at the end", "at the next start", nil, "internal/hostile.TestReaderOfTheLogThatGoesAwayIsNoReasonToEnd"},
	{"SIGHUP", "200 throughout", "the proxy rereads all files", "at once", nil, "internal/hostile.TestHangupEndsNothing"},
	{"a listener fails", "no connection", "exit 1, with the error", "at the next start", nil, "internal/hostile.TestServeEndsWithAnErrorWhenAListenerFails"},
	{"128 MiB of memory, and hostile clients", "200 for others", "`/livez` and `/metrics` respond", "at once", nil, "internal/hostile.TestSidecarEndures"},
	{"256 MiB of memory, a key, and hostile clients", "200 for others", "`/livez` and `/metrics` respond", "at once", nil, "internal/hostile.TestGatewayEndures"},
}

func linuxOnly(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("limits and memory are Linux's")
	}
}

var (
	setClock = flag.Bool("set-clock", false, "run the rows that set this machine's clock; run no others with them")
	// clock is held while a test changes the machine's clock.
	clock sync.Mutex
)

// setClockBy changes the clock of the machine until the end of the test.
func setClockBy(t *testing.T, by time.Duration) {
	t.Helper()
	clock.Lock()
	began := time.Now() // its monotonic part does not change with the clock
	set := func(to time.Time) {
		at := syscall.NsecToTimeval(to.UnixNano())
		if err := syscall.Settimeofday(&at); err != nil {
			t.Error("set the clock:", err)
		}
	}
	t.Cleanup(func() {
		defer clock.Unlock()
		set(began.Add(time.Since(began)))
	})
	set(began.Add(by))
}

// clockSet has a proxy with a token, and one that pauses after a failed token request.
func clockSet(by time.Duration) func(*testing.T) {
	return func(t *testing.T) {
		if !*setClock {
			t.Skip("only with -set-clock")
		}
		w, failing := newWorld(t, simulator.Options{}), newWorld(t, simulator.Options{})
		p := w.serve(t)
		p.fine()
		failing.fault(t, "token-dead")
		pausing := begin(t, failing.environ(t)).awaitServing()
		pausing.logs("token request failed")
		program.Await(t, "a long pause", func() bool { return failing.sim.TokenRequests() >= 3 })
		failing.sim.ClearFaults()
		before := w.sim.TokenRequests()
		setClockBy(t, by)
		p.fine()
		program.Await(t, "a renewal", func() bool { return w.sim.TokenRequests() > before })
		p.isOKSoon(p.Watcher())
		pausing.isOKSoon(pausing.Watcher())
	}
}

func sleepAndWake(t *testing.T) {
	suite.Slow(t)
	linuxOnly(t)
	w := newWorld(t, simulator.Options{TokenTTL: 4 * time.Second})
	p := spawn(t, w.environ(t), "").awaitServing().awaitReady()
	p.fine()
	before := w.sim.Counts().Statuses[401]
	expiry := p.Metric("mimecast_proxy_token_expiry_timestamp_seconds")
	p.Signal(syscall.SIGSTOP)
	program.Await(t, "the token's end", func() bool { return float64(time.Now().Unix()) > expiry+1 })
	w.sim.SetTokenTTL(time.Hour) // only tokens issued before this can be expired
	p.Signal(syscall.SIGCONT)
	p.fine()
	if n := w.sim.Counts().Statuses[401]; n != before {
		t.Errorf("%d dead tokens were sent", n-before)
	}
	p.isOKSoon(p.Watcher())
}

func noDescriptors(t *testing.T) {
	suite.Slow(t)
	linuxOnly(t)
	const most = 48
	w := newWorld(t, simulator.Options{})
	p := spawn(t, w.environ(t), fmt.Sprintf("ulimit -n %d;", most)).awaitServing().awaitReady()
	p.fine() // opens a connection to the proxy and one to Mimecast
	signals := p.KeptWatcher()
	p.agreed(signals) // opens a connection to the admin listener
	crowd := make([]net.Conn, most)
	for i := range crowd {
		crowd[i] = p.raw("GET /identity/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	p.logs("accept", "too many open files", `"level":"warn"`)
	p.fine()
	w.relay.Inject(relay.Reset)
	// The reset may free a descriptor, which a waiting client may then take.
	program.Await(t, "502", func() bool {
		a := p.whoami()
		w.relay.Inject(relay.Reset)
		return a.status == 502 && a.code == "upstream_unreachable" && strings.Contains(a.body, "file descriptor")
	})
	p.agreed(signals)
	for _, c := range crowd[:most/2] {
		c.Close()
	}
	for _, c := range crowd[most/2:] {
		if a := p.read(reader(c), "GET"); a.err != nil || a.status != 200 && a.status != 502 {
			t.Errorf("%v", a)
		}
		c.Close()
	}
	program.Await(t, "the recovery", func() bool { return p.whoami().status == 200 })
	p.isOKSoon(signals)
}

func littleMemory(t *testing.T) {
	suite.Slow(t)
	linuxOnly(t)
	const size = 8 << 20
	uploads := share(200) // of 8 MiB; by default a quarter, which is 400 MiB
	w := newWorld(t, simulator.Options{RequestLog: -1})
	cgroup, err := program.LimitMemory(t, 64<<20)
	enter, usage := "", func() string { return err.Error() }
	if err == nil {
		enter, usage = cgroup.Enter(), cgroup.String
	}
	p := spawn(t, w.environ(t, "GOMEMLIMIT=64MiB"), enter).awaitServing().awaitReady()
	content := make([]byte, size)
	_, _ = simulator.Content("upload").ReadAt(content, 0)
	hash := sum(content)
	watching, stop := context.WithCancel(t.Context())
	var kept, busy atomic.Int64
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ; watching.Err() == nil; time.Sleep(5 * time.Millisecond) {
			kept.Store(max(kept.Load(), int64(p.Metric("mimecast_proxy_replay_buffer_bytes"))))
			busy.Store(max(busy.Load(), int64(p.Metric("mimecast_proxy_requests_in_flight"))))
		}
	}()
	// All uploads begin before the first one ends.
	var begun, all sync.WaitGroup
	begun.Add(uploads)
	for range uploads {
		all.Go(func() {
			half := &gated{r: bytes.NewReader(content), left: size / 2, open: &begun}
			a := p.do(t.Context(), "POST", "/api/file/file-upload", half, "Content-Type", "application/octet-stream",
				"X-Mc-Arg", fmt.Sprintf(`{"data":[{"sha256":%q,"fileSize":%d}]}`, hash, size))
			if a.status != 200 || !strings.Contains(a.body, `"fail":[]`) {
				t.Errorf("%v", a)
			}
		})
	}
	all.Wait()
	stop()
	<-watched
	peak := p.Resident().Most
	t.Logf("%d at once, %.1f MiB kept at most, %.1f MiB resident at most; %s", busy.Load(), program.MiB(kept.Load()), program.MiB(peak), usage())
	if kept.Load() > 32<<20 || kept.Load() == 0 {
		t.Errorf("%d bytes were kept", kept.Load())
	}
	if peak > 96<<20 {
		t.Errorf("%.1f MiB were resident", program.MiB(peak))
	}
	p.fine()
	p.isOKSoon(p.Watcher())
}

// gated is a body whose first part is sent at once. The rest follows when all other
// bodies have sent their first part.
type gated struct {
	r    io.Reader
	left int
	open *sync.WaitGroup
	once sync.Once
}

func (g *gated) Read(b []byte) (int, error) {
	if g.left <= 0 {
		g.once.Do(g.open.Done)
		g.open.Wait()
		return g.r.Read(b)
	}
	n, err := g.r.Read(b[:min(len(b), g.left)])
	g.left -= n
	return n, err
}

// drains sends SIGTERM and checks that the program logs the drain.
func (p *proxy) drains() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.logs(`"msg":"draining"`)
}

func (p *proxy) exits(code int, last string) {
	p.t.Helper()
	if got := p.Exit(); got != code {
		p.t.Errorf("exit %d, want %d", got, code)
	}
	p.logs(last)
}

func termWaiting(t *testing.T) {
	for _, comes := range []bool{true, false} {
		w := newWorld(t, simulator.Options{})
		token := make(chan struct{})
		w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Until: token})
		timeout := "300ms"
		if comes {
			timeout = "1m"
		}
		p := begin(t, w.environ(t, "PROXY_SHUTDOWN_TIMEOUT="+timeout)).awaitServing()
		answered := make(chan answer, 1)
		go func() { answered <- p.whoami() }()
		p.counts("requests_in_flight", 1)
		p.drains()
		if comes {
			close(token)
			p.says(<-answered, 200, "")
			p.exits(0, `"msg":"drained"`)
		} else {
			p.says(<-answered, http.StatusServiceUnavailable, "shutting_down")
			p.exits(1, "requests were cut")
		}
	}
}

func termUploading(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB")
	const size = 1 << 20
	c := p.raw(fmt.Sprintf("POST /_simulator/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", size))
	if _, err := io.CopyN(c, zero{}, size/2); err != nil {
		t.Fatal(err)
	}
	p.counts("requests_in_flight", 1)
	p.drains()
	if _, err := io.CopyN(c, zero{}, size/2); err != nil {
		t.Fatal(err)
	}
	if a := p.read(reader(c), "POST"); a.status != 200 || a.err != nil || !strings.Contains(a.body, sum(make([]byte, size))) {
		t.Errorf("%v", a)
	}
	p.exits(0, `"msg":"drained"`)
}

func termDownloading(t *testing.T) {
	const size = 16 << 20
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	res, err := p.Client.Post(fmt.Sprintf("%s/api/archive/get-file?id=last&size=%d", p.URL, size), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p.drains()
	if n, err := simulator.Content("last").Check(res.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	p.exits(0, `"msg":"drained"`)
}

func termHeld(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1m")
	w.sim.AddFault(simulator.Fault{Path: "/identity/", Status: 429, Header: map[string]string{"Retry-After": "2", "X-RateLimit-Limit": "7", "X-RateLimit-Remaining": "0"}, Count: 1})
	answered := make(chan answer, 1)
	go func() { answered <- p.whoami() }()
	p.counts("rate_limit_limit", 7)
	p.drains()
	p.says(<-answered, 200, "")
	p.exits(0, `"msg":"drained"`)
}

func termTooSlow(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_SHUTDOWN_TIMEOUT=300ms")
	w.fault(t, "hang", at("/identity/"))
	answered := make(chan answer, 1)
	go func() { answered <- p.whoami() }()
	download := make(chan answer, 1)
	w.sim.AddFault(simulator.Fault{Path: "/api/archive/", Pace: 50 * time.Millisecond})
	go func() { download <- p.post("/api/archive/get-file?id=x&size=100MiB", "") }()
	p.counts("requests_in_flight", 2)
	program.Await(t, "the download's beginning", func() bool { return w.sim.Counts().Statuses[200] >= 2 }) // the token and the download
	p.drains()
	p.says(<-answered, http.StatusServiceUnavailable, "shutting_down")
	if a := <-download; a.err == nil && a.status == 200 {
		t.Errorf("%d bytes look whole", len(a.body))
	}
	p.exits(1, "requests were cut")
}

func killed(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	address, _ := closedPort(t)
	environ := w.environ(t, "PROXY_LISTEN="+address)
	p := spawn(t, environ, "").awaitServing().awaitReady()
	w.sim.AddFault(simulator.Fault{Path: "/api/archive/", Pace: 50 * time.Millisecond})
	download := make(chan answer, 1)
	go func() { download <- p.post("/api/archive/get-file?id=x&size=100MiB", "") }()
	p.counts("requests_in_flight", 1)
	p.Signal(syscall.SIGKILL)
	if a := <-download; a.err == nil {
		t.Errorf("%d, and %d bytes that look whole", a.status, len(a.body))
	}
	p.Exit()
	w.sim.ClearFaults()
	p = spawn(t, environ, "").awaitServing().awaitReady()
	p.fine()
	p.isOKSoon(p.Watcher())
}

func secretAtStart(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	for _, spoil := range []func(*testing.T, string){dangling, directory, empty} {
		path := filepath.Join(t.TempDir(), "client-secret")
		spoil(t, path)
		p := begin(t, w.environ(t, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path))
		p.exits(2, "MIMECAST_CLIENT_SECRET_FILE")
		if !strings.Contains(p.Stderr.String(), path) {
			t.Errorf("the file is not named:\n%s", p.Stderr.String())
		}
	}
}

func dangling(t *testing.T, path string) {
	t.Helper()
	if err := os.Symlink("/nowhere/at/all", path); err != nil {
		t.Fatal(err)
	}
}

func directory(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, path string) { t.Helper(); put(t, path, "") }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secretLost damages the secret's file while the program runs, and then restores it.
func secretLost(spoil func(*testing.T, string)) func(*testing.T) {
	return func(t *testing.T) {
		suite.Slow(t)
		w := newWorld(t, simulator.Options{TokenTTL: 4 * time.Second})
		path := filepath.Join(t.TempDir(), "client-secret")
		put(t, path, simulator.DefaultClientSecret)
		p := w.serve(t, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)
		p.fine()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		spoil(t, path)
		p.renews(w, 2)
		p.logs(`"level":"warn"`, "MIMECAST_CLIENT_SECRET_FILE", path)
		if n := p.warnings(path); n != 1 {
			t.Errorf("%d warnings", n)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		// Later tokens outlive the test, so only the file can cause a renewal.
		w.sim.SetTokenTTL(time.Hour)
		p.renews(w, 1)
		w.sim.SetCredentials(simulator.DefaultClientID, "another")
		put(t, path, "another")
		p.renews(w, 1)
	}
}

// renews checks that every request gets a response until n more renewals have happened.
func (p *proxy) renews(w *world, n int) {
	p.t.Helper()
	before := w.sim.TokenRequests()
	program.Await(p.t, "renewals", func() bool {
		if a := p.whoami(); a.status != http.StatusOK && a.status != http.StatusUnauthorized { // a short-lived token may expire in transit
			p.t.Fatalf("%v", a)
		}
		return w.sim.TokenRequests() >= before+n
	})
}

// warnings returns the number of log lines at level warn that contain text.
func (p *proxy) warnings(text string) (n int) {
	for line := range strings.Lines(p.Stderr.String()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// secretSwapped replaces the secret as a kubelet does. The file is a link into ..data.
// This is a link to a dated directory and is replaced by a rename. Tokens outlive the
// test, so only the swap causes the renewals.
func secretSwapped(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	dir := t.TempDir()
	version := func(n int, secret string) {
		name := fmt.Sprintf("..2024_01_%02d", n)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name, "client-secret"), secret)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2024_01_%02d", n-1))); err != nil {
			t.Fatal(err)
		}
	}
	version(1, simulator.DefaultClientSecret)
	path := filepath.Join(dir, "client-secret")
	if err := os.Symlink("..data/client-secret", path); err != nil {
		t.Fatal(err)
	}
	p := w.serve(t, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)
	for n := 2; n <= 3; n++ {
		secret := fmt.Sprintf("rotated-%d", n)
		w.sim.SetCredentials(simulator.DefaultClientID, secret)
		version(n, secret)
		// The token request counts before its secret is checked, so wait for its outcome.
		program.Await(t, "a renewal", func() bool {
			p.fine()
			return strings.Count(p.Stderr.String(), `"token renewed"`) == n
		})
	}
	p.logs("file reloaded", "MIMECAST_CLIENT_SECRET_FILE")
	if strings.Contains(p.Stderr.String(), "token request failed") {
		t.Error("a renewal failed")
	}
}
