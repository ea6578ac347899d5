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
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/proxy"
	"mimecast-proxy/simulator"
)

// What logging and metrics cost is measured between two proxies that differ in
// nothing else, each a process of its own, so that neither the client's CPU nor
// Mimecast's is counted. Both get the same requests over real sockets, by turns.

const (
	variantVariable = "TEST_PROXY_VARIANT"
	withTelemetry   = "with"
	without         = "without"
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

// usage is what a process has used so far.
type usage struct {
	CPU     time.Duration // of the user's and the system's
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

// serveVariant is the child: a proxy that says where it serves, and for each
// line that it gets what it has used. It ends with its input.
func serveVariant(variant string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p := Process{Environ: os.Environ(), Stderr: os.Stderr}
	cfg, err := configure(p.Environ)
	if err != nil {
		return err
	}
	parts, err := p.assemble(cfg)
	if err != nil {
		return err
	}
	go parts.source.Run(ctx)
	h := parts.handler()
	if variant == without {
		h = parts.mute()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = (&http.Server{Handler: h, ReadHeaderTimeout: readHeaderTimeout}).Serve(l) }()
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

// mute is handler without telemetry. The guard tells it nothing of a request
// that it lets pass where no routes are configured.
func (p *parts) mute() http.Handler {
	return p.guard.Wrap(proxy.New(proxy.Options{
		Upstream: p.cfg.BaseURL,
		Transport: &proxy.Transport{
			Base: p.upstream, Source: tokens{p.source}, ReplayLimit: p.cfg.ReplayLimit, Budget: proxy.NewBudget(p.cfg.ReplayMemory, nil),
		},
	}))
}

// child is a proxy in a process of its own.
type child struct {
	b      *testing.B
	url    string
	in     io.Writer
	out    *json.Decoder
	client *http.Client
	last   usage // of the last round
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
		// Either logs its token request; the rest are the requests.
		if logs := lines.n > 1; logs != (variant == withTelemetry) {
			b.Errorf("the proxy %s telemetry logged %d lines", variant, lines.n)
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

// round sends n requests, as many at a time as there are workers.
func (c *child) round(n, workers int) {
	before := c.usage()
	var sending sync.WaitGroup
	for range workers {
		sending.Go(func() {
			for range n / workers {
				res, err := c.client.Get(c.url + "/identity/whoami")
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

// BenchmarkTelemetryShare measures the share of logging and metrics in the
// proxy's CPU a request, of the smallest requests there are. One round is 500
// requests to each of the two proxies, one right after the other, since what
// else the machine does changes slowly; what counts is the sum over the rounds,
// since a system may count CPU in ticks of 10 ms.
func BenchmarkTelemetryShare(b *testing.B) {
	const n, workers, warmUp, most = 500, 4, 3, 10.0
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
	environ := []string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL=" + sim.URL, "MIMECAST_CA_FILE=" + ca, "PROXY_LOG_FORMAT=json",
	}
	with, mute := startVariant(b, withTelemetry, environ), startVariant(b, without, environ)
	var total [2]time.Duration
	for i := 0; b.Loop(); i++ {
		pair := []*child{with, mute}
		if i%2 == 1 {
			slices.Reverse(pair)
		}
		for _, c := range pair {
			c.round(n, workers)
		}
		if i >= warmUp {
			total[0] += with.last.CPU
			total[1] += mute.last.CPU
		}
	}
	if b.N <= warmUp {
		b.Skipf("too short: ask for more than %d rounds, such as -benchtime 200x", warmUp)
	}
	requests := float64(n * (b.N - warmUp))
	cpu, more := float64(total[0])/requests, float64(total[0]-total[1])/requests
	share := 100 * more / cpu
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(cpu, "cpu-ns/request")
	b.ReportMetric(more, "telemetry-cpu-ns/request")
	b.ReportMetric((float64(with.last.Mallocs)-float64(mute.last.Mallocs))/n, "telemetry-allocs/request")
	b.ReportMetric((float64(with.last.Bytes)-float64(mute.last.Bytes))/n, "telemetry-B/request")
	b.ReportMetric(share, "telemetry-%")
	if share > most {
		b.Errorf("telemetry takes %.1f %% of the proxy's CPU, more than %.0f %%", share, most)
	}
}
