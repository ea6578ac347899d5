//go:build unix

package e2e

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const (
	connectID     = "4f8c2b7a-client-id"
	connectSecret = "S3cr3t/of+the=application"
)

// connectEnviron returns the environment of a user without a stored connection, and the
// user's home folder.
func connectEnviron(t *testing.T, sim *simulator.Server, more ...string) (environ []string, home string) {
	t.Helper()
	home = t.TempDir()
	environ = program.Environ(t, sim, append([]string{"MIMECAST_CLIENT_ID=", "MIMECAST_CLIENT_SECRET=", "HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TERM=xterm"}, more...)...)
	return environ, home
}

func application(t *testing.T) *simulator.Server {
	t.Helper()
	return program.Simulate(t, simulator.Options{ClientID: connectID, ClientSecret: connectSecret})
}

// checkNothingLeaks checks that the secret is not on the screen and the terminal is
// restored.
func checkNothingLeaks(t *testing.T, x *program.Terminal) {
	t.Helper()
	if screen := x.Screen.String(); strings.Contains(screen, connectSecret) || strings.Contains(screen, "S3cr3t") {
		t.Errorf("the secret is on the screen: %q", screen)
	}
	if !x.ModesRestored() {
		t.Error("the terminal is not as it was")
	}
}

// storedFile returns the path of a profile's private file.
func storedFile(home, profile string) string {
	return filepath.Join(home, "config", "mimecast-proxy", "connections", profile+".json")
}

func TestConnectOnATerminalStoresWhatServeThenUses(t *testing.T) {
	t.Parallel()
	sim := application(t)
	environ, home := connectEnviron(t, sim)
	x := program.StartOnTerminal(t, environ, "connect")
	x.AwaitText("The secret is shown once.")
	x.Answer("Client ID (its beginning is shown): ", connectID)
	x.AwaitText("Client secret (not shown): ")
	x.Type(connectSecret)
	x.Type("\r")
	x.AwaitText("Connected to Harbour Mills Ltd, eu; token valid for 30 minutes.")
	x.AwaitText("Stored in a private file, as profile default.")
	x.AwaitText("Next: mimecast-proxy serve")
	if code := x.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	checkNothingLeaks(t, x)
	if info, err := os.Stat(storedFile(home, "default")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}

	withoutAPI := slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, "MIMECAST_") })
	p := program.Start(t, withoutAPI).AwaitServing().AwaitReady()
	first, _, _ := strings.Cut(p.Stderr.String(), "\n")
	if !strings.Contains(first, `"credentials":"a private file, profile default"`) {
		t.Errorf("the first line of the log: %s", first)
	}
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	if _, page := p.AdminGet("/"); !strings.Contains(page, "a private file, profile default") {
		t.Error("the page does not say where the credentials come from")
	}
	for _, c := range []struct{ command, says string }{
		{"check", "characters from a private file, profile default"},
		{"connections", "default  Harbour Mills Ltd  4f8c2b7a…"},
	} {
		q := program.Start(t, withoutAPI, c.command)
		if code := q.Exit(); code != 0 || !strings.Contains(q.Stdout.String(), c.says) {
			t.Errorf("%s: exit %d, %s%s", c.command, code, q.Stdout.String(), q.Stderr.String())
		}
	}
	if q := program.Start(t, withoutAPI, "disconnect"); q.Exit() != 0 {
		t.Error(q.Stderr.String())
	}
	if _, err := os.Stat(storedFile(home, "default")); !os.IsNotExist(err) {
		t.Error(err)
	}
	if q := program.Start(t, withoutAPI, "disconnect"); q.Exit() != 2 {
		t.Error("a connection that is gone was removed")
	}
}

// pastes are texts that people paste instead of the client ID.
var pastes = map[string]string{
	"both lines at once":    connectID + "\r" + connectSecret + "\r",
	"bracketed":             "\x1b[200~" + connectID + "\r" + connectSecret + "\r\x1b[201~\r",
	"bracketed, one line":   "\x1b[200~" + connectID + "\t" + connectSecret + "\x1b[201~\r",
	"CR LF":                 connectID + "\r\n" + connectSecret + "\r\n",
	"edited":                "x\x7fwrong wrong\x154f8c-\x1b[D\x7f\x1b[5~" + connectID[4:] + "\r" + connectSecret + "é\x7f\r",
	"one line, by a tab":    connectID + "\t" + connectSecret + "\r",
	"quotes and blanks":     "  \"" + connectID + "\"\r '" + connectSecret + "' \r",
	"a byte order mark":     "\ufeff" + connectID + "\r\ufeff" + connectSecret + "\r",
	"variables":             "export MIMECAST_CLIENT_ID=" + connectID + "\rexport MIMECAST_CLIENT_SECRET=" + connectSecret + "\r",
	"JSON on several lines": "{\r  \"client_id\": \"" + connectID + "\",\r  \"client_secret\": \"" + connectSecret + "\"\r}\r",
	"JSON on one line":      `{"client_id":"` + connectID + `","client_secret":"` + connectSecret + `"}` + "\r",
}

