//go:build linux

package attack

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// Values that must not be shown are marked, so that the tests can find them in any text.
const (
	marked     = "MARKED" // part of each
	secretMark = marked + "-secret-0123456789"
	keyMark    = marked + "-key-0123456789abc"
	mark       = marked + "-value-9876543210" // for every other value from the client
)

// clean checks that a text contains no marked value and no token, plain or in base64.
func clean(t *testing.T, where, text string, tokens ...string) {
	t.Helper()
	for _, secret := range append(tokens, secretMark, keyMark, mark) {
		forms := []string{secret, marked}
		for shift := range 3 { // the encoding depends on the offset
			enc := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
			forms = append(forms, enc[4:len(enc)-4])
		}
		for _, form := range forms {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("%s has %q in it: …%.300s", where, form, text[max(0, i-200):])
			}
		}
	}
}

// hostile returns requests with marked values wherever a client can put one.
func hostile() (raw []string) {
	const query = "?token=" + mark + "&x=" + mark
	values := []string{
		local, "X-Proxy-Key: " + keyMark, "Cookie: c=" + mark, "X-Custom: " + mark, "Accept: " + mark, "User-Agent: " + mark, "Referer: http://localhost/" + query,
		"X-Forwarded-For: " + mark, "Proxy-Authorization: Basic " + mark, "x-mc-arg: " + mark, "Content-Type: " + mark, "Traceparent: " + mark + " ",
	}
	body := fmt.Sprintf(`{"data":[%q]}`, mark)
	post := func(line string, header ...string) string {
		return request(line, append(header, fmt.Sprintf("Content-Length: %d", len(body)))...) + body
	}
	for _, line := range []string{"GET /identity/whoami" + query, "GET /identity/../x" + query, "GET //x" + query, "CONNECT x:1", "GET /fault/reset" + query, "GET /fault/html" + query, "GET /fault/short" + query} {
		raw = append(raw, request(line, values...))
	}
	raw = append(raw,
		post("POST /api/audit/get-audit-events"+query, values...),
		post("POST /oauth/token"+query, values...),
		post("POST /oauth/token", local, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("x:"+mark))),
		request(whoami+query, local, "Authorization: Bearer "+mark),
		request(whoami+query, local, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("x:"+mark))),
		request(whoami+query, local, "X-Proxy-Key: "+mark, "X-Proxy-Key: "+keyMark),
		request(whoami+query, append(values, "Connection: Upgrade", "Upgrade: "+mark)...),
		request("POST /x"+query, append(values, "Transfer-Encoding: chunked")...)+mark+"\r\n"+mark,
		request("GET /%zz"+query, values...), request(whoami+query, append(values, "Bad Header: "+mark)...), request(whoami+query, append(values, "Content-Length: "+mark)...),
		"\x16\x03\x01"+mark+"\r\n\r\n",
	)
	return raw
}

// answersAreClean checks the proxy's own responses. Mimecast's responses pass unchanged.
func (s *stand) answersAreClean(raw string, tokens ...string) {
	s.t.Helper()
	for _, a := range send(s.t, s.Listen, raw, 1) {
		if a.code != "" || a.status == 400 {
			clean(s.t, fmt.Sprintf("the answer to %.60q", raw), fmt.Sprint(a.header, a.body), tokens...)
		}
	}
}

func TestNoSecretShowsAnywhere(t *testing.T) {
	for _, c := range [][]string{{"PROXY_LOG_LEVEL=trace"}, {"PROXY_LOG_LEVEL=debug", "PROXY_LOG_FORMAT=console"}} {
		sim := program.Simulate(t, simulator.Options{ClientSecret: secretMark})
		sim.AddFault(simulator.Fault{Path: "/fault/reset", Cut: simulator.CutAnswer})
		sim.AddFault(simulator.Fault{Path: "/fault/html", Status: 502, Body: "<html>" + mark})
		sim.AddFault(simulator.Fault{Path: "/fault/short", Status: 200, Body: mark, Size: 9000, Cut: simulator.CutShort, CutAfter: 100})
		s := &stand{t: t, sim: sim, denied: map[string]float64{}}
		s.Program = program.Serve(t, sim, append(c, "MIMECAST_CLIENT_SECRET="+secretMark, "PROXY_API_KEY="+keyMark, "PROXY_QUIT_ENDPOINT=true")...)
		for _, raw := range hostile() {
			s.answersAreClean(raw)
		}
		var tokens []string
		for _, r := range sim.Requests() {
			if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
				tokens = append(tokens, token)
			}
		}
		if len(tokens) == 0 {
			t.Fatal("no token was seen")
		}
		// From now on Mimecast rejects the token and echoes what it was sent.
		sim.AddFault(simulator.Fault{Path: "/oauth/token", Status: 400, Body: `{"error":"invalid_client","error_description":"{body} ` + mark + `"}`, Header: map[string]string{"Www-Authenticate": "{body}"}})
		sim.RevokeTokens()
		for _, raw := range hostile() {
			s.answersAreClean(raw, tokens...)
		}
		for _, path := range []string{"/", "/metrics", "/readyz", "/livez", "/startupz", "/api/status", "/api/support", "/debug/pprof/", "/nowhere?" + mark} {
			for _, a := range send(t, s.Admin, request("GET "+path, local, "Cookie: "+mark), 1) {
				clean(t, path, fmt.Sprint(a.header, a.body), tokens...)
			}
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		clean(t, "the command line", string(cmdline), tokens...)
		// A crash prints the stacks of all goroutines.
		if err := s.Cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		if s.Exit(); !strings.Contains(s.Stderr.String(), "goroutine ") {
			t.Error("it did not crash")
		}
		clean(t, "stdout", s.Stdout.String(), tokens...)
		clean(t, "the log and the crash", s.Stderr.String(), tokens...)
	}
}

