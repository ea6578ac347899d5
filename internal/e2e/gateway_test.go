package e2e

import (
	"bytes"
	"debug/elf"
	"fmt"
	"net/http"
	"os"
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
	"mimecast-proxy/simulator"
)

// gateway starts a replica of the gateway in docs/kubernetes.md: not only on loopback,
// with an API key, and with a shutdown delay.
func gateway(t *testing.T, sim *simulator.Server) *program.Program {
	t.Helper()
	p := program.Serve(t, sim, "PROXY_LISTEN=0.0.0.0:0", "PROXY_API_KEY="+gatewayKey, "PROXY_ALLOWED_HOSTS=mimecast-proxy", "PROXY_SHUTDOWN_DELAY=5s")
	p.URL = "http://127.0.0.1" + p.URL[strings.LastIndexByte(p.URL, ':'):]
	return p
}

const gatewayKey = "a-key-for-the-tests-only"

// balancer sends each request to the current endpoint. As in a cluster, a replica is an
// endpoint until its readiness probe fails.
type balancer struct {
	endpoint atomic.Pointer[program.Program]
}

// watch probes p. When p is no longer ready, watch switches to next after a few more
// requests. In a cluster, the change takes time to reach every node.
func (s *balancer) watch(p, next *program.Program, news func() bool, over <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		res, err := p.Client.Get(p.AdminURL + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		if (err != nil || res.StatusCode != http.StatusOK) && news() {
			s.endpoint.Store(next)
			return
		}
	}
}

func TestSIGTERMOfAGatewaysReplicaUnderLoadLosesNoRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const clients = 16
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/identity/whoami", Delay: 20 * time.Millisecond})
	old, next := gateway(t, sim), gateway(t, sim)
	var svc balancer
	svc.endpoint.Store(old)
	over := make(chan struct{})
	var signalled atomic.Bool
	var before, after, elsewhere atomic.Int64
	var working, watching sync.WaitGroup
	for i := range clients {
		// Half of them reuse connections, the others never do.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		t.Cleanup(client.CloseIdleConnections)
		working.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				p := svc.endpoint.Load()
				late := signalled.Load()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/identity/whoami", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Host = "mimecast-proxy"
				req.Header.Set("X-Proxy-Key", gatewayKey)
				res, err := client.Do(req)
				if err != nil {
					t.Errorf("lost: %v", err)
					continue
				}
				res.Body.Close()
				switch {
				case res.StatusCode != http.StatusOK:
					t.Errorf("%d %v", res.StatusCode, res.Header)
				case p == next:
					elsewhere.Add(1)
				case late:
					after.Add(1)
				default:
					before.Add(1)
				}
			}
		})
	}
	watching.Go(func() { svc.watch(old, next, func() bool { return after.Load() > clients }, over) })
	program.Await(t, "load", func() bool { return before.Load() > 10*clients })
	old.Signal(syscall.SIGTERM)
	signalled.Store(true)
	if code := old.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, old.Stderr.String())
	}
	program.Await(t, "load on the other", func() bool { return elsewhere.Load() > 10*clients })
	close(over)
	working.Wait()
	watching.Wait()
	t.Logf("%d answers before SIGTERM, %d of the same replica after it, %d of the other; none lost", before.Load(), after.Load(), elsewhere.Load())
}

// The kernel decides how much of the program's file to map. TestBinaryIsSmallAndStatic
// limits that file's size; this test limits the rest.
func TestIdleProxyTakesLittleMemory(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	const most = 7 << 20 // measured: 5.5 to 5.9 MiB
	p := program.Serve(t, program.Simulate(t, simulator.Options{}))
	p.Must("GET", "/identity/whoami", "")
	first := p.Resident()
	var idle program.Resident
	program.Await(t, fmt.Sprintf("less than %.0f MiB beside the program's file", program.MiB(most)), func() bool {
		idle = p.Resident()
		return idle.Private < most
	})
	t.Logf("after the first request: %s, and after 10 s without another: %s", first, idle)
}

func TestBinaryIsSmallAndStatic(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("read as ELF")
	}
	// Executing a template calls methods by name. The linker would then keep every exported
	// method of every type, which adds 2 MiB.
	most := int64(15 << 20)
	if !strings.HasPrefix(runtime.Version(), "go1.26") {
		most = 16 << 20 // later Go runtimes are larger
	}
	info, err := os.Stat(program.Binary())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MiB", program.MiB(info.Size()))
	if info.Size() > most {
		t.Errorf("%d bytes", info.Size())
	}
	f, err := elf.Open(program.Binary())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked with libraries: %v", p.Type)
		}
	}
}

func TestBinaryExecutesNoTemplate(t *testing.T) {
	t.Parallel()
	binary, err := os.ReadFile(program.Binary())
	if err != nil {
		t.Fatal(err)
	}
	// The binary contains function names, for stack traces.
	if !bytes.Contains(binary, []byte("mimecast-proxy/admin.Handler")) {
		t.Fatal("no names of functions are in it")
	}
	if bytes.Contains(binary, []byte("text/template.(*Template).Execute")) {
		t.Error("something executes a template: build text by hand, and pages of gomponents")
	}
}

func TestFirstRequestAfterTheStartIsAnswered(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	var took []time.Duration
	for range 9 {
		env := program.Environ(t, sim)
		began := time.Now()
		p := program.Start(t, env)
		p.AwaitServing()
		if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != http.StatusOK {
			t.Fatalf("%d", res.StatusCode)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	// No limit, because the time depends on the machine.
	t.Logf("from the start of the process to the first answer, its token included: median %v, slowest %v", took[len(took)/2], took[len(took)-1])
}