func TestConnectUnderstandsWhatIsPasted(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	for name, paste := range pastes {
		t.Run(name, func(t *testing.T) {
			if name != "both lines at once" {
				suite.Slow(t)
			}
			environ, _ := connectEnviron(t, sim)
			x := program.StartOnTerminal(t, environ, "connect")
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type(paste)
			x.AwaitText("Connected to ")
			if code := x.Exit(); code != 0 {
				t.Errorf("exit %d", code)
			}
			checkNothingLeaks(t, x)
		})
	}
}

// If a secret is pasted into another field, at most its first four characters are shown.
func TestConnectShowsNoSecretThatIsPastedElsewhere(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const plain = "Zq9fK2mWx7Lr4TvB8nYc1HdJ6sPgEa3U" // all characters are valid in a client ID
	sim := program.Simulate(t, simulator.Options{ClientID: connectID, ClientSecret: plain})
	for name, c := range map[string]struct {
		variables []string
		question  string
		keys      string
	}{
		"at the region":               {gateways(t, sim), "[global]: ", connectID + "\r" + plain + "\r"},
		"swapped":                     {nil, "shown): ", plain + "\r" + connectID + "\r"},
		"at the question to go on":    {[]string{"MIMECAST_BASE_URL=http://127.0.0.1:1"}, "shown): ", connectID + "\r" + plain + "\r"},
		"before the first question":   {nil, "", connectID + "\r" + plain + "\r"},
		"JSON at the region":          {gateways(t, sim), "[global]: ", `{"client_id":"` + connectID + `","client_secret":"` + plain + "\"}\r"},
		"bracketed, at the client ID": {nil, "shown): ", "\x1b[200~" + plain + "\x1b[201~\r"},
	} {
		t.Run(name, func(t *testing.T) {
			environ, _ := connectEnviron(t, sim, c.variables...)
			x := program.StartOnTerminal(t, environ, "connect")
			if c.question != "" {
				x.AwaitText(c.question)
			} else {
				x.AwaitText("Connect to Mimecast") // the console was opened
			}
			x.Type(c.keys)
			switch name {
			case "at the region", "JSON at the region", "before the first question":
				x.AwaitText("Connected to")
			case "at the question to go on":
				x.AwaitText("Press Enter to try again")
				x.Type(plain + "\r")
				x.AwaitText("Press Enter to try again")
				x.Type("\x03")
			default:
				x.AwaitText("lient")
				x.Type("\x03")
			}
			x.Exit()
			if screen := x.Screen.String(); strings.Contains(screen, plain[:5]) || strings.Contains(screen, plain[len(plain)-5:]) {
				t.Errorf("the screen: %q", screen)
			}
			if !x.ModesRestored() {
				t.Error("the terminal is not as it was")
			}
		})
	}
}

func TestConnectEndsWithItsTerminalAndWhateverIsTyped(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: time.Hour})
	for name, stop := range map[string]func(x *program.Terminal){
		"SIGHUP":                   func(x *program.Terminal) { x.Signal(syscall.SIGHUP) },
		"an escape without an end": func(x *program.Terminal) { x.Type("\x1b[" + strings.Repeat("1", 300)); x.Type("\x03") },
		"much typed while testing": func(x *program.Terminal) {
			x.Type(connectID + "\r" + connectSecret + "\r")
			x.AwaitText("Testing")
			for range 600 {
				x.Type("k")
			}
			x.Type("\x03")
		},
	} {
		t.Run(name, func(t *testing.T) {
			environ, _ := connectEnviron(t, sim)
			x := program.StartOnTerminal(t, environ, "connect")
			x.AwaitText("Client ID")
			stop(x)
			x.AwaitText("stopped: nothing was stored")
			if code := x.Exit(); code != 1 || !x.ModesRestored() {
				t.Errorf("exit %d, restored %v", code, x.ModesRestored())
			}
		})
	}
}

