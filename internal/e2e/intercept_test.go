//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// legacyClient is a small client with Mimecast's address hard-coded. It prints
// "mimecast STATUS" and "foreign STATUS CERTIFICATE", with the certificate in base64.
type legacyClient struct {
	name string
	argv []string
	// serviceOnly means that the client needs settings that run cannot make.
	serviceOnly bool
	// missing returns what this machine lacks for the client, or "".
	missing func() string
}

const curlClient = `echo mimecast $(curl -sS -o /dev/null -w '%{http_code}' ` + whoamiURL + `)
echo foreign $(curl -sS -o /dev/null -w '%{http_code} %{certs}' ` + foreignURL + `)`

const urllibClient = `
import base64, urllib.request
print("mimecast", urllib.request.urlopen("` + whoamiURL + `", timeout=20).status)
r = urllib.request.urlopen("` + foreignURL + `", timeout=20)
print("foreign", r.status, base64.b64encode(r.fp.raw._sock.getpeercert(True)).decode())
`

const requestsClient = `
import base64, requests
print("mimecast", requests.get("` + whoamiURL + `", timeout=20).status_code)
r = requests.get("` + foreignURL + `", timeout=20, stream=True)
print("foreign", r.status_code, base64.b64encode(r.raw.connection.sock.getpeercert(True)).decode())
`

// nodeClient opens the tunnel manually, as Node.js libraries do. Node's https module
// reads no proxy variables before version 24.
const nodeClient = `
const http = require('http'), https = require('https'), tls = require('tls');
const get = (name, host, path) => new Promise((done, fail) => {
  const proxy = new URL(process.env.HTTPS_PROXY), headers = {};
  if (proxy.username) headers['Proxy-Authorization'] = 'Basic ' + Buffer.from(proxy.username + ':' + proxy.password).toString('base64');
  http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: host + ':443', headers}).on('connect', (r, socket) => {
    if (r.statusCode != 200) return fail(new Error('CONNECT: ' + r.statusCode));
    https.get({host, path, port: 443, defaultPort: 443, createConnection: () => tls.connect({socket, servername: host})}, (res) => {
      console.log(name, res.statusCode, res.socket.getPeerCertificate().raw.toString('base64'));
      res.resume().on('end', () => { socket.destroy(); done(); });
    }).on('error', fail);
  }).on('error', fail).end();
});
get('mimecast', 'eu-api.mimecast.com', '/identity/whoami').then(() => get('foreign', '` + foreignHost + `', '/'));
`

// fetchClient cannot see the server's certificate.
const fetchClient = `
(async () => {
  console.log('mimecast', (await fetch('` + whoamiURL + `')).status);
  console.log('foreign', (await fetch('` + foreignURL + `')).status, 'unseen');
})();
`

const phpClient = `
function get($name, $url) {
  $c = curl_init($url);
  curl_setopt_array($c, [CURLOPT_RETURNTRANSFER => true, CURLOPT_CERTINFO => true, CURLOPT_TIMEOUT => 20]);
  if (curl_exec($c) === false) exit(curl_error($c));
  echo $name, " ", curl_getinfo($c, CURLINFO_HTTP_CODE), " ", curl_getinfo($c, CURLINFO_CERTINFO)[0]["Cert"], "\n";
}
get("mimecast", "` + whoamiURL + `");
get("foreign", "` + foreignURL + `");
`

const javaClient = `
import java.net.*;
import java.util.Base64;
import javax.net.ssl.HttpsURLConnection;
public class Client {
  static void get(String name, String url) throws Exception {
    HttpsURLConnection c = (HttpsURLConnection) new URL(url).openConnection();
    c.connect();
    String certificate = Base64.getEncoder().encodeToString(c.getServerCertificates()[0].getEncoded());
    System.out.println(name + " " + c.getResponseCode() + " " + certificate);
  }
  public static void main(String[] args) throws Exception {
    get("mimecast", "` + whoamiURL + `");
    get("foreign", "` + foreignURL + `");
  }
}
`

// lacks returns a function that returns which program is missing or which test of one
// fails.
func lacks(programs []string, test ...string) func() string {
	return func() string {
		for _, name := range programs {
			if _, err := exec.LookPath(name); err != nil {
				return name + " is not on this machine"
			}
		}
		if len(test) > 0 {
			if out, err := exec.Command(test[0], test[1:]...).CombinedOutput(); err != nil {
				return fmt.Sprintf("%s: %v\n%s", test[0], err, out)
			}
		}
		return ""
	}
}

