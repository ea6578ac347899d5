//go:build unix

package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/proxy"
	"mimecast-proxy/simulator"
)

// These benchmarks measure the cost of a component as the difference between two proxies, with
// and without it. Each proxy runs in its own process, so that the CPU of the client and of the
// simulator is not counted. Both get the same requests over real sockets, in turns.

const (
	variantVariable = "TEST_PROXY_VARIANT"
	whole           = "whole"
	mute            = "mute"      // without telemetry
	unguarded       = "unguarded" // without guard and header hygiene
)

func TestMain(m *testing.M) {
	if variant := os.Getenv(variantVariable); variant != "" {
		if err := serveVariant(variant); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// usage is the CPU and memory that a process has used so far.
type usage struct {
	CPU     time.Duration // user and system time
	Mallocs uint64
	Bytes   uint64 // allocated
}

func (u usage) since(v usage) usage {
	return usage{u.CPU - v.CPU, u.Mallocs - v.Mallocs, u.Bytes - v.Bytes}
}

func usageNow() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), m.Mallocs, m.TotalAlloc}, nil
}

// serveVariant runs a proxy in the child process. It prints the proxy's address, and then its
// usage for each input line. It returns at the end of the input.
func serveVariant(variant string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p := Env{Environ: os.Environ(), Stderr: os.Stderr}
	cfg, err := p.configure(p.Environ)
	if err != nil {
		return err
	}
	parts, err := p.assemble(cfg)
	if err != nil {
		return err
	}
	go parts.accounts.run(ctx)
	h := parts.handler()
	switch variant {
	case mute:
		h = parts.mute()
	case unguarded:
		h = parts.unguarded()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l) }()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(l.Addr().String()); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		u, err := usageNow()
		if err == nil {
			err = out.Encode(u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mute is handler without telemetry. Without configured routes, the guard does not report the
// requests that it accepts.
func (p *components) mute() http.Handler {
	return p.guard.Wrap(proxy.New(proxy.Options{Transport: p.transport(proxy.Trace{}, nil)}))
}

func (p *components) transport(trace proxy.Trace, replaying func(int64)) http.RoundTripper {
	return stack(
		proxy.Replay(p.cfg.ReplayLimit, proxy.NewBudget(p.cfg.ReplayMemory, replaying)),
		p.quota.Wrap,
	)(proxy.Authenticate(trace))
}

// unguarded is handler with net/http's ReverseProxy in place of the packages guard and proxy. It
// accepts every request and forwards every header.
func (p *components) unguarded() http.Handler {
	trace := proxy.Trace{Unauthorized: p.tel.Unauthorized, Retried: p.tel.Retried, Answered: p.tel.Answered, Failed: p.tel.Failed}
	a := p.accounts.list()[0].Account
	next := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(p.cfg.BaseURL) },
		Transport:     p.transport(trace, p.tel.ReplayBytes),
		FlushInterval: -1,
		BufferPool:    &pool{},
	}
	return p.tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), a, "")))
	}))
}

// pool is like the buffer pool of package proxy.
type pool struct{ sync.Pool }

func (p *pool) Get() []byte {
	if b, ok := p.Pool.Get().(*[32 << 10]byte); ok {
		return b[:]
	}
	return make([]byte, 32<<10)
}

func (p *pool) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }

// child is a proxy in a separate process.
type child struct {
	b      *testing.B
	url    string
	in     io.Writer
	out    *json.Decoder
	client *http.Client
	last   usage // in the last round
}

func startVariant(b *testing.B, variant string, environ []string) *child {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.Clone(environ), variantVariable+"="+variant)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	var lines counter // the log goes through a pipe, as it does in a container
	cmd.Stderr = &lines
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, in: in, out: json.NewDecoder(out), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}}
	b.Cleanup(func() {
		c.client.CloseIdleConnections()
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
		// Both variants log the token request. All other lines are for requests.
		if logs := lines.n > 1; logs != (variant != mute) {
			b.Errorf("the proxy that is %s logged %d lines", variant, lines.n)
		}
	})
	var address string
	if err := c.out.Decode(&address); err != nil {
		b.Fatal(err)
	}
	c.url = "http://" + address
	return c
}

// counter is a writer that counts lines.
type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) {
	c.n += bytes.Count(b, []byte("\n"))
	return len(b), nil
}

func (c *child) usage() (u usage) {
	c.b.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.b.Fatal(err)
	}
	if err := c.out.Decode(&u); err != nil {
		c.b.Fatal(err)
	}
	return u
}