func TestConnectAsksAgainForWhatWasWrongAlone(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Status: http.StatusServiceUnavailable, Count: 1})
	environ, home := connectEnviron(t, sim)
	x := program.StartOnTerminal(t, environ, "connect", "--profile", "emea", "--products")
	x.Answer("Client ID (its beginning is shown): ", connectID)
	x.Answer("Client secret (not shown): ", "S3cr3t-of-another-one")
	x.AwaitText("503")
	x.Answer("Press Enter to try again", "") // entered values are kept
	x.AwaitText("Check that both are complete and from the same application.")
	x.Answer("Client ID [Enter keeps 4f8c…]: ", "")
	x.Answer("Client secret (not shown) [Enter keeps it]: ", connectSecret)
	x.AwaitText("Connected to Harbour Mills Ltd")
	x.AwaitText("yes")
	x.AwaitText("as profile emea")
	x.AwaitText("Next: MIMECAST_PROFILE=emea mimecast-proxy serve")
	if code := x.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	checkNothingLeaks(t, x)
	if _, err := os.Stat(storedFile(home, "emea")); err != nil {
		t.Error(err)
	}
}

// gateways starts a corporate proxy that only reaches Mimecast's global gateway, which is
// the simulator. It returns the variables to use it.
func gateways(t *testing.T, sim *simulator.Server) []string {
	t.Helper()
	certificate, _ := peer.Certificate(t, "api.services.mimecast.com")
	global := httptest.NewUnstartedServer(sim.API())
	global.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	global.StartTLS()
	t.Cleanup(global.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	forward := peer.ConnectProxy(t, func(address string) (net.Conn, error) { return net.Dial("tcp", global.Listener.Addr().String()) })
	tunnel := forward.Config.Handler
	forward.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "api.services.mimecast.com:443" {
			http.Error(w, "no way", http.StatusBadGateway)
			return
		}
		tunnel.ServeHTTP(w, r)
	})
	forward.Start()
	t.Cleanup(forward.Close)
	return []string{"MIMECAST_BASE_URL=", "MIMECAST_CA_FILE=" + ca, "HTTPS_PROXY=" + forward.URL}
}

func TestConnectAsksForTheRegionAgainWhereItCannotBeReached(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	environ, _ := connectEnviron(t, sim, gateways(t, sim)...)
	x := program.StartOnTerminal(t, environ, "connect")
	x.Answer("Region (global, uk, us) [global]: ", "eu")
	x.AwaitText("Unknown region. Accounts outside the US and the UK use global.")
	x.Answer("Region (global, uk, us) [global]: ", "uk")
	x.Answer("Client ID (its beginning is shown): ", connectID)
	x.Answer("Client secret (not shown): ", connectSecret)
	x.AwaitText("502")
	x.Answer("Region (global, uk, us) [uk]: ", "global") // the other values are kept
	x.AwaitText("Connected to Harbour Mills Ltd, eu")
	if code := x.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	checkNothingLeaks(t, x)
	q := program.Start(t, environ, "connections")
	if q.Exit(); !strings.Contains(q.Stdout.String(), "global") {
		t.Error(q.Stdout.String())
	}
}

func TestConnectThatIsStoppedStoresNothingAndRestoresTheTerminal(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const controlC, controlD = "\x03", "\x04"
	sim := application(t)
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: time.Hour})
	for name, stop := range map[string]func(x *program.Terminal){
		"Ctrl-C at the client ID": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type("4f8c" + controlC)
		},
		"Ctrl-D at the client ID": func(x *program.Terminal) { x.AwaitText("Client ID (its beginning is shown): "); x.Type(controlD) },
		"Ctrl-C in the middle of a paste": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type(connectID + "\rS3cr3t/o" + controlC)
		},
		"a paste that ends before the line": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type(connectID + "\tS3cr3t/o")
			x.Type(controlC)
		},
		"Ctrl-C at the secret": func(x *program.Terminal) {
			x.Answer("Client ID (its beginning is shown): ", connectID)
			x.AwaitText("secret (not shown): ")
			x.Type("S3cr3t" + controlC)
		},
		"SIGTERM at the secret": func(x *program.Terminal) {
			x.Answer("Client ID (its beginning is shown): ", connectID)
			x.AwaitText("secret (not shown): ")
			x.Type("S3cr3t")
			x.Signal(syscall.SIGTERM)
		},
		"SIGINT at the client ID": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Signal(syscall.SIGINT)
		},
		"Ctrl-C while the token is awaited": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type(connectID + "\r" + connectSecret + "\r")
			x.AwaitText("Testing")
			x.Type(controlC)
		},
		"SIGTERM while the token is awaited": func(x *program.Terminal) {
			x.AwaitText("Client ID (its beginning is shown): ")
			x.Type(connectID + "\r" + connectSecret + "\r")
			x.AwaitText("Testing")
			x.Signal(syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			environ, home := connectEnviron(t, sim)
			x := program.StartOnTerminal(t, environ, "connect")
			stop(x)
			x.AwaitText("stopped: nothing was stored")
			if code := x.Exit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			checkNothingLeaks(t, x)
			if left, err := os.ReadDir(filepath.Join(home, "config")); !os.IsNotExist(err) {
				t.Error(left, err)
			}
		})
	}
}

