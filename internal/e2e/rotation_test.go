//go:build unix

package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// fileWith returns a file with a line of text, and a function that replaces the text.
func fileWith(t *testing.T, text string) (string, func(string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	replace := func(text string) {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace(text)
	return path, replace
}

// during sends requests until f returns, and reports every failure.
func during(t *testing.T, p *program.Program, f func(), header ...string) {
	t.Helper()
	var done atomic.Bool
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond) // leaves the machine to other tests
			defer tick.Stop()
			for ; !done.Load(); <-tick.C {
				res, body, err := p.Do("GET", "/identity/whoami", nil, header...)
				if err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("%v %v %s", err, res, body)
					return
				}
			}
		})
	}
	f()
	done.Store(true)
	asking.Wait()
}

func TestRotatedSecretCausesATokenRequestAtOnceAndLosesNoRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	path, replace := fileWith(t, simulator.DefaultClientSecret)
	p := program.Serve(t, sim, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)
	before := sim.TokenRequests()
	during(t, p, func() {
		sim.SetCredentials(simulator.DefaultClientID, "rotated-secret")
		replace("rotated-secret")
		p.Stderr.Await(t, "the renewal", func(text string) bool {
			return strings.Contains(text, `"msg":"file reloaded"`) && sim.TokenRequests() > before && strings.Count(text, "token renewed") > 1
		})
	})
	if n := sim.TokenRequests(); n != before+1 {
		t.Errorf("%d token requests for one rotation", n-before)
	}
	if strings.Contains(p.Stderr.String(), "rotated-secret") {
		t.Errorf("the secret is in the log:\n%s", p.Stderr.String())
	}
}

func TestRotationOfKeysLosesNoRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const first, second = "the first key of them", "the second key of them"
	path, replace := fileWith(t, first)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_API_KEY_FILE="+path)
	status := func(key string) int {
		res, _ := p.Must("GET", "/identity/whoami", "", "X-Proxy-Key", key)
		return res.StatusCode
	}
	if status(first) != 200 || status(second) != 401 {
		t.Error("the file's key is not the one that counts")
	}
	during(t, p, func() {
		replace(first + "\n" + second)
		p.Stderr.Await(t, "the second key", func(string) bool { return status(second) == 200 })
		replace("") // an empty file must change nothing
		p.Stderr.Await(t, "the warning", func(text string) bool { return strings.Contains(text, "file reload failed") })
		if status("") != 401 {
			t.Error("an empty file opens the proxy")
		}
	}, "X-Proxy-Key", first)
	during(t, p, func() {
		replace(second)
		p.Stderr.Await(t, "the end of the first key", func(string) bool { return status(first) == 401 })
	}, "X-Proxy-Key", second)
}

func TestFileThatIsGoneIsWarnedOfOnceAndNotReadByThePage(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	path, _ := fileWith(t, simulator.DefaultClientID)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "MIMECAST_CLIENT_ID=", "MIMECAST_CLIENT_ID_FILE="+path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.Stderr.Await(t, "the warning", func(text string) bool { return strings.Contains(text, "file reload failed") })
	for range 50 {
		res, err := p.Client.Get(p.AdminURL + "/api/status")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if text := p.Stderr.String(); strings.Count(text, `"level":"warn"`) != 1 || !strings.Contains(text, "MIMECAST_CLIENT_ID_FILE") {
		t.Errorf("not one warning:\n%s", text)
	}
}

func TestSIGHUPRereadsAndEndsNothing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	path, replace := fileWith(t, simulator.DefaultClientSecret)
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)
	for i := range 3 {
		replace("wrong")
		p.Signal(syscall.SIGHUP)
		p.Stderr.Await(t, "the reload", func(text string) bool { return strings.Count(text, "file reload requested") > i })
		replace(simulator.DefaultClientSecret)
	}
	during(t, p, func() {
		for range 20 {
			p.Signal(syscall.SIGHUP)
		}
	})
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

func TestSIGHUPOfRunReachesTheCommandAndLeavesTheProxyRunning(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	cmd := exec.Command(program.Binary(), "run", "--", "sh", "-c", "trap 'echo hup' HUP; echo waiting; while :; do sleep 0.1; done")
	path, _ := fileWith(t, simulator.DefaultClientSecret)
	cmd.Env = program.Environ(t, program.Simulate(t, simulator.Options{}), "PATH="+os.Getenv("PATH"), "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path, "PROXY_LOG_LEVEL=info")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := program.StartCmd(t, cmd)
	p.Stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "waiting") })
	p.Signal(syscall.SIGHUP)
	p.Stdout.Await(t, "the signal", func(text string) bool { return strings.Contains(text, "hup") })
	p.Stderr.Await(t, "the reload", func(text string) bool { return strings.Contains(text, "file reload requested") })
	p.AwaitServing()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != http.StatusOK {
		t.Errorf("%d after SIGHUP", res.StatusCode)
	}
	p.Signal(syscall.SIGTERM) // ends the command, and with it the proxy
	p.Exit()
}

func TestNamesThatOnlyTheCommandKnowsDrawNoWarning(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	foreign := []string{"MIMECAST_EVENT_TYPES=av", "MIMECAST_HOST=x", "PROXY_LISTN=y"}
	p := program.Start(t, program.Environ(t, sim, append(foreign, "PATH="+os.Getenv("PATH"))...), "run", "--", "true")
	p.Exit()
	if text := p.Stderr.String(); strings.Contains(text, "EVENT_TYPES") || strings.Contains(text, "MIMECAST_HOST") || !strings.Contains(text, "did you mean PROXY_LISTEN?") {
		t.Errorf("the warnings of run:\n%s", text)
	}
	p = program.Serve(t, sim, foreign...)
	for _, v := range foreign {
		if name, _, _ := strings.Cut(v, "="); !strings.Contains(p.Stderr.String(), name) {
			t.Errorf("serve does not warn of %s", name)
		}
	}
}
