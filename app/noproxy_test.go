package app

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

func TestBothSpellingsOfNoProxyHaveThisMachine(t *testing.T) {
	const own = "127.0.0.1,localhost"
	for before, want := range map[string][2]string{ // NO_PROXY, no_proxy
		"":                                           {own, own},
		"NO_PROXY=blob.test":                         {"blob.test," + own, "blob.test," + own},
		"no_proxy=blob.test":                         {"blob.test," + own, "blob.test," + own},
		"NO_PROXY=blob.test|no_proxy=":               {"blob.test," + own, "blob.test," + own},
		"NO_PROXY=|no_proxy=":                        {own, own},
		"NO_PROXY=*":                                 {"*", "*"},
		"no_proxy= * ":                               {" * ", " * "},
		"NO_PROXY=a.test,*":                          {"a.test,*", "a.test,*"},
		"NO_PROXY=*.a.test":                          {"*.a.test," + own, "*.a.test," + own},
		"NO_PROXY=a.test|no_proxy=b.test":            {"a.test," + own, "b.test," + own},
		"NO_PROXY=*|no_proxy=b.test":                 {"*", "b.test," + own},
		"NO_PROXY=a.test, ,":                         {"a.test," + own, "a.test," + own},
		"NO_PROXY=,":                                 {own, own},
		"NO_PROXY=localhost,b.test, 127.0.0.1":       {"localhost,b.test, 127.0.0.1", "localhost,b.test, 127.0.0.1"},
		"NO_PROXY=127.0.0.10,notlocalhost":           {"127.0.0.10,notlocalhost," + own, "127.0.0.10,notlocalhost," + own},
		"NO_PROXY=a.test b.test,localhost,127.0.0.1": {own + ",a.test b.test,localhost,127.0.0.1", own + ",a.test b.test,localhost,127.0.0.1"},
		"NO_PROXY=a.test|NO_PROXY=b.test":            {"b.test," + own, "b.test," + own},
	} {
		environ := strings.Split(before, "|")
		after := childEnviron(environ, "http://127.0.0.1:1")
		for i, name := range []string{"NO_PROXY", "no_proxy"} {
			n := 0
			for _, v := range after {
				if named(name)(v) {
					n++
				}
			}
			if got := lookup(after, name); got != want[i] || n != 1 {
				t.Errorf("%q: %s=%q, %d times; want %q", before, name, got, n, want[i])
			}
		}
		if !slices.Equal(environ, strings.Split(before, "|")) {
			t.Errorf("%q: the proxy's own environment was changed", before)
		}
	}
}

// noProxyEntries are entries of lists as people write them, valid or not.
var noProxyEntries = []string{
	"blob.test", ".blob.test", "*.blob.test", "BLOB.test", "blob.test.", "test", "x.blob.test", "blob.test:80", " blob.test ", "a.test blob.test",
	"127.9.8.7", "127.9.0.0/16", "127.0.0.1", "127.0.0.1:1", "127.0.0.10", "localhost", "notlocalhost", "10.0.0.0/8", "10.1.2.3", "10.1.2.3:80",
	"::1", "[fd00::1]", "fd00::/8", "fd00::1", "münchen.test", "", "\t", "other.example", "*", ".", "[", "/",
}

// randomNoProxy returns NO_PROXY and no_proxy with random lists: either, both or neither.
func randomNoProxy(r *rand.Rand) (environ []string) {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if r.IntN(3) == 0 {
			continue
		}
		list := ""
		for range r.IntN(5) {
			list += noProxyEntries[r.IntN(len(noProxyEntries))] + []string{",", ",", ", ", " ,", ",,", ""}[r.IntN(6)]
		}
		if r.IntN(15) == 0 {
			list = "*"
		}
		environ = append(environ, name+"="+list)
	}
	return environ
}

// starAmongOthers reports whether the proxy leaves a list unchanged that contains * among other
// text. curl and Python do not treat such a list like *.
func starAmongOthers(environ []string) bool {
	return slices.ContainsFunc(environ, func(v string) bool {
		_, list, _ := strings.Cut(v, "=")
		return list != "*" && withOwnHosts(list) == list && strings.Contains(list, "*")
	})
}

// reader asks a program, for each host, whether the program reaches it directly with the lists
// in environ.
type reader func(t *testing.T, environ, hosts []string) []bool

// differ tests with random lists that a reader gets the same results before and after the proxy
// changes the lists. The exception is hosts[0], the proxy's own address: the reader must reach
// it directly.
func differ(t *testing.T, read reader, lists int, hosts ...string) {
	t.Helper()
	r := rand.New(rand.NewPCG(18, 1)) //nolint:gosec // the same lists each time
	for range lists {
		environ := randomNoProxy(r)
		child := childEnviron(environ, "http://"+hosts[0])
		before, after := read(t, environ, hosts), read(t, child, hosts)
		if !after[0] && !starAmongOthers(environ) {
			t.Errorf("%q: %s is not reached directly with %q", environ, hosts[0], child)
		}
		if !slices.Equal(before[1:], after[1:]) {
			t.Errorf("%q: of %q these were reached directly: %v; and now with %q: %v", environ, hosts[1:], before[1:], child, after[1:])
		}
	}
}