func TestConnectIsStoppedAtTheRegion(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	for _, keys := range []string{"\x03", "\x04", "glo\x03"} {
		environ, _ := connectEnviron(t, sim, gateways(t, sim)...)
		x := program.StartOnTerminal(t, environ, "connect")
		x.AwaitText("[global]: ")
		x.Type(keys)
		x.AwaitText("stopped: nothing was stored")
		if code := x.Exit(); code != 1 {
			t.Errorf("%q: exit %d", keys, code)
		}
		checkNothingLeaks(t, x)
	}
}

// A crash must leave no core file, and no secret in the stack trace.
func TestConnectThatCrashesLeavesNoSecret(t *testing.T) {
	t.Parallel()
	environ, home := connectEnviron(t, application(t))
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited 2>/dev/null; exec "$0" connect`, program.Binary())
	cmd.Env, cmd.Dir = append(environ, "GOTRACEBACK=crash"), home // with other values, Go writes no core file
	x := program.StartCmdOnTerminal(t, cmd)
	x.Answer("Client ID (its beginning is shown): ", connectID)
	x.AwaitText("secret (not shown): ")
	x.Type("S3cr3t")
	x.Signal(syscall.SIGABRT)
	if code := x.Exit(); code != -1 {
		t.Errorf("exit %d, not by a signal", code)
	}
	if strings.Contains(x.Screen.String(), "S3cr3t") {
		t.Error("the secret is on the screen")
	}
	left, err := os.ReadDir(home)
	if err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

func TestConnectInAShellLeavesNothingInItsHistory(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	environ, home := connectEnviron(t, application(t))
	history := filepath.Join(home, "history")
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env, cmd.Dir = append(environ, "HISTFILE="+history, "PS1=ready>", "PATH=/usr/bin:/bin"), home
	x := program.StartCmdOnTerminal(t, cmd)
	x.Answer("ready>", program.Binary()+" connect")
	x.AwaitText("Client ID (its beginning is shown): ")
	x.Type(connectID + "\r" + connectSecret + "\r")
	x.AwaitText("Connected to ")
	x.Answer("ready>", "exit")
	x.Exit()
	text, err := os.ReadFile(history)
	if err != nil || !strings.Contains(string(text), " connect") || strings.Contains(string(text), "S3cr3t") || strings.Contains(x.Screen.String(), "S3cr3t") {
		t.Errorf("history %q, %v; screen %q", text, err, x.Screen.String())
	}
}

func TestWithoutCredentialsOnATerminalTheWordIsConnect(t *testing.T) {
	t.Parallel()
	environ, _ := connectEnviron(t, application(t))
	for _, args := range [][]string{{"serve"}, {"check"}, {"run", "--", "true"}} {
		x := program.StartOnTerminal(t, environ, args...)
		x.AwaitText("no credentials are set or stored; to enter the credentials once and store them, run: mimecast-proxy connect")
		if code := x.Exit(); code != 2 {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}

func TestScriptConnectsAndRotates(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	environ, home := connectEnviron(t, sim)
	idFile := filepath.Join(home, "id")
	if err := os.WriteFile(idFile, []byte("\ufeff"+connectID+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	connect := func(key string, args ...string) *program.Program { return connectWith(t, environ, key, args...) }
	if p := connect("wrong", "--client-id-file", idFile); p.Exit() != 1 || !strings.Contains(p.Stderr.String(), "Check that both are complete") {
		t.Error(p.Stdout.String(), p.Stderr.String())
	}
	if p := connect(connectSecret+"\n", "--client-id-file", idFile); p.Exit() != 0 || !strings.Contains(p.Stdout.String(), "Connected to Harbour Mills Ltd") {
		t.Error(p.Stdout.String(), p.Stderr.String())
	}
	before, err := os.ReadFile(storedFile(home, "default"))
	if err != nil {
		t.Fatal(err)
	}
	if p := connect("wrong", "--rotate"); p.Exit() != 1 {
		t.Error("a secret that does not work was stored")
	}
	if after, err := os.ReadFile(storedFile(home, "default")); string(after) != string(before) || err != nil {
		t.Error("the old secret was replaced by one that does not work", err)
	}
	if p := connect(connectSecret, "--rotate"); p.Exit() != 0 || !strings.Contains(p.Stdout.String(), "Running proxies use the new secret") {
		t.Error(p.Stdout.String(), p.Stderr.String())
	}
	for _, args := range [][]string{{"--rotate", "--profile", "none"}, {"--profile", "No/Name"}, {"--store", "nowhere"}, {"--region", "eu"}, {"--web"}, {"--rotate", "--store", "env-file"}, {"--rotate", "--region", "us"}, {"--output", "x"}, {"--namespace", "x"}} {
		if p := connect(connectSecret, append(args, "--client-id-file", idFile)...); p.Exit() != 2 {
			t.Errorf("%v: no usage error: %s%s", args, p.Stdout.String(), p.Stderr.String())
		}
	}
}

func TestConnectExportsForComposeKubernetesAndSystemd(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	environ, home := connectEnviron(t, application(t))
	idFile, envFile, folder := filepath.Join(home, "id"), filepath.Join(home, "mimecast.env"), filepath.Join(home, "systemd")
	if err := os.WriteFile(idFile, []byte(connectID), 0o600); err != nil {
		t.Fatal(err)
	}
	environ = append(environ, "PATH=/usr/bin:/bin")
	connect := func(args ...string) *program.Program {
		return connectWith(t, environ, connectSecret, append(args, "--client-id-file", idFile)...)
	}
	x := program.StartOnTerminal(t, environ, "connect", "--store", "kubernetes")
	x.AwaitText("--store kubernetes would show the secret")
	if x.Exit() != 2 {
		t.Error("the manifest may go to a terminal")
	}
	p := connect("--store", "kubernetes", "--namespace", "mail")
	code := p.Exit()
	if manifest := p.Stdout.String(); code != 0 || !strings.HasPrefix(manifest, "apiVersion: v1\nkind: Secret\n") || !strings.Contains(manifest, connectSecret) ||
		strings.Contains(manifest, "Connected") || !strings.Contains(p.Stderr.String(), "Connected to Harbour Mills Ltd") || strings.Contains(p.Stderr.String(), connectSecret) {
		t.Error(manifest, p.Stderr.String())
	}
	p = connect("--store", "env-file", "--output", envFile)
	code = p.Exit()
	text, err := os.ReadFile(envFile)
	if code != 0 || err != nil || !strings.Contains(string(text), "MIMECAST_CLIENT_SECRET="+connectSecret+"\n") {
		t.Error(string(text), err, p.Stderr.String())
	}
	if info, err := os.Stat(envFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if p = connect("--store", "env-file", "--output", envFile); p.Exit() != 2 || !strings.Contains(p.Stderr.String(), envFile) {
		t.Error("a file was overwritten", p.Stderr.String())
	}
	if p = connect("--store", "env-file", "--output", envFile, "--force"); p.Exit() != 0 {
		t.Error(p.Stderr.String())
	}
	if left, err := os.ReadDir(filepath.Join(home, "config")); !os.IsNotExist(err) {
		t.Error("an export is listed as a connection", left, err)
	}
	if _, err := exec.LookPath("systemd-creds"); err != nil || os.Geteuid() != 0 {
		t.Skip("encrypting for systemd needs systemd-creds and root")
	}
	p = connect("--store", "systemd", "--output", folder)
	code = p.Exit()
	dropIn, err := os.ReadFile(filepath.Join(folder, "credentials.conf"))
	if code != 0 || err != nil || !strings.Contains(string(dropIn), "LoadCredentialEncrypted=client-secret:"+folder+"/client-secret\n") || !strings.Contains(string(dropIn), "Environment=MIMECAST_BASE_URL=") {
		t.Error(string(dropIn), err, p.Stderr.String())
	}
	encrypted, err := os.ReadFile(filepath.Join(folder, "client-secret"))
	if err != nil || strings.Contains(string(encrypted), connectSecret) || len(encrypted) == 0 {
		t.Error(string(encrypted), err)
	}
}
