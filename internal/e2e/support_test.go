package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func TestSupportBundleHasWhatHelpersAskForAndNoSecret(t *testing.T) {
	t.Parallel()
	const secretMark, keyMark, passwordMark = "planted-client-secret-0001", "planted-api-key-0002-of-many", "planted-password-0003"
	sim := program.Simulate(t, simulator.Options{ClientSecret: secretMark})
	dir := t.TempDir()
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte(secretMark+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE=" + secretFile, "PROXY_API_KEY=" + keyMark, "PROXY_MAX_REQUESTS=77", "GOMEMLIMIT=96MiB",
		"HTTPS_PROXY=http://user:" + passwordMark + "@127.0.0.1:1", "NO_PROXY=127.0.0.1",
	}
	p := program.Serve(t, sim, environ...)
	sim.AddFault(simulator.Fault{Path: "/secret", Status: 500, Body: secretMark + keyMark})
	p.Must("GET", "/secret?token="+keyMark, "", "X-Proxy-Key", keyMark)
	p.Must("GET", "/identity/whoami", "", "X-Proxy-Key", "wrong")
	res, err := p.Client.Get(p.AdminURL + "/api/support")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var bundle struct {
		Version, Go, System string
		Settings            []struct{ Name, Value, Origin string }
		Errors              []struct{ Path string }
		Status              struct{ Listen string }
	}
	if err := json.NewDecoder(res.Body).Decode(&bundle); err != nil || bundle.Version == "" || bundle.Go == "" || bundle.System == "" ||
		"http://"+bundle.Status.Listen != p.URL || len(bundle.Errors) != 2 || len(bundle.Settings) < 30 {
		t.Errorf("%v: %+v", err, bundle)
	}

	at := "PROXY_ADMIN_LISTEN=" + p.Admin
	own := slices.DeleteFunc(program.Environ(t, sim, environ...), func(v string) bool { return strings.HasPrefix(v, "PROXY_ADMIN_LISTEN=") })
	cmd := program.Start(t, append(own, at), "support")
	code, text := cmd.Exit(), cmd.Stdout.String()
	for _, want := range []string{
		"MIMECAST_CLIENT_SECRET   set, 26 characters  (file " + secretFile + ", changed at 20",
		"PROXY_API_KEY            set, 28 characters  (variable)\n",
		"PROXY_MAX_REQUESTS       77  (variable)\n", "PROXY_DIAL_TIMEOUT       10s  (default)\n", "PROXY_REPLAY_MEMORY      48MiB  (default)\n",
		"HTTPS_PROXY              http://[redacted]@127.0.0.1:1  (variable)\n",
		"state       ok, since 20", "token       valid until ", "GET /secret: 500 ", "GET /identity/whoami: 401 ", "ok      request ", "listening   " + p.Listen,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 0 || t.Failed() {
		t.Errorf("exit %d\n%s%s", code, text, cmd.Stderr.String())
	}
	for _, r := range sim.Requests() {
		if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && strings.Contains(text, bearer) {
			t.Error("a token is printed")
		}
	}
	for _, mark := range []string{secretMark, keyMark, passwordMark} {
		if strings.Contains(text+cmd.Stderr.String(), mark) {
			t.Errorf("%s is printed:\n%s", mark, text)
		}
	}
}

func TestSupportGoesOnWhereItsOwnConfigurationIsBadOrNoProxyRuns(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	bad := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + p.Admin, "MIMECAST_REGION=mars"}, "support")
	if code, text := bad.Exit(), bad.Stdout.String(); code != 0 || !strings.Contains(text, "token       valid") || !strings.Contains(text, "FAILED  ") || !strings.Contains(text, `"mars" is not one of them`) {
		t.Errorf("exit %d\n%s%s", code, text, bad.Stderr.String())
	}
	none := program.Start(t, append(program.Environ(t, sim), "PROXY_ADMIN_LISTEN="+unreachable), "support")
	if code, text := none.Exit(), none.Stdout.String(); code != 1 || !strings.Contains(text, "check that it runs") || !strings.Contains(text, "ok      request ") {
		t.Errorf("exit %d\n%s%s", code, text, none.Stderr.String())
	}
}

func TestSupportSaysWhatTheDemoSets(t *testing.T) {
	t.Parallel()
	p := program.Start(t, []string{"PROXY_LOG_FORMAT=json", "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0"}, "demo")
	p.AwaitServing()
	cmd := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + p.Admin}, "support")
	if code, text := cmd.Exit(), cmd.Stdout.String(); code != 0 || !strings.Contains(text, "(the proxy itself)\n") || !strings.Contains(text, "PROXY_LISTEN             127.0.0.1:0  (variable)\n") {
		t.Errorf("exit %d\n%s%s", code, text, cmd.Stderr.String())
	}
}