func TestGoReadsTheListAsBefore(t *testing.T) {
	read := func(t *testing.T, environ, hosts []string) (direct []bool) {
		proxy := (&httpproxy.Config{HTTPProxy: "http://proxy.test", NoProxy: cmp.Or(lookup(environ, "NO_PROXY"), lookup(environ, "no_proxy"))}).ProxyFunc()
		for _, host := range hosts {
			via, err := proxy(&url.URL{Scheme: "http", Host: host})
			if err != nil {
				t.Fatal(err)
			}
			direct = append(direct, via == nil)
		}
		return direct
	}
	differ(t, read, 5000, "127.0.0.1:8080", "blob.test", "x.blob.test:8080", "other.example", "10.1.2.3", "[fd00::1]:80", "notlocalhost")
}

func TestCurlReadsTheListAsBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("asks another program thousands of times")
	}
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not on this machine")
	}
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text+"\n") }
	}
	corporate, there := httptest.NewServer(says("proxied")), httptest.NewServer(says("direct"))
	defer corporate.Close()
	defer there.Close()
	_, port, err := net.SplitHostPort(there.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1:" + port, "blob.test:" + port, "x.blob.test:" + port, "other.example:" + port, "notlocalhost:" + port}
	// curl treats 127.9.8.7 like any address. On Linux, listening there needs no setup.
	if l, err := net.Listen("tcp", "127.9.8.7:"+port); err == nil {
		other := &httptest.Server{Listener: l, Config: &http.Server{Handler: says("direct")}} //nolint:gosec // no timeouts needed in a test
		other.Start()
		defer other.Close()
		hosts = append(hosts, "127.9.8.7:"+port)
	}
	read := func(t *testing.T, environ, hosts []string) (direct []bool) {
		t.Helper()
		args := []string{"--silent", "--show-error", "--max-time", "20"}
		for _, host := range hosts {
			args = append(args, "--resolve", host+":127.0.0.1", "http://"+host+"/")
		}
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Env = append(slices.Clone(environ), "http_proxy="+corporate.URL)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			direct = append(direct, line == "direct\n")
		}
		if len(direct) != len(hosts) {
			t.Fatalf("%q: %s", environ, out)
		}
		return direct
	}
	differ(t, read, 40, hosts...)
}

// pythonReads is a Python program. For each input line [environ, hosts], it prints which hosts
// Python reaches directly.
const pythonReads = `
import json, os, sys
from urllib.request import getproxies, proxy_bypass
def of_urllib(host):
    return "http" not in getproxies() or bool(proxy_bypass(host))
def of_requests(host):
    from requests.utils import get_environ_proxies
    return "http" not in get_environ_proxies("http://%s/" % host)
direct = {"urllib": of_urllib, "requests": of_requests}[sys.argv[1]]
direct("there.test")
for line in sys.stdin:
    environ, hosts = json.loads(line)
    for name in ("NO_PROXY", "no_proxy"):
        os.environ.pop(name, None)
    os.environ["http_proxy"] = "http://proxy.test:3128"
    for variable in environ or []:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    print(json.dumps([direct(host) for host in hosts]), flush=True)
`

var pythonLists = flag.Int("python-lists", 100, "how many lists TestPythonReadsTheListAsBefore makes up for each library; 500 to be sure")

func TestPythonReadsTheListAsBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("asks another program thousands of times")
	}
	for _, library := range []string{"urllib", "requests"} {
		t.Run(library, func(t *testing.T) {
			path, err := exec.LookPath("python3")
			if err != nil {
				t.Skip("python3 is not on this machine")
			}
			if out, err := exec.CommandContext(t.Context(), path, "-c", "import urllib.request, "+library).CombinedOutput(); err != nil {
				t.Skipf("python3 has no %s: %s", library, out)
			}
			ask := startPython(t, path, library)
			read := func(t *testing.T, environ, hosts []string) []bool {
				t.Helper()
				// Python takes an empty no_proxy for an empty list, even if NO_PROXY is set.
				empty := func(v string) bool { return v == "no_proxy=" }
				return ask(slices.DeleteFunc(slices.Clone(environ), empty), hosts)
			}
			differ(t, read, *pythonLists, "127.0.0.1:8080", "blob.test", "x.blob.test:8080", "other.example", "10.1.2.3", "notlocalhost")
		})
	}
}

// startPython starts Python with pythonReads until the test ends. It returns a func that sends
// one line to it and returns the result.
func startPython(t *testing.T, path, library string) func(environ, hosts []string) []bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, "-c", pythonReads, library)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // the context of t may have killed it
	})
	lines := bufio.NewReader(out)
	return func(environ, hosts []string) (direct []bool) {
		line, err := json.Marshal([2][]string{environ, hosts})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(in, "%s\n", line)
		answer, err := lines.ReadBytes('\n')
		if err != nil || json.Unmarshal(answer, &direct) != nil || len(direct) != len(hosts) {
			t.Fatalf("%v: %s\n%s", err, answer, stderr.String())
		}
		return direct
	}
}
