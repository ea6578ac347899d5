package e2e

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

var update = flag.Bool("update", false, "write what the program prints into docs/troubleshooting.md")

// trouble is a problem of a new user: its cause, what the user does, and which words of the
// output say what to do. The document shows all of it.
type trouble struct {
	name string
	// sim returns the Mimecast; nil means one without problems.
	sim func(t *testing.T) *simulator.Server
	// environ returns changes to a working configuration.
	environ func(t *testing.T, sim *simulator.Server) []string
	// without are variables to leave out.
	without []string
	// check are the arguments of the check command, if it is run.
	check []string
	// script is the content of ./collect.sh, if there is one.
	script string
	// run are the arguments after run --; if set, run replaces serve.
	run []string
	// ends means that the proxy does not start.
	ends bool
	// line is a text that a log line must contain to be shown.
	line string
	// ask sends a request; the document shows it as command.
	command string
	ask     func(t *testing.T, p *program.Program) (*http.Response, error)
	// says must be in every shown output.
	says string
}

// curl makes a request as curl does.
func curl(path string, header ...string) func(t *testing.T, p *program.Program) (*http.Response, error) {
	return func(t *testing.T, p *program.Program) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", p.URL+path, nil)
		if err != nil {
			return nil, err
		}
		if len(header) > 0 {
			req.Host = header[0]
		}
		return p.Client.Do(req)
	}
}

// unreachable is an address at which nothing listens: no test gets that port.
const unreachable = "127.0.0.1:1"

func faulty(f simulator.Fault) func(*testing.T) *simulator.Server {
	return func(t *testing.T) *simulator.Server {
		sim := program.Simulate(t, simulator.Options{})
		sim.AddFault(f)
		return sim
	}
}

func simulated(o simulator.Options) func(*testing.T) *simulator.Server {
	return func(t *testing.T) *simulator.Server { return program.Simulate(t, o) }
}

func setting(variables ...string) func(*testing.T, *simulator.Server) []string {
	return func(*testing.T, *simulator.Server) []string { return variables }
}

const whoami = "curl -i http://127.0.0.1:8080/identity/whoami"

var troubles = []trouble{
	{name: "no-variables", without: []string{"MIMECAST_CLIENT_ID", "MIMECAST_CLIENT_SECRET"}, ends: true, says: "API 2.0 application"},
	{name: "wrong-region", without: []string{"MIMECAST_BASE_URL"}, environ: setting("MIMECAST_REGION=eu"), ends: true, says: "global, us or uk"},
	{name: "old-host", environ: setting("MIMECAST_BASE_URL=https://eu-api.mimecast.com"), ends: true, says: "API 2.0 at https://api.services.mimecast.com"},
	{name: "wrong-secret", sim: simulated(simulator.Options{ClientSecret: "another"}), check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "MIMECAST_CLIENT_SECRET"},
	{name: "tls-inspection", without: []string{"MIMECAST_CA_FILE"}, check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "MIMECAST_CA_FILE"},
	{name: "no-dns", environ: setting("MIMECAST_BASE_URL=https://api.services.mimecast.invalid"), check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "DNS"},
	{name: "no-way", environ: func(t *testing.T, _ *simulator.Server) []string {
		return []string{"MIMECAST_BASE_URL=https://" + unreachable}
	}, check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "HTTPS_PROXY"},
	{name: "corporate-proxy", without: []string{"MIMECAST_BASE_URL"}, environ: func(t *testing.T, _ *simulator.Server) []string {
		return []string{"HTTPS_PROXY=http://" + unreachable}
	}, check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "The corporate proxy in HTTPS_PROXY cannot be reached"},
	{name: "port-taken", environ: func(t *testing.T, _ *simulator.Server) []string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return []string{"PROXY_LISTEN=" + l.Addr().String()}
	}, ends: true, says: "set PROXY_LISTEN to another address"},
	{name: "run-one-word", run: []string{"curl -s http://localhost/"}, says: "run -- curl -s http://localhost/"},
	{name: "run-crlf", script: "#!/bin/sh\r\n", run: []string{"./collect.sh"}, says: "sed -i"},
	{name: "run-no-interpreter", script: "echo\n", run: []string{"./collect.sh"}, says: "run -- sh ./collect.sh"},
	{name: "clock-behind", sim: faulty(simulator.Fault{Path: "/oauth/token", Header: map[string]string{"Date": time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat)}}),
		check: []string{}, line: "this machine's clock", says: "clock is"},
	{name: "clock-far-off", sim: simulated(simulator.Options{Certificate: simulator.CertificateExpired}), check: []string{}, line: "token request failed", command: whoami, ask: curl("/identity/whoami"), says: "Check this machine's clock"},
	{name: "lacking-product", sim: func(t *testing.T) *simulator.Server {
		sim := program.Simulate(t, simulator.Options{})
		sim.Forbid("/siem/")
		return sim
	}, check: []string{"--path", "/siem/v1/events/cg?types=receipt"}, line: "mimecast_forbidden", command: "curl -i 'http://127.0.0.1:8080/siem/v1/events/cg?types=receipt'", ask: curl("/siem/v1/events/cg?types=receipt")},
	{name: "other-name", line: "host_not_allowed", command: "curl -i http://mimecast-proxy:8080/identity/whoami", ask: curl("/identity/whoami", "mimecast-proxy"), says: "PROXY_ALLOWED_HOSTS"},
	{name: "as-http-proxy", line: "bad_request_target", command: "curl -i -x http://127.0.0.1:8080 http://api.services.mimecast.com/identity/whoami", ask: func(_ *testing.T, p *program.Program) (*http.Response, error) {
		via, err := url.Parse(p.URL)
		if err != nil {
			return nil, err
		}
		client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(via), DisableKeepAlives: true}}
		return client.Get("http://api.services.mimecast.com/identity/whoami")
	}, says: "base URL"},
}