// readsProxyVariables exits with 0 if Node.js's fetch supports HTTPS_PROXY.
const readsProxyVariables = `const [a, b] = process.versions.node.split('.').map(Number); process.exit(a >= 24 || a == 22 && b >= 21 ? 0 : 1)`

func legacyClients(t *testing.T) []legacyClient {
	t.Helper()
	source := filepath.Join(t.TempDir(), "Client.java")
	if err := os.WriteFile(source, []byte(javaClient), 0o600); err != nil {
		t.Fatal(err)
	}
	return []legacyClient{
		{name: "curl", argv: []string{"sh", "-c", curlClient}, missing: lacks([]string{"curl"})},
		{name: "urllib", argv: []string{program.Python(), "-c", urllibClient}, missing: lacks([]string{"python3"})},
		{name: "requests", argv: []string{program.Python(), "-c", requestsClient}, missing: lacks([]string{"python3"}, program.Python(), "-c", "import requests")},
		{name: "Go", argv: []string{os.Args[0]}, missing: func() string {
			if runtime.GOOS == "darwin" {
				return "Go reads SSL_CERT_FILE on other systems only"
			}
			return ""
		}},
		{name: "node https", argv: []string{"node", "-e", nodeClient}, missing: lacks([]string{"node"})},
		{name: "node fetch", argv: []string{"node", "-e", fetchClient}, missing: lacks([]string{"node"}, "node", "-e", readsProxyVariables)},
		{name: "PHP", argv: []string{"php", "-r", phpClient}, missing: lacks([]string{"php"}, "php", "-r", "exit(function_exists('curl_init') ? 0 : 1);")},
		{name: "Java", argv: []string{"java", source}, serviceOnly: true, missing: lacks([]string{"java", "javac", "keytool"})},
	}
}

// surroundings are the servers that clients call: a Mimecast, and a foreign server with a
// separate certificate. The foreign one is only reachable through a corporate proxy.
type surroundings struct {
	sim *simulator.Server
	// corporate is the URL of the corporate proxy. foreignPEM is a file with the foreign
	// server's self-signed certificate.
	corporate, foreignPEM, certificate string

	mu sync.Mutex
	// headers are those of all requests to the corporate proxy and the foreign server.
	headers []http.Header
}

func newSurroundings(t *testing.T) *surroundings {
	t.Helper()
	o := &surroundings{sim: program.Simulate(t, simulator.Options{}), foreignPEM: filepath.Join(t.TempDir(), "foreign.pem")}
	pair, _ := peer.Certificate(t, foreignHost)
	o.certificate = base64.StdEncoding.EncodeToString(pair.Certificate[0])
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	if err := os.WriteFile(o.foreignPEM, text, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { o.record(r) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}} //nolint:gosec // Go's default minimum is right
	server.StartTLS()
	t.Cleanup(server.Close)
	corporate := peer.ConnectProxy(t, func(address string) (net.Conn, error) {
		if address != foreignHost+":443" {
			return nil, fmt.Errorf("the corporate proxy was asked for %s", address)
		}
		return net.Dial("tcp", server.Listener.Addr().String())
	})
	connect := corporate.Config.Handler
	corporate.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.record(r)
		connect.ServeHTTP(w, r)
	})
	corporate.Start()
	t.Cleanup(corporate.Close)
	o.corporate = corporate.URL
	return o
}

func (o *surroundings) record(r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.headers = append(o.headers, r.Header.Clone())
}

// check fails the test unless a client reached both servers and no third party got a
// secret.
func (o *surroundings) check(t *testing.T, out string, password string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	joined := strings.ReplaceAll(flat, " ", "")
	if !strings.Contains(flat, "mimecast 200") || !strings.Contains(flat, "foreign 200") || !strings.Contains(joined, o.certificate) && !strings.Contains(flat, "foreign 200 unseen") {
		t.Errorf("it printed:\n%s", out)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.headers) < 2 {
		t.Errorf("the corporate proxy and the server behind it got %d requests", len(o.headers))
	}
	for _, h := range o.headers {
		all := fmt.Sprint(h)
		if h.Get("Authorization") != "" || h.Get("Proxy-Authorization") != "" || password != "" && strings.Contains(all, password) {
			t.Errorf("a stranger got %s", all)
		}
	}
	o.headers = nil
}

// tools returns the variables that programs need to start.
func tools(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TEST_CHILD=intercept"}, more...)
}

