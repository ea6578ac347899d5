package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/internal/peer"
)

func TestMemoryLimitOfTheContainerIsUsedWhereNoneIsSet(t *testing.T) {
	limited := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"proc/self/mountinfo":      {Data: []byte("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("134217728\n")},
	}
	for name, c := range map[string]struct {
		root    fstest.MapFS
		environ []string
		memory  int64
		replay  int64
	}{
		"a container of 128 MiB":  {limited, nil, 96 << 20, 48 << 20},
		"set":                     {limited, []string{"GOMEMLIMIT=64MiB"}, 64 << 20, 32 << 20},
		"set to nothing":          {limited, []string{"GOMEMLIMIT="}, 96 << 20, 48 << 20},
		"off":                     {limited, []string{"GOMEMLIMIT=off"}, 0, 64 << 20},
		"no container":            {fstest.MapFS{}, nil, 0, 64 << 20},
		"kept bodies have a size": {limited, []string{"PROXY_REPLAY_MEMORY=1MiB"}, 96 << 20, 1 << 20},
	} {
		cfg, err := config.Parse(withMemoryLimit(append(c.environ, "MIMECAST_CLIENT_ID=i", "MIMECAST_CLIENT_SECRET=s"), c.root), nil)
		if err != nil || cfg.MemoryLimit != c.memory || cfg.ReplayMemory != c.replay {
			t.Errorf("%s: %v, a limit of %d and %d for kept bodies", name, err, cfg.MemoryLimit, cfg.ReplayMemory)
		}
	}
}

func TestTokenPathIsWhereAClientWouldReachTheTokenEndpoint(t *testing.T) {
	for urls, want := range map[[2]string]string{
		{"https://gateway.example", ""}:                                        "/oauth/token",
		{"https://gateway.example/api", ""}:                                    "/oauth/token",
		{"https://gateway.example", "https://gateway.example/auth/Token"}:      "/auth/token",
		{"https://gateway.example", "https://GATEWAY.example.:443/auth/token"}: "/auth/token",
		{"https://gateway.example/Api", "https://gateway.example/api/t"}:       "/t",
		{"https://gateway.example/api", "https://gateway.example/api"}:         "/",
		{"https://gateway.example/api", "https://gateway.example/apis/t"}:      "",
		{"https://gateway.example/api", "https://gateway.example/t"}:           "",
		{"https://gateway.example", "https://other.example/t"}:                 "",
		{"https://gateway.example", "https://gateway.example:8443/t"}:          "",
		{"https://gateway.example", "https://gateway.example/a%2Fb"}:           "/a/b",
	} {
		environ := []string{"MIMECAST_CLIENT_ID=i", "MIMECAST_CLIENT_SECRET=s", "MIMECAST_BASE_URL=" + urls[0], "MIMECAST_TOKEN_URL=" + urls[1]}
		cfg, err := config.Parse(environ, nil)
		if got := ""; err != nil {
			t.Errorf("%v: %v", urls, err)
		} else if got = tokenPath(cfg.BaseURL, cfg.TokenURL); got != want {
			t.Errorf("%v: %q, want %q", urls, got, want)
		}
	}
}

// output is a log that is read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // gets a value after a write
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

// await waits until the log has a line with the text.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		log := o.text.String()
		o.mu.Unlock()
		if strings.Contains(log, text) {
			return
		}
		select {
		case <-o.more:
		case <-timeout:
			t.Fatalf("no %q in:\n%s", text, log)
		}
	}
}

func TestNewAuthoritiesAreTrustedFromThenOn(t *testing.T) {
	one, two := httptest.NewTLSServer(nil), httptest.NewUnstartedServer(nil)
	certificate, _ := peer.Certificate(t)
	two.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	two.StartTLS()
	defer one.Close()
	defer two.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	put := func(servers ...*httptest.Server) {
		var content []byte
		for _, s := range servers {
			content = append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.TLS.Certificates[0].Certificate[0]})...)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(one)
	signals := make(chan os.Signal, 1)
	log := &output{more: make(chan struct{}, 1)}
	p := assembled(t, Env{Stderr: log, Reread: signals}, "MIMECAST_CLIENT_ID=i", "MIMECAST_CLIENT_SECRET=s", "MIMECAST_CA_FILE="+path)
	defer p.accounts.closeIdleConnections()
	trusted := func() bool {
		req, err := http.NewRequestWithContext(t.Context(), "GET", two.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := p.accounts.list()[0].upstream.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	}
	if trusted() {
		t.Fatal("trusted before its certificate is in the file")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.reload(ctx) }()
	defer func() { stop(); <-done }()
	put(one, two)
	signals <- os.Interrupt // any will do
	log.await(t, "file reloaded")
	for deadline := time.Now().Add(30 * time.Second); !trusted(); {
		if time.Now().After(deadline) {
			t.Fatal("not trusted")
		}
	}
	put()
	signals <- os.Interrupt
	log.await(t, "file reload failed")
	if !trusted() {
		t.Error("an empty file changed what is trusted")
	}
	if !slices.ContainsFunc(p.cfg.Files, func(f *config.File) bool { return f.Path == path }) {
		t.Error(p.cfg.Files)
	}
}
