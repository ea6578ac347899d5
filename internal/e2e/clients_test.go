//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

var clientRequests = flag.Int("client-requests", 2000, "how many requests TestClientsCountAsTheyDo sends; 20000 to be sure")

// claimed is a name that clients put in every part of a request that can contain one.
const claimed = "claimed-name-7c1f"

// caller is a client in the clients file.
type caller struct {
	name   string
	keys   []string
	tokens []string // from the token stub, by key
	allow  string
}

// clientsFolder contains a clients file that changes as the kubelet changes a Secret:
// ..data is a link to another folder.
type clientsFolder struct {
	path    string
	version int
}

func (f *clientsFolder) file() string { return filepath.Join(f.path, "clients.yaml") }

// replace replaces all files.
func (f *clientsFolder) replace(t *testing.T, files map[string]string) {
	t.Helper()
	f.version++
	version := fmt.Sprintf("..version%d", f.version)
	if err := os.Mkdir(filepath.Join(f.path, version), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(f.path, version, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(f.path, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(version, filepath.Join(f.path, "..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(f.path, "..new"), filepath.Join(f.path, "..data")); err != nil {
		t.Fatal(err)
	}
}

func sha256Of(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// twentyCallers returns twenty clients and the files that define them.
func twentyCallers() (callers []*caller, files map[string]string) {
	files = map[string]string{}
	var text strings.Builder
	text.WriteString("clients:\n")
	for i := range 20 {
		c := &caller{name: fmt.Sprintf("tool-%d", i)}
		for n := range 2 {
			c.keys = append(c.keys, fmt.Sprintf("key-%d-of-tool-%d-0123456789", n, i))
		}
		keys := fmt.Sprintf("{file: key%d}", i)
		switch i % 3 {
		case 0:
			files[fmt.Sprintf("key%d", i)] = strings.Join(c.keys, "\n") + "\n"
		case 1:
			files[fmt.Sprintf("key%d", i)] = c.keys[0] + "\n"
			keys += ", {sha256: " + sha256Of(c.keys[1]) + "}"
		default:
			keys = "{sha256: " + sha256Of(c.keys[0]) + "}, {sha256: " + sha256Of(c.keys[1]) + "}"
		}
		_, _ = fmt.Fprintf(&text, "  %s: {keys: [%s]", c.name, keys)
		if i%4 == 1 {
			c.allow = "@siem"
			text.WriteString(`, allow: ["@siem"]`)
		}
		if i%5 == 2 {
			text.WriteString(", max_requests: 1")
		}
		text.WriteString("}\n")
		callers = append(callers, c)
	}
	files["clients.yaml"] = text.String()
	return callers, files
}

// clientTally counts what clients see.
type clientTally struct {
	metrics tally
	mu      sync.Mutex
	// clients has all requests by client, and refused the rejected ones. lines has the
	// other requests by client and status, and denied the rejected ones by status.
	clients map[string]uint64
	lines   map[string]int
	denied  map[int]int
	refused map[string]uint64
}

func (c *clientTally) count(name string, status int, code string) {
	if name != "" {
		c.metrics.add("client_requests_total", "client", name, "code", strconv.Itoa(status))
		if code != "" {
			c.metrics.add("client_denied_total", "client", name, "reason", code)
		}
	}
	if code != "" {
		c.metrics.add("requests_denied_total", "reason", code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != "" {
		c.clients[name]++
	}
	if code == "" {
		c.lines[fmt.Sprint(name, " ", status)]++
		return
	}
	c.denied[status]++
	if name != "" {
		c.refused[name]++
	}
}

// request returns a random request of the client that claims other names.
func (c *caller) request(t *testing.T, r *rand.Rand, base string) (*http.Request, string) {
	t.Helper()
	name, key, path, method := c.name, r.IntN(len(c.keys)), "/identity/whoami", http.MethodGet
	if c.allow != "" && r.IntN(4) > 0 || r.IntN(4) == 0 {
		path = "/siem/v1/events/cg"
	}
	var body io.Reader
	kind := r.IntN(20)
	if kind == 0 {
		method, path = http.MethodPost, "/oauth/token"
		body = strings.NewReader(url.Values{"client_id": {claimed}, "client_secret": {c.keys[key]}, "name": {claimed}}.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path+"?types=receipt&client="+claimed, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"X-Client", "X-Client-Id", "X-Proxy-Client", "X-Forwarded-User", "X-Mc-Accountcode", "Cookie", "User-Agent"} {
		req.Header.Set(header, claimed)
	}
	switch form := r.IntN(4); {
	case kind == 0:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case kind == 1:
		name = ""
		req.SetBasicAuth(c.name, claimed+"-0123456789")
	case kind == 2:
		name = ""
		req.Header.Set("X-Proxy-Key", c.name)
	case form == 0:
		req.Header.Set("X-Proxy-Key", c.keys[key])
	case form == 1:
		req.Header.Set("Authorization", "Bearer "+c.keys[key])
	case form == 2:
		req.SetBasicAuth(claimed, c.keys[key])
	default:
		req.Header.Set("Authorization", "Bearer "+c.tokens[key])
	}
	if kind == 3 {
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Connection", "Upgrade")
	}
	return req, name
}

// getTokens gets a token from the stub for each key.
func (c *caller) getTokens(t *testing.T, p *program.Program, seen *clientTally) {
	t.Helper()
	for _, key := range c.keys {
		res, body := p.Must("POST", "/oauth/token", url.Values{"client_id": {claimed}, "client_secret": {key}}.Encode())
		var grant struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(body), &grant); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v %d %s", err, res.StatusCode, body)
		}
		seen.count(c.name, res.StatusCode, "")
		c.tokens = append(c.tokens, grant.Token)
	}
}

// TestClientsCountAsTheyDo compares every per-client count with what the clients counted.
func TestClientsCountAsTheyDo(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	n := *clientRequests
	callers, files := twentyCallers()
	folder := &clientsFolder{path: t.TempDir()}
	folder.replace(t, files)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_CLIENTS_FILE="+folder.file(), "PROXY_LOG_LEVEL=info")
	seen := &clientTally{metrics: tally{of: map[string]float64{}}, clients: map[string]uint64{}, lines: map[string]int{}, denied: map[int]int{}, refused: map[string]uint64{}}
	for _, c := range callers {
		c.getTokens(t, p, seen)
	}
	sendAtRandom(t, p, callers, seen, n)
	checkClientMetrics(t, p, seen)
	checkClientStatus(t, p, seen)
	_, metrics := p.AdminGet("/metrics")
	_, status := p.AdminGet("/api/status")
	_, page := p.AdminGet("/")
	p.Signal(syscall.SIGTERM) // writes the last log lines
	p.Exit()
	log := p.Stderr.String()
	checkClientLines(t, log, seen)
	for place, text := range map[string]string{"metrics": metrics, "status": status, "page": page, "log": log} {
		if at := strings.Index(text, claimed); at >= 0 {
			t.Errorf("a claimed name is in the %s: %s", place, text[max(0, at-300):at+len(claimed)])
		}
	}
	t.Logf("%d requests of %d clients, %d rejected", n, len(callers), seen.denied[401]+seen.denied[403]+seen.denied[501]+seen.denied[503])
}

func sendAtRandom(t *testing.T, p *program.Program, callers []*caller, seen *clientTally, n int) {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var sending sync.WaitGroup
	for worker := range 16 {
		sending.Go(func() {
			r := rand.New(rand.NewPCG(17, uint64(worker))) //nolint:gosec // must be the same each time
			for left.Add(-1) >= 0 && !t.Failed() {
				req, name := callers[r.IntN(len(callers))].request(t, r, p.URL)
				res, err := p.Client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode >= 500 && res.Header.Get(problem.Header) == "" {
					t.Errorf("%d %v", res.StatusCode, err)
				}
				seen.count(name, res.StatusCode, res.Header.Get(problem.Header))
			}
		})
	}
	sending.Wait()
}

func checkClientMetrics(t *testing.T, p *program.Program, seen *clientTally) {
	t.Helper()
	var got map[string]float64
	equal := func() bool {
		got = map[string]float64{}
		for sample, v := range p.Metrics() {
			if v != 0 && (strings.HasPrefix(sample, "mimecast_proxy_client_requests_total{") || strings.HasPrefix(sample, "mimecast_proxy_client_denied_total{") || strings.HasPrefix(sample, "mimecast_proxy_requests_denied_total{")) {
				got[sample] = v
			}
		}
		return maps.Equal(got, seen.metrics.of)
	}
	for deadline := time.Now().Add(program.Patience / 6); !equal(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("counted:\n%v\nthe clients counted:\n%v", got, seen.metrics.of)
			return
		}
	}
}

func checkClientStatus(t *testing.T, p *program.Program, seen *clientTally) {
	t.Helper()
	_, body := p.AdminGet("/api/status")
	var status struct {
		Clients []struct {
			Name               string
			Requests, Rejected uint64
		}
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	requests, rejected := map[string]uint64{}, map[string]uint64{}
	for _, c := range status.Clients {
		requests[c.Name] = c.Requests
		if c.Rejected > 0 {
			rejected[c.Name] = c.Rejected
		}
	}
	if !maps.Equal(requests, seen.clients) || !maps.Equal(rejected, seen.refused) {
		t.Errorf("the status has %v, rejected %v; the clients counted %v and %v", requests, rejected, seen.clients, seen.refused)
	}
}

// checkClientLines compares the log with what the clients counted. A line of a rejected
// request can also stand for other requests, even of other clients.
func checkClientLines(t *testing.T, log string, seen *clientTally) {
	t.Helper()
	lines, denied := map[string]int{}, map[int]int{}
	for raw := range strings.Lines(log) {
		var line struct {
			Msg, Client, Account, Error string
			Status, Suppressed          int
		}
		if json.Unmarshal([]byte(raw), &line) != nil || line.Msg != "request" {
			continue
		}
		if line.Error != "" {
			denied[line.Status] += 1 + line.Suppressed
			continue
		}
		if line.Account != "default" {
			t.Fatalf("a line without its account: %s", raw)
		}
		lines[fmt.Sprint(line.Client, " ", line.Status)]++
	}
	if !maps.Equal(lines, seen.lines) || !maps.Equal(denied, seen.denied) {
		t.Errorf("the log has %v, rejected %v; the clients counted %v and %v", lines, denied, seen.lines, seen.denied)
	}
}

// TestKeyOfAClientIsReplacedOverThreeReplicas follows the steps in docs/teams.md.
func TestKeyOfAClientIsReplacedOverThreeReplicas(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const old, fresh, most = "the-old-key-0123456789", "the-new-key-0123456789", 5 * time.Second
	sim := program.Simulate(t, simulator.Options{})
	folder := &clientsFolder{path: t.TempDir()}
	with := func(keys string) map[string]string {
		return map[string]string{"key": keys, "clients.yaml": "clients:\n  tool: {keys: [{file: key}]}\n"}
	}
	folder.replace(t, with(old+"\n"))
	var replicas []*program.Program
	for range 3 {
		replicas = append(replicas, program.Serve(t, sim, "PROXY_CLIENTS_FILE="+folder.file(), "PROXY_LOG_LEVEL=info"))
	}
	status := func(p *program.Program, key string) int {
		res, _ := p.Must("GET", "/identity/whoami", "", "X-Proxy-Key", key)
		return res.StatusCode
	}
	var key atomic.Value
	key.Store(old)
	sent, stop := sendToEach(t, replicas, &key)
	folder.replace(t, with(old+"\n"+fresh+"\n"))
	for _, p := range replicas {
		program.Await(t, "the new key", func() bool { return status(p, fresh) == http.StatusOK })
	}
	key.Store(fresh)
	switched := sent.Load()
	program.Await(t, "requests with the new key", func() bool { return sent.Load() > switched+400 })
	folder.replace(t, with(fresh+"\n"))
	removed := time.Now()
	for _, p := range replicas {
		program.Await(t, "the end of the old key", func() bool { return status(p, old) == http.StatusUnauthorized })
		took := time.Since(removed)
		t.Logf("the old key is refused after %v", took.Round(10*time.Millisecond))
		if took > most {
			t.Errorf("the old key was refused after %v only, and the limit is %v", took, most)
		}
	}
	after := sent.Load()
	program.Await(t, "further requests", func() bool { return sent.Load() > after+200 })
	stop()
	t.Logf("%d requests, none refused", sent.Load())
}

// sendToEach sends 200 requests a second to the replicas in turn, with the current key,
// until stop is called. None may fail.
func sendToEach(t *testing.T, replicas []*program.Program, key *atomic.Value) (sent *atomic.Int64, stop func()) {
	sent = new(atomic.Int64)
	tick, done := time.NewTicker(5*time.Millisecond), make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			sending.Go(func() {
				res, body, err := replicas[i%len(replicas)].Do("GET", "/identity/whoami", nil, "X-Proxy-Key", key.Load().(string))
				if err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("%v %s", err, body)
				}
				sent.Add(1)
			})
		}
	})
	return sent, sync.OnceFunc(func() { close(done); sending.Wait() })
}

func TestChangesOfTheClientsFileLoseNoRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const key = "the-key-of-the-tool-0123456789"
	const changes = 15
	folder := &clientsFolder{path: t.TempDir()}
	put := func(more string) {
		folder.replace(t, map[string]string{"clients.yaml": "clients:\n  tool: {keys: [{sha256: " + sha256Of(key) + "}]}\n" + more})
	}
	put("")
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_CLIENTS_FILE="+folder.file())
	reloads := func(outcome string) int {
		return int(p.Metric(fmt.Sprintf(`mimecast_proxy_file_reloads_total{file="PROXY_CLIENTS_FILE",outcome=%q}`, outcome)))
	}
	status := func(key string) int {
		res, _ := p.Must("GET", "/identity/whoami", "", "X-Proxy-Key", key)
		return res.StatusCode
	}
	other := func(i int) string { return fmt.Sprintf("the-key-of-number-%d-0123456789", i) }
	during(t, p, func() {
		for i := range changes {
			put(fmt.Sprintf("  other-%d: {keys: [{sha256: %s}], allow: [\"@siem\"], max_requests: %d}\n", i%7, sha256Of(other(i)), i+1))
			p.Signal(syscall.SIGHUP)
			program.Await(t, "the reload", func() bool { return reloads("changed") > i })
		}
		if status(other(changes-1)) != http.StatusForbidden || status(other(changes-2)) != http.StatusUnauthorized {
			t.Error("the last version is not in force")
		}
		put("  broken: {keyz: []}\n")
		for range 3 {
			p.Signal(syscall.SIGHUP)
		}
		program.Await(t, "the failure", func() bool { return reloads("failed") > 0 })
		p.Signal(syscall.SIGHUP)
		if status(other(changes-1)) != http.StatusForbidden {
			t.Error("the last good version is not in force")
		}
		put("  fixed: {keys: [{sha256: " + sha256Of(other(changes)) + "}]}\n")
		program.Await(t, "the fixed file", func() bool { return status(other(changes)) == http.StatusOK })
	}, "X-Proxy-Key", key)
	warned := 0
	for line := range strings.Lines(p.Stderr.String()) {
		if strings.Contains(line, `"level":"warn"`) {
			warned++
			if !strings.Contains(line, "clients.yaml:3") || !strings.Contains(line, "PROXY_CLIENTS_FILE") {
				t.Errorf("a warning without file and line: %s", line)
			}
		}
	}
	if warned != 1 || reloads("failed") != 1 {
		t.Errorf("%d warnings, %d failures counted", warned, reloads("failed"))
	}
}