func TestUnmodifiedClientsReachMimecastThroughRun(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, c := range legacyClients(t) {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); c.serviceOnly || why != "" {
				t.Skip(why)
			}
			o := newSurroundings(t)
			// The user's existing certificates and proxy.
			environ := program.Environ(t, o.sim, tools("HTTPS_PROXY="+o.corporate, "SSL_CERT_FILE="+o.foreignPEM, "NODE_EXTRA_CA_CERTS="+o.foreignPEM)...)
			p := program.Start(t, environ, append([]string{"run", "--intercept", "--"}, c.argv...)...)
			if code := p.Exit(); code != 0 {
				t.Errorf("exit %d", code)
			}
			o.check(t, p.Stdout.String(), "")
			if n := o.sim.Counts().Authorized; n != 1 {
				t.Errorf("Mimecast got %d requests with a token", n)
			}
		})
	}
}

// interceptAddress finds the address of the forward proxy in the log.
var interceptAddress = regexp.MustCompile(`"intercepting":"([^"]+)"`)

func forwardProxy(t *testing.T, p *program.Program) string {
	t.Helper()
	found := interceptAddress.FindStringSubmatch(p.Stderr.String())
	if found == nil {
		t.Fatal("there is no forward proxy in the log")
	}
	return found[1]
}

// concatenate writes the contents of files into a new one.
func concatenate(t *testing.T, names ...string) string {
	t.Helper()
	var all []byte
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	path := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// clientEnviron returns the environment of a forward proxy's client, as in
// docs/legacy.md. It keeps the user's certificates.
func clientEnviron(t *testing.T, address, caDir, foreignPEM string) []string {
	t.Helper()
	bundle := concatenate(t, filepath.Join(caDir, "ca.pem"), foreignPEM)
	if _, err := os.Stat(filepath.Join(caDir, "bundle.pem")); err == nil {
		bundle = concatenate(t, filepath.Join(caDir, "bundle.pem"), foreignPEM)
	}
	own := concatenate(t, filepath.Join(caDir, "ca.pem"), foreignPEM)
	ini := t.TempDir()
	if err := os.WriteFile(filepath.Join(ini, "mimecast-proxy.ini"), []byte("curl.cainfo="+bundle+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return tools("HTTPS_PROXY=http://"+address, "https_proxy=http://"+address, "SSL_CERT_FILE="+bundle, "REQUESTS_CA_BUNDLE="+bundle, "CURL_CA_BUNDLE="+bundle,
		"NODE_EXTRA_CA_CERTS="+own, "NODE_USE_ENV_PROXY=1", "PHP_INI_SCAN_DIR=:"+ini)
}

// javaOptions creates a trust store. It returns the variable that makes a JVM use the
// store and the forward proxy.
func javaOptions(t *testing.T, address string, certificates ...string) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "truststore")
	for i, file := range certificates {
		out, err := exec.CommandContext(t.Context(), "keytool", "-importcert", "-noprompt", "-alias", fmt.Sprint("ca", i), "-file", file, "-keystore", store, "-storepass", "changeit").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=%s -Dhttps.proxyPort=%s -Djavax.net.ssl.trustStore=%s -Djavax.net.ssl.trustStorePassword=changeit", host, port, store)
}

func TestUnmodifiedClientsReachMimecastThroughTheForwardProxy(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	o, caDir := newSurroundings(t), t.TempDir()
	p := program.Serve(t, o.sim, "PROXY_INTERCEPT_LISTEN=127.0.0.1:0", "PROXY_INTERCEPT_CA_DIR="+caDir, "HTTPS_PROXY="+o.corporate)
	address := forwardProxy(t, p)
	environ := clientEnviron(t, address, caDir, o.foreignPEM)
	for _, c := range legacyClients(t) {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); why != "" {
				t.Skip(why)
			}
			cmd := exec.CommandContext(t.Context(), c.argv[0], c.argv[1:]...)
			cmd.Env = environ
			if c.name == "Java" {
				cmd.Env = append(slices.Clip(environ), javaOptions(t, address, filepath.Join(caDir, "ca.pem"), o.foreignPEM))
			}
			before := o.sim.Counts().Authorized
			out, err := cmd.Output()
			if err != nil {
				t.Error(err)
				if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output does not wrap its error
					t.Logf("%s", e.Stderr)
				}
			}
			o.check(t, string(out), "")
			if n := o.sim.Counts().Authorized - before; n != 1 {
				t.Errorf("Mimecast got %d requests with a token", n)
			}
		})
	}
}

