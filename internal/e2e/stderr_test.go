//go:build unix

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
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

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func TestErrorThatNobodyReadsEndsTheProgram(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := syscall.SetNonblock(int(write.Fd()), false); err != nil {
		t.Fatal(err)
	}
	full := make(chan error, 1)
	go func() { // blocks once the pipe is full
		_, err := write.Write(make([]byte, 4<<20))
		full <- err
	}()
	cmd := exec.Command(program.Binary())
	cmd.Env, cmd.Stderr = []string{"MIMECAST_REGION=nowhere"}, write
	began := time.Now()
	_ = cmd.Run() // ProcessState has the result
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit %d after %v", code, time.Since(began))
	}
	read.Close()
	<-full
}

func TestReaderOfTheDemosIntroductionMayGo(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	cmd := exec.Command(program.Binary(), "demo")
	cmd.Env = []string{"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json"}
	cmd.Stdout = write
	p := program.StartCmd(t, cmd)
	write.Close()
	p.AwaitServing()
	if res, body := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// The command writes directly to the same file, not through the proxy. A broken pipe ends
// the command as usual.
func TestCommandOfRunHasTheStderrThatTheProxyHas(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(program.Binary(), "run", "--", "sh", "-c", "readlink /proc/$$/fd/2; grep SigIgn /proc/$$/status; echo said >&2")
	cmd.Env, cmd.Stderr = program.Environ(t, program.Simulate(t, simulator.Options{}), "PATH="+os.Getenv("PATH")), file
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

// goAway is an upstream that ends each HTTP/2 connection at its first request. The GOAWAY's
// debug data repeats what it was sent, followed by more.
func goAway(t *testing.T, more string) (upstream *peer.TLS, tokens func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	upstream = peer.ServeTLS(t, []string{"h2"}, func(c *tls.Conn) {
		if token := answerGoAway(c, more); token != "" {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, token)
		}
	})
	return upstream, func() []string {
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
	_ = framer.WriteSettings() // on failure, the next read fails
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
	suite.Slow(t)
	t.Parallel()
	for _, level := range []string{"trace", "debug", "info"} {
		sim := program.Simulate(t, simulator.Options{})
		hostile, tokens := goAway(t, simulator.DefaultClientSecret)
		pemFile := filepath.Join(t.TempDir(), "both.pem")
		if err := os.WriteFile(pemFile, slices.Concat(sim.CA, hostile.CA), 0o600); err != nil {
			t.Fatal(err)
		}
		p := program.Serve(t, sim, "PROXY_LOG_LEVEL="+level, "MIMECAST_BASE_URL="+hostile.URL.String(), "MIMECAST_TOKEN_URL="+sim.URL+"/oauth/token", "MIMECAST_CA_FILE="+pemFile, "PROXY_TOKEN_STUB=true")
		_, body := p.Must("POST", "/identity/whoami", "{}")
		told := tokens()
		if len(told) == 0 || len(told[0]) < 16 {
			t.Fatalf("the upstream saw %q", told)
		}
		_, echo := p.Must("POST", "/x/"+told[0], "{}", "X-Request-Id", told[0])
		all := body + echo
		for _, path := range []string{"/", "/api/status", "/readyz", "/metrics"} {
			res, err := p.Client.Get(p.AdminURL + path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			all += string(text)
		}
		p.Signal(syscall.SIGTERM)
		p.Exit()
		all += p.Stderr.String()
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
	_, _ = decoder.Write(block) // an invalid block has no token
	return token
}
