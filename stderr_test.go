//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	built "mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// servePiped runs the proxy with a pipe as its stderr, reads that until the proxy
// serves, and no further.
func servePiped(t *testing.T, environ []string) (*program, *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: exec.Command(built.Binary()), ended: make(chan struct{}), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}}
	p.cmd.Env, p.cmd.Stderr = environ, write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	go func() { defer close(p.ended); _ = p.cmd.Wait() }() // the state tells how it ended
	t.Cleanup(p.cleanUp)
	for lines := bufio.NewScanner(read); p.url == "" && lines.Scan(); {
		var line struct{ Listen, Admin string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Listen != "" {
			p.url, p.admin = "http://"+line.Listen, "http://"+line.Admin
		}
	}
	p.awaitReady()
	return p, read
}

// passes sends requests with long lines in the log.
func (p *program) passes(requests int) {
	p.t.Helper()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range requests / 8 {
				res, _, err := p.do("GET", "/_simulator/echo/"+strings.Repeat("long", 250), nil)
				if err != nil || res.StatusCode >= 500 {
					p.t.Errorf("%v %v", res, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLogThatNobodyReadsStopsNothing(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{TokenTTL: 4 * time.Second})
	p, unread := servePiped(t, built.Environ(t, sim, "PROXY_LOG_LEVEL=debug", "PROXY_SHUTDOWN_TIMEOUT=2s"))
	defer unread.Close()
	p.passes(1200) // 1.6 MB of log
	if n := p.metric("mimecast_proxy_log_lines_dropped_total"); n < 100 {
		t.Errorf("%v lines were dropped", n)
	}
	before := sim.TokenRequests()
	await(t, "a renewal", func() bool { return sim.TokenRequests() > before })
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	t.Logf("ended after %v", time.Since(began))
}

func TestErrorThatNobodyReadsEndsTheProgram(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := syscall.SetNonblock(int(write.Fd()), false); err != nil {
		t.Fatal(err)
	}
	full := make(chan error, 1)
	go func() { // until the pipe is full, and in vain from then on
		_, err := write.Write(make([]byte, 4<<20))
		full <- err
	}()
	cmd := exec.Command(built.Binary())
	cmd.Env, cmd.Stderr = []string{"MIMECAST_REGION=nowhere"}, write
	began := time.Now()
	_ = cmd.Run() // the state tells how it ended
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit %d after %v", code, time.Since(began))
	}
	read.Close()
	<-full
}

func TestReaderOfTheLogMayGo(t *testing.T) {
	p, read := servePiped(t, built.Environ(t, built.Simulate(t, simulator.Options{})))
	read.Close()
	p.passes(40)
	await(t, "the lines to be dropped", func() bool { return p.metric("mimecast_proxy_log_lines_dropped_total") > 0 })
	p.passes(40)
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d, %v", code, p.cmd.ProcessState)
	}
}

func TestReaderOfTheDemosIntroductionMayGo(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	cmd := exec.Command(built.Binary(), "demo")
	cmd.Env = []string{"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json"}
	p := &program{t: t, cmd: cmd, ended: make(chan struct{}), client: &http.Client{Transport: &http.Transport{}}}
	cmd.Stdout, cmd.Stderr = write, &p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	go func() { defer close(p.ended); _ = cmd.Wait() }() // the state tells how it ended
	t.Cleanup(p.cleanUp)
	p.awaitServing()
	if res, body := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d, %v", code, p.cmd.ProcessState)
	}
}

// The command writes to the same file, and not through the proxy; and a pipe that
// breaks ends it as it does elsewhere.
func TestCommandOfRunHasTheStderrThatTheProxyHas(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(built.Binary(), "run", "--", "sh", "-c", "readlink /proc/$$/fd/2; grep SigIgn /proc/$$/status; echo said >&2")
	cmd.Env, cmd.Stderr = built.Environ(t, built.Simulate(t, simulator.Options{}), "PATH="+os.Getenv("PATH")), file
	out, err := cmd.Output()
	said, readErr := os.ReadFile(file.Name())
	if err != nil || readErr != nil || !strings.HasPrefix(string(out), file.Name()+"\n") || string(said) != "said\n" {
		t.Errorf("%v %v %s%s", err, readErr, out, said)
	}
	_, status, _ := strings.Cut(string(out), "SigIgn:")
	var ignored uint64
	if _, err := fmt.Sscanf(status, "%x", &ignored); err != nil || ignored>>(syscall.SIGPIPE-1)&1 != 0 {
		t.Errorf("%v, ignored are %x", err, ignored)
	}
}

// goAway is an upstream that ends each HTTP/2 connection at its first request and
// says in debug data what it was sent, with what more returns.
func goAway(t *testing.T, more string) (url string, ca []byte, tokens func() []string) {
	t.Helper()
	tlsServer := httptest.NewUnstartedServer(nil)
	tlsServer.StartTLS()
	cert := tlsServer.TLS.Certificates[0]
	tlsServer.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var seen []string
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if token := answerGoAway(c, more); token != "" {
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, token)
				}
			}()
		}
	}()
	return "https://" + l.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func answerGoAway(c net.Conn, more string) (token string) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return ""
	}
	framer := http2.NewFramer(c, c)
	_ = framer.WriteSettings() // the client may be gone, which the next read tells
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return token
		}
		headers, ok := f.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		token = authorization(headers.HeaderBlockFragment())
		debug := fmt.Sprintf("%s %q %s", token, token, more)
		_ = framer.WriteGoAway(headers.StreamID, http2.ErrCodeInternal, []byte(debug))
		return token
	}
}

func TestSecretsThatTheUpstreamRepeatsShowNowhere(t *testing.T) {
	for _, level := range []string{"trace", "debug", "info"} {
		sim := built.Simulate(t, simulator.Options{})
		hostile, ca, tokens := goAway(t, simulator.DefaultClientSecret)
		pemFile := filepath.Join(t.TempDir(), "both.pem")
		if err := os.WriteFile(pemFile, slices.Concat(sim.CA, ca), 0o600); err != nil {
			t.Fatal(err)
		}
		p := serve(t, sim, "PROXY_LOG_LEVEL="+level, "MIMECAST_BASE_URL="+hostile, "MIMECAST_TOKEN_URL="+sim.URL+"/oauth/token", "MIMECAST_CA_FILE="+pemFile, "PROXY_TOKEN_STUB=true")
		_, body := p.must("POST", "/identity/whoami", "{}")
		told := tokens()
		if len(told) == 0 || len(told[0]) < 16 {
			t.Fatalf("the upstream saw %q", told)
		}
		_, echo := p.must("POST", "/x/"+told[0], "{}", "X-Request-Id", told[0])
		all := body + echo
		for _, path := range []string{"/", "/api/status", "/readyz", "/metrics"} {
			res, err := p.client.Get(p.admin + path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			all += string(text)
		}
		p.signal(syscall.SIGTERM)
		p.exit()
		all += p.stderr.String()
		if !strings.Contains(all, "GOAWAY") || !strings.Contains(all, "[redacted]") {
			t.Errorf("%s: nothing was repeated: %s", level, all)
		}
		for _, s := range append(tokens(), simulator.DefaultClientSecret) {
			if i := strings.Index(all, s); i >= 0 {
				t.Errorf("%s: a secret shows: …%s…", level, all[max(0, i-200):i+len(s)])
			}
		}
	}
}

// authorization returns the token in an HTTP/2 header block.
func authorization(block []byte) (token string) {
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "authorization" {
			token = strings.TrimPrefix(f.Value, "Bearer ")
		}
	})
	_, _ = decoder.Write(block) // what cannot be read has no token
	return token
}