// trustFolderOf returns the folder with run's certificates, which is the only one in
// TMPDIR, or "" if there is none.
func trustFolderOf(t *testing.T, tmp string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(found) > 1 {
		t.Fatal(found, err)
	}
	return strings.Join(found, "")
}

func TestCertificatesOfRunAreGoneWithTheCommand(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for name, c := range map[string]struct {
		signal syscall.Signal
		argv   []string
		code   int
	}{
		"it ends":          {0, []string{os.Args[0]}, 0},
		"it cannot start":  {0, []string{"/nowhere/command"}, 127},
		"SIGTERM":          {syscall.SIGTERM, []string{os.Args[0]}, 128 + int(syscall.SIGTERM)},
		"SIGHUP":           {syscall.SIGHUP, []string{os.Args[0]}, 128 + int(syscall.SIGHUP)},
		"SIGTERM, trapped": {syscall.SIGTERM, []string{"sh", "-c", `trap 'exit 3' TERM; echo sleeping $HTTPS_PROXY; while :; do sleep 0.05; done`}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "it ends" && name != "SIGTERM" {
				t.Skip("each way to end takes a process")
			}
			tmp, child := t.TempDir(), "environ"
			if c.signal != 0 {
				child = "sleep"
			}
			p := program.Start(t, program.Environ(t, sim, tools("TMPDIR="+tmp, "TEST_CHILD="+child)...), append([]string{"run", "--intercept", "--"}, c.argv...)...)
			if c.signal != 0 {
				p.Stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "sleeping") })
				folder := trustFolderOf(t, tmp)
				checkPrivate(t, folder)
				p.Signal(c.signal)
			}
			if code := p.Exit(); code != c.code {
				t.Errorf("exit %d, not %d", code, c.code)
			}
			if folder := trustFolderOf(t, tmp); folder != "" {
				t.Errorf("%s is still there", folder)
			}
			if text := p.Stdout.String() + p.Stderr.String(); strings.Contains(text, "PRIVATE KEY") {
				t.Error("a key was printed")
			}
		})
	}
}

// checkPrivate fails the test unless only this user can read the folder's files. They
// must be only certificates and settings.
func checkPrivate(t *testing.T, folder string) {
	t.Helper()
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatal(info, err)
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 8 { // one for each variable, ca.pem and php.ini
		t.Fatal(files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info, err)
		}
		text, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil || bytes.Count(text, []byte("-----BEGIN ")) != bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----")) {
			t.Errorf("%s has something else: %v", f.Name(), err)
		}
	}
}

// askTunnel sends CONNECT to a forward proxy and returns the response's status and code.
func askTunnel(t *testing.T, address, target, authorization string) (status int, code string) {
	t.Helper()
	conn := program.Dial(t, address)
	defer conn.Close()
	header := ""
	if authorization != "" {
		header = "Proxy-Authorization: " + authorization + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n", target, header); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode, res.Header.Get("X-Mimecast-Proxy-Error")
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestForwardProxyOfRunAsksForItsPassword(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Start(t, program.Environ(t, sim, tools("TEST_CHILD=sleep", "PROXY_LOG_LEVEL=trace")...), "run", "--intercept", "--", "sh", "-c", `echo "$HTTPS_PROXY sleeping"; exec sleep 60`)
	p.Stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "sleeping") })
	proxy, err := url.Parse(strings.Fields(p.Stdout.String())[0])
	if err != nil {
		t.Fatal(err)
	}
	password, _ := proxy.User.Password()
	for _, c := range []struct {
		authorization string
		status        int
		code          string
	}{
		{"", 407, "proxy_auth_required"}, {basic("run", "wrong"), 407, "proxy_auth_required"}, {basic("run", ""), 407, "proxy_auth_required"},
		{basic(password, "run"), 407, "proxy_auth_required"}, {basic("run", password[1:]), 407, "proxy_auth_required"}, {basic("run", password), 200, ""},
	} {
		for _, target := range []string{"eu-api.mimecast.com:443", "127.0.0.1:1"} {
			if target == "127.0.0.1:1" && c.status == 200 {
				continue
			}
			if status, code := askTunnel(t, proxy.Host, target, c.authorization); status != c.status || code != c.code {
				t.Errorf("%s with %q: %d %s", target, c.authorization, status, code)
			}
		}
	}
	p.Signal(syscall.SIGTERM)
	p.Exit()
	if len(password) < 20 || strings.Contains(p.Stderr.String(), password) {
		t.Error("the password is short, or in the log")
	}
}