// variables returns a working environment without the variables to leave out and with the
// changes.
func (c *trouble) variables(t *testing.T, sim *simulator.Server) []string {
	changed := []string{"PROXY_LOG_FORMAT=console"}
	if c.environ != nil {
		changed = append(changed, c.environ(t, sim)...)
	}
	out := slices.Clone(c.without)
	for _, v := range changed {
		name, _, _ := strings.Cut(v, "=")
		out = append(out, name)
	}
	env := slices.DeleteFunc(program.Environ(t, sim), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(out, name)
	})
	return append(env, changed...)
}

// show runs the program as the user does and returns the output.
func (c *trouble) show(t *testing.T) string {
	if c.sim == nil {
		c.sim = simulated(simulator.Options{})
	}
	sim := c.sim(t)
	env := c.variables(t, sim)
	tidy := tidier(sim, env)
	shown := ""
	if c.check != nil {
		p := program.Start(t, env, append([]string{"check"}, c.check...)...)
		code := p.Exit()
		shown = strings.Join(append([]string{"$ mimecast-proxy check"}, c.check...), " ") + "\n" + tidy(p.Stdout.String()+p.Stderr.String()) + exitLine(code) + "\n"
	}
	if c.run != nil {
		return shown + c.showRun(t, env)
	}
	p := program.Start(t, env)
	shown += "$ mimecast-proxy\n"
	if c.ends {
		code := p.Exit()
		return shown + tidy(p.Stderr.String()) + exitLine(code)
	}
	p.AwaitServing()
	answer := ""
	if c.ask != nil {
		answer = "\n$ " + c.command + "\n" + tidy(curlShows(t, p, c))
	}
	line := regexp.MustCompile(`(?m)^.*` + c.line + `.*\n`)
	p.Stderr.Await(t, "the line with "+c.line, line.MatchString)
	statusSays(t, p, cmp.Or(c.says, c.line))
	return shown + tidy(line.FindString(p.Stderr.String())) + answer
}