// round sends n requests, with workers requests in flight.
func (c *child) round(n, workers int) {
	before := c.usage()
	var sending sync.WaitGroup
	for range workers {
		sending.Go(func() {
			for range n / workers {
				req, err := http.NewRequest("GET", c.url+"/identity/whoami", nil)
				if err != nil {
					c.b.Error(err)
					return
				}
				req.Header.Set("X-Proxy-Key", benchKey)
				res, err := c.client.Do(req)
				if err != nil {
					c.b.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					c.b.Errorf("%d %v", res.StatusCode, err)
				}
			}
		})
	}
	sending.Wait()
	c.last = c.usage().since(before)
}

// benchKey is sent with every request, even if no key is required.
const benchKey = "0123456789abcdef0123456789abcdef"

// BenchmarkTelemetryShare measures the share of logging and metrics in the proxy's CPU time per
// request.
func BenchmarkTelemetryShare(b *testing.B) { measure(b, "telemetry", mute, 10) }

// BenchmarkGuardShare measures the share of the guard and of header cleaning in the proxy's CPU
// time per request. It measures the default settings, and then all checks configured.
func BenchmarkGuardShare(b *testing.B) {
	b.Run("default", func(b *testing.B) { measure(b, "guard", unguarded, 5) })
	b.Run("everything", func(b *testing.B) {
		measure(b, "guard", unguarded, 5, "PROXY_API_KEY="+benchKey, "PROXY_ALLOW=@read", "PROXY_ALLOWED_HOSTS=a.internal,b.internal", "PROXY_ALLOWED_ORIGINS=https://tool.example")
	})
}

// simulated starts a simulator, and returns the environment for a proxy in front of it.
func simulated(b *testing.B) []string {
	b.Helper()
	sim, err := simulator.Start(simulator.Options{Quotas: map[string]simulator.Quota{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := sim.Close(); err != nil {
			b.Error(err)
		}
	})
	ca := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		b.Fatal(err)
	}
	return []string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL=" + sim.URL, "MIMECAST_CA_FILE=" + ca, "PROXY_LOG_FORMAT=json",
	}
}

// BenchmarkHandler measures the cost of a minimal request for the whole proxy, which runs in a
// separate process.
func BenchmarkHandler(b *testing.B) {
	const n = 500
	c := startVariant(b, whole, simulated(b))
	var total usage
	for b.Loop() {
		c.round(n, 4)
		total.CPU += c.last.CPU
		total.Mallocs += c.last.Mallocs
		total.Bytes += c.last.Bytes
	}
	requests := float64(n * b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(total.CPU)/requests, "cpu-ns/request")
	b.ReportMetric(float64(total.Mallocs)/requests, "allocs/request")
	b.ReportMetric(float64(total.Bytes)/requests, "B/request")
}

// measure reports a component's share of the proxy's CPU time per minimal request. variant is
// the proxy without the component, and most is the largest allowed share in percent.
//
// A round sends 500 requests to each of the two proxies, right after each other, since the
// load of the machine changes slowly. The result is the sum over all rounds, since a system
// may count CPU time in ticks of 10 ms.
func measure(b *testing.B, part, variant string, most float64, more ...string) {
	const n, workers, warmUp = 500, 4, 3
	environ := append(simulated(b), more...)
	with, less := startVariant(b, whole, environ), startVariant(b, variant, environ)
	var total [2]time.Duration
	for i := 0; b.Loop(); i++ {
		pair := []*child{with, less}
		if i%2 == 1 {
			slices.Reverse(pair)
		}
		for _, c := range pair {
			c.round(n, workers)
		}
		if i >= warmUp {
			total[0] += with.last.CPU
			total[1] += less.last.CPU
		}
	}
	if b.N <= warmUp {
		b.Skipf("too short: ask for more than %d rounds, such as -benchtime 200x", warmUp)
	}
	requests := float64(n * (b.N - warmUp))
	cpu, extra := float64(total[0])/requests, float64(total[0]-total[1])/requests
	share := 100 * extra / cpu
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(cpu, "cpu-ns/request")
	b.ReportMetric(extra, part+"-cpu-ns/request")
	b.ReportMetric((float64(with.last.Mallocs)-float64(less.last.Mallocs))/n, part+"-allocs/request")
	b.ReportMetric((float64(with.last.Bytes)-float64(less.last.Bytes))/n, part+"-B/request")
	b.ReportMetric(share, part+"-%")
	if share > most {
		b.Errorf("%s takes %.1f %% of the proxy's CPU, more than %.0f %%", part, share, most)
	}
}