func TestRunNamesANoProxyThatExemptsMimecast(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	const warning = "interception bypassed by NO_PROXY"
	for list, warns := range map[string]bool{"*": true, ".mimecast.com": true, "a.test,eu-api.mimecast.com": true, "a.test api.services.mimecast.com:443": true, "mimecast.com.test": false, "not-mimecast.com": false, "a.test": false} {
		if testing.Short() && list != "*" && list != "a.test" {
			continue // each takes a separate process
		}
		p := program.Start(t, program.Environ(t, sim, tools("NO_PROXY="+list)...), "run", "--intercept", "--", "true")
		if code := p.Exit(); code != 0 || strings.Contains(p.Stderr.String(), warning) != warns {
			t.Errorf("NO_PROXY=%s: exit %d\n%s", list, code, p.Stderr.String())
		}
	}
}

// forms returns the forms in which a key might be shown: lines of PEM, and the private
// number.
func forms(t *testing.T, keyPEM []byte) []string {
	t.Helper()
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		t.Fatal("there is no key")
	}
	text := base64.StdEncoding.EncodeToString(block.Bytes)
	// In PKCS #8, the first 36 bytes are the same for all P-256 keys; the number follows.
	number := block.Bytes[36:68]
	return []string{"PRIVATE KEY", text[64:128], fmt.Sprintf("%x", number), base64.StdEncoding.EncodeToString(number)[:40], fmt.Sprintf("%d", number)}
}