// showRun is show for a command that run cannot start.
func (c *trouble) showRun(t *testing.T, env []string) string {
	dir := t.TempDir()
	if c.script != "" {
		if err := os.WriteFile(filepath.Join(dir, "collect.sh"), []byte(c.script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program.Binary(), append([]string{"run", "--"}, c.run...)...)
	cmd.Dir, cmd.Env = dir, append(env, "PATH="+os.Getenv("PATH"))
	p := program.StartCmd(t, cmd)
	code := p.Exit()
	typed := ""
	for _, word := range c.run {
		if strings.Contains(word, " ") {
			word = `"` + word + `"`
		}
		typed += " " + word
	}
	return "$ mimecast-proxy run --" + typed + "\n" + p.Stderr.String() + exitLine(code)
}

func exitLine(code int) string {
	if code == 0 {
		return ""
	}
	return fmt.Sprintf("(exit code %d)\n", code)
}

// curlShows returns the output of curl -i, without headers that do not matter here.
func curlShows(t *testing.T, p *program.Program, c *trouble) string {
	t.Helper()
	res, err := c.ask(t, p)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	b := fmt.Sprintf("%s %s\n", res.Proto, res.Status)
	for _, name := range []string{"Retry-After", "X-Mimecast-Proxy-Error"} {
		if v := res.Header.Get(name); v != "" {
			b += name + ": " + v + "\n"
		}
	}
	return b + "\n" + strings.TrimSpace(string(body)) + "\n"
}

// statusSays checks that the admin listener shows the same words.
func statusSays(t *testing.T, p *program.Program, words string) {
	t.Helper()
	program.Await(t, "the status with "+words, func() bool {
		res, err := p.Client.Get(p.AdminURL + "/api/status")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var status json.RawMessage
		if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(status), words)
	})
}

var (
	clockTime  = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}Z `)
	took       = regexp.MustCompile(`\(\d+ ms\)`)
	millis     = regexp.MustCompile(`(duration_ms|upstream_ms)=[0-9.e+-]+`)
	requestID  = regexp.MustCompile(`\brequest_id=[0-9a-f]{16}`)
	mimecastID = regexp.MustCompile(`(request id "|mimecast_request_id=)[0-9a-f-]{36}`)
	lookup     = regexp.MustCompile(`(lookup [a-z.]+)[^)]*\)`)
	validity   = regexp.MustCompile(`current time \S+ is after \S+?([")]|$)`)
	until      = regexp.MustCompile(`until \d{4}-\d\d-\d\d`)
	retryAfter = regexp.MustCompile(`Retry-After: \d+`)
	skewed     = regexp.MustCompile(`clock is [0-9hms]+ `)
)

// tidier returns a function that replaces what differs in every run. It also replaces the
// simulator's address with Mimecast's name.
func tidier(sim *simulator.Server, env []string) func(string) string {
	const host = "api.services.mimecast.com"
	simHost := strings.TrimPrefix(sim.URL, "https://")
	from := []string{sim.URL, "https://" + host, simHost, host}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		u, err := url.Parse(value)
		switch {
		case name == "PROXY_LISTEN" && value != "127.0.0.1:0":
			from = append(from, value, "127.0.0.1:8080")
		case name == "MIMECAST_BASE_URL" && err == nil && u.Port() != "":
			from = append(from, u.Host, host)
		case name == "HTTPS_PROXY" && err == nil:
			from = append(from, u.Host, "proxy.company.example:3128")
		}
	}
	names := strings.NewReplacer(from...)
	return func(s string) string {
		s = names.Replace(s)
		s = strings.ReplaceAll(s, "127.0.0.1 is 127.0.0.1", host+" is 192.0.2.1")
		s = clockTime.ReplaceAllString(s, "09:30:00.000Z ")
		s = took.ReplaceAllString(s, "(12 ms)")
		s = millis.ReplaceAllString(s, "$1=12")
		s = requestID.ReplaceAllString(s, "request_id=4bf92f3577b34da6")
		s = mimecastID.ReplaceAllString(s, "${1}3f0e1c3e-6b1d-4d5e-9f55-0d6f7c1f9a10")
		s = lookup.ReplaceAllString(s, "$1: no such host)")
		s = strings.ReplaceAll(s, "dial tcp "+host, "dial tcp 192.0.2.1:443")
		s = validity.ReplaceAllString(s, "current time 2026-01-02T09:30:00Z is after 2025-12-01T00:00:00Z$1")
		s = until.ReplaceAllString(s, "until 2026-06-01")
		s = retryAfter.ReplaceAllString(s, "Retry-After: 1")
		s = skewed.ReplaceAllString(s, "clock is 3h0m0s ")
		return s
	}
}

const troubleshooting = "docs/troubleshooting.md"

// block matches a document's block with a name.
func block(name string) *regexp.Regexp {
	return regexp.MustCompile("(?s)<!-- output: " + name + " -->\n\n```text\n(.*?)```\n")
}

func TestTroubleshootingShowsWhatIsSeen(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("other systems word their errors differently")
	}
	doc := program.ReadFile(t, troubleshooting)
	if n := strings.Count(doc, "<!-- output: "); n != len(troubles) {
		t.Errorf("%d outputs in the document, %d troubles here", n, len(troubles))
	}
	for _, c := range troubles {
		t.Run(c.name, func(t *testing.T) {
			got := c.show(t)
			for part := range strings.SplitSeq(got, "$ ") {
				if strings.TrimSpace(part) != "" && !strings.Contains(part, c.says) {
					t.Errorf("no word of %q in:\n%s", c.says, part)
				}
			}
			shown := block(c.name).FindStringSubmatchIndex(doc)
			if shown == nil {
				t.Fatalf("the document has no output %s; it is:\n%s", c.name, got)
			}
			if *update {
				doc = doc[:shown[2]] + got + doc[shown[3]:]
			} else if want := doc[shown[2]:shown[3]]; got != want {
				t.Errorf("the document shows\n%s\nand what is seen is\n%s\nrun go test ./internal/e2e -run TestTroubleshooting -update", want, got)
			}
		})
	}
	if *update {
		if err := os.WriteFile(filepath.Join(program.Root(), troubleshooting), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