func TestCommandsPrintNoSecret(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{ClientSecret: secretMark})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secretMark+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	echo := simulator.Fault{Path: "/oauth/token", Status: 401, Body: "{body}"}
	given := []string{"MIMECAST_CLIENT_SECRET=" + secretMark, "PROXY_API_KEY=" + keyMark}
	for name, c := range map[string]struct {
		fault   *simulator.Fault
		environ []string
		args    []string
		code    int
	}{
		"check":                {nil, given, []string{"check"}, 0},
		"check as JSON":        {nil, given, []string{"check", "--json"}, 0},
		"check that is echoed": {&echo, given, []string{"check", "--json"}, 1},
		"support, no proxy":    {nil, given, []string{"support"}, 1},
		"support, echoed":      {&echo, given, []string{"support"}, 1},
		"help":                 {nil, given, []string{"help"}, 0},
		"version":              {nil, given, []string{"version"}, 0},
		"run without a token":  {&echo, given, []string{"run", "--", "true"}, 1},
		"both":                 {nil, append(given, "MIMECAST_CLIENT_SECRET_FILE="+file), nil, 2},
		"a line break":         {nil, []string{"MIMECAST_CLIENT_SECRET=" + secretMark + "\nx", "PROXY_API_KEY=" + keyMark + "\n"}, nil, 2},
		"secret for its path":  {nil, []string{"MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE=" + secretMark}, nil, 2},
		"key for its path":     {nil, append(given[:1:1], "PROXY_API_KEY_FILE="+keyMark), nil, 2},
		"URLs with passwords":  {nil, append(given, "MIMECAST_BASE_URL=https://u:"+mark+"@x.example", "HTTPS_PROXY=ftp://u:"+mark+"@x.example", "MIMECAST_TOKEN_URL=https://x.example/?s="+mark), nil, 2},
		"a company proxy":      {nil, append(given, "MIMECAST_BASE_URL=https://x.example", "HTTPS_PROXY=http://u:"+mark+"@127.0.0.1:1"), []string{"check"}, 1},
		"misspelt":             {nil, append(given, "MIMECAST_CLIENT_SECRETS="+secretMark, "PROXY_APIKEY="+keyMark), []string{"check"}, 0},
	} {
		id := 0
		if c.fault != nil {
			id = sim.AddFault(*c.fault)
		}
		p := program.Start(t, program.Environ(t, sim, c.environ...), c.args...)
		code := p.Exit()
		all := p.Stdout.String() + p.Stderr.String()
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s", name, code, c.code, all)
		}
		clean(t, name, all)
		if c.fault != nil {
			sim.RemoveFault(id)
		}
	}
}

func TestCommandOfRunHasNoSecretInItsEnvironment(t *testing.T) {
	sim := program.Simulate(t, simulator.Options{ClientSecret: secretMark})
	file := filepath.Join(t.TempDir(), mark)
	if err := os.WriteFile(file, []byte(keyMark), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string][]string{
		"variables": {"MIMECAST_CLIENT_SECRET=" + secretMark, "PROXY_API_KEY=" + keyMark},
		"files":     {"MIMECAST_CLIENT_SECRET=" + secretMark, "PROXY_API_KEY_FILE=" + file},
	} {
		p := program.Start(t, program.Environ(t, sim, append(more, "KEPT=yes", "PATH="+os.Getenv("PATH"))...), "run", "--", "cat", "/proc/self/environ", "/proc/self/cmdline")
		code, said := p.Exit(), p.Stdout.String()
		if code != 0 || !strings.Contains(said, "KEPT=yes") || !strings.Contains(said, "MIMECAST_BASE_URL=http://127.0.0.1:") {
			t.Errorf("%s: exit %d: %q\n%s", name, code, said, p.Stderr.String())
		}
		clean(t, name, said+p.Stderr.String())
	}
}

// A profile of a process can reveal its memory, so there must be no profiling endpoint.
func TestNothingIsThereToDebugWith(t *testing.T) {
	s := newStand(t)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/debug/events", "/debug/"} {
		if got := send(t, s.Admin, request("GET "+path, local), 1); len(got) != 1 || got[0].status != 404 {
			t.Errorf("admin %s: %+v", path, got)
		}
		s.passes(request("GET "+path, local)) // forwarded to Mimecast like any other path
	}
}