func TestKeyOfTheCAShowsNowhere(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	o, caDir := newSurroundings(t), t.TempDir()
	p := program.Serve(t, o.sim, "PROXY_INTERCEPT_LISTEN=127.0.0.1:0", "PROXY_INTERCEPT_CA_DIR="+caDir, "HTTPS_PROXY="+o.corporate, "PROXY_LOG_LEVEL=trace")
	client := interceptedClient(t, p, "")
	for range 3 {
		if status, _ := get(t, client, whoamiURL, nil); status != 200 {
			t.Fatal(status)
		}
	}
	key, err := os.ReadFile(filepath.Join(caDir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{}
	for _, path := range []string{"/", "/api/status", "/api/support", "/metrics", "/readyz", "/ca.pem"} {
		_, places[path] = p.AdminGet(path)
	}
	for _, name := range []string{"ca.pem", "bundle.pem"} {
		text, err := os.ReadFile(filepath.Join(caDir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		places[name] = string(text)
	}
	client.CloseIdleConnections()
	if info, err := os.Stat(filepath.Join(caDir, "ca-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	p.Signal(syscall.SIGTERM)
	p.Exit()
	places["log"] = p.Stdout.String() + p.Stderr.String()
	for place, text := range places {
		for _, form := range forms(t, key) {
			if strings.Contains(text, form) {
				t.Errorf("the key is in %s", place)
			}
		}
	}
	if !strings.Contains(places["/ca.pem"], "BEGIN CERTIFICATE") || places["/ca.pem"] != places["ca.pem"] {
		t.Errorf("/ca.pem is\n%s", places["/ca.pem"])
	}
	// run's child must get what it needs but no key.
	tmp := t.TempDir()
	run := program.Start(t, program.Environ(t, o.sim, tools("TMPDIR="+tmp, "TEST_CHILD=environ")...), "run", "--intercept", "--", os.Args[0])
	if code := run.Exit(); code != 0 || strings.Contains(run.Stdout.String(), "PRIVATE KEY") || !strings.Contains(run.Stdout.String(), "SSL_CERT_FILE="+tmp) {
		t.Errorf("exit %d\n%s", code, run.Stdout.String())
	}
	checkNoKeyBelow(t, tmp)
}

func checkNoKeyBelow(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is still there", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// interceptedClient uses the forward proxy and trusts the certificates of /ca.pem.
func interceptedClient(t *testing.T, p *program.Program, key string) *http.Client {
	t.Helper()
	_, certificate := p.AdminGet("/ca.pem")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		t.Fatalf("/ca.pem is %q", certificate)
	}
	via := &url.URL{Scheme: "http", Host: forwardProxy(t, p)}
	if key != "" {
		via.User = url.UserPassword("any", key)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(via), TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true} //nolint:gosec // Go's default minimum is right
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get returns a response's status and code.
func get(t *testing.T, client *http.Client, address string, header http.Header) (status int, code string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("X-Mimecast-Proxy-Error")
}

func TestInterceptedRequestsAreCheckedAsOthers(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_INTERCEPT_LISTEN=127.0.0.1:0", "PROXY_ALLOW=GET /identity/")
	client := interceptedClient(t, p, "")
	const host = "https://eu-api.mimecast.com"
	for _, c := range []struct {
		path   string
		header http.Header
		status int
		code   string
	}{
		{"/identity/whoami", nil, 200, ""},
		{"/identity/whoami", http.Header{"Authorization": {"MC key:signature"}, "X-Mc-App-Id": {"app"}, "Cookie": {"a=b"}}, 200, ""},
		{"/api/account/get-account", nil, 403, "route_not_allowed"},
		{"/identity/../api/x", nil, 400, "bad_request_target"},
		{"/identity/whoami", http.Header{"Origin": {"https://evil.example"}}, 403, "origin_not_allowed"},
	} {
		if status, code := get(t, client, host+c.path, c.header); status != c.status || code != c.code {
			t.Errorf("%s %v: %d %s", c.path, c.header, status, code)
		}
	}
	for _, r := range sim.Requests() {
		if h := r.Header; strings.Contains(fmt.Sprint(h), "signature") || h.Get("X-Mc-App-Id")+h.Get("Cookie") != "" {
			t.Errorf("Mimecast got %v", h)
		}
	}
}

func TestForwardProxyBeyondLoopbackReachesMimecastAlone(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for _, trust := range []string{"false", "true"} {
		open := program.Start(t, program.Environ(t, sim, "PROXY_INTERCEPT_LISTEN=0.0.0.0:0", "PROXY_TRUST_NETWORK="+trust))
		if code := open.Exit(); code != 2 || !strings.Contains(open.Stderr.String(), "PROXY_INTERCEPT_LISTEN") {
			t.Errorf("without a key, PROXY_TRUST_NETWORK=%s: exit %d\n%s", trust, code, open.Stderr.String())
		}
	}
	const key = "0123456789abcdef0123456789abcdef"
	keyed := program.Serve(t, sim, "PROXY_INTERCEPT_LISTEN=0.0.0.0:0", "PROXY_API_KEY="+key)
	for _, c := range []struct {
		p                     *program.Program
		target, authorization string
		status                int
		code                  string
	}{
		{keyed, "eu-api.mimecast.com:443", "", 407, "proxy_auth_required"},
		{keyed, "eu-api.mimecast.com:443", basic("any", "wrong"), 407, "proxy_auth_required"},
		{keyed, "eu-api.mimecast.com:443", basic("any", key), 200, ""},
		{keyed, foreignHost + ":443", basic("any", key), 403, "tunnel_not_allowed"},
		{keyed, "169.254.169.254:443", basic("any", key), 403, "tunnel_not_allowed"},
		{keyed, strings.TrimPrefix(keyed.AdminURL, "http://"), basic("any", key), 403, "tunnel_not_allowed"},
	} {
		_, port, err := net.SplitHostPort(forwardProxy(t, c.p))
		if err != nil {
			t.Fatal(err)
		}
		if status, code := askTunnel(t, net.JoinHostPort("127.0.0.1", port), c.target, c.authorization); status != c.status || code != c.code {
			t.Errorf("%s with %q: %d %s", c.target, c.authorization, status, code)
		}
	}
	for _, r := range sim.Requests() {
		if strings.Contains(fmt.Sprint(r.Header), key) {
			t.Error("Mimecast got the key")
		}
	}
}

// A client that ignores HTTPS_PROXY reaches the TLS port through the hosts file, and
// trusts the CA.
func TestTLSPortOfTheCAServesARedirectedName(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_TLS_LISTEN=127.0.0.1:0", "PROXY_ALLOWED_HOSTS=eu-api.mimecast.com")
	_, certificate := p.AdminGet("/ca.pem")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		t.Fatalf("/ca.pem is %q", certificate)
	}
	for name, want := range map[string]int{"eu-api.mimecast.com": 200, "us-api.mimecast.com": 403, "localhost": 200} {
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, //nolint:gosec // Go's default minimum is right
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { // simulates the hosts file
				return (&net.Dialer{}).DialContext(ctx, network, tlsPort(t, p))
			},
		}
		if status, code := get(t, &http.Client{Transport: transport}, "https://"+name+"/identity/whoami", nil); status != want {
			t.Errorf("%s: %d %s", name, status, code)
		}
		transport.CloseIdleConnections()
	}
}
