//go:build unix

package e2e

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/internal/keyringtest"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// withSession returns the environment of a user in the given desktop session.
func withSession(t *testing.T, sim *simulator.Server, session []string) []string {
	t.Helper()
	environ, _ := connectEnviron(t, sim)
	return append(environ, slices.DeleteFunc(slices.Clone(session), func(v string) bool {
		return !strings.HasPrefix(v, "DBUS_SESSION_BUS_ADDRESS=") && !strings.HasPrefix(v, "XDG_RUNTIME_DIR=")
	})...)
}

// connectWith runs connect with a secret on its standard input.
func connectWith(t *testing.T, environ []string, key string, args ...string) *program.Program {
	t.Helper()
	cmd := exec.Command(program.Binary(), append([]string{"connect", "--secret-stdin"}, args...)...)
	cmd.Env, cmd.Stdin = environ, strings.NewReader(key)
	return program.StartCmd(t, cmd)
}

// checkEncrypted checks that the keyring's files do not contain the secret.
func checkEncrypted(t *testing.T, session []string) {
	t.Helper()
	files := 0
	for _, v := range session {
		home, ok := strings.CutPrefix(v, "HOME=")
		if !ok {
			continue
		}
		err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if files++; strings.Contains(string(text), connectSecret) {
				t.Errorf("the secret is in plain text in %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files == 0 {
		t.Error("the keyring has nothing on disk")
	}
}

// duringAHundredASecond sends 100 requests a second until f returns, and reports failures.
func duringAHundredASecond(t *testing.T, p *program.Program, f func()) {
	t.Helper()
	done := make(chan struct{})
	sent := 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			select {
			case <-done:
				tick.Stop()
				return
			default:
			}
			sent++
			if res, body, err := p.Do("GET", "/identity/whoami", nil); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("%v %v %s", err, res, body)
			}
		}
	})
	f()
	close(done)
	asking.Wait()
	t.Logf("%d requests", sent)
}

func TestConnectionInTheKeyringIsServedFromAndRotatesWithoutALostRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	session := keyringtest.Start(t)
	environ := withSession(t, sim, session)
	x := program.StartOnTerminal(t, environ, "connect")
	x.Answer("Client ID (its beginning is shown): ", connectID)
	x.Answer("secret (not shown): ", connectSecret)
	x.AwaitText("Stored in the keyring, as profile default.")
	if x.Exit() != 0 {
		t.Error("exit")
	}
	checkNothingLeaks(t, x)
	checkEncrypted(t, session)
	p := program.Start(t, environ).AwaitServing().AwaitReady()
	if text := p.Stderr.String(); !strings.Contains(text, `"credentials":"the keyring, profile default"`) {
		t.Error(text)
	}
	duringAHundredASecond(t, p, func() {
		sim.SetCredentials(connectID, "rotated-secret")
		if q := connectWith(t, environ, "rotated-secret", "--rotate"); q.Exit() != 0 {
			t.Error(q.Stderr.String())
		}
		began := time.Now()
		p.Stderr.Await(t, "the renewal", func(text string) bool {
			return strings.Contains(text, `"msg":"file reloaded"`) && strings.Count(text, "token renewed") > 1
		})
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the new secret was in use after %v", took)
		}
	})
	if text := p.Stderr.String(); strings.Contains(text, "rotated-secret") {
		t.Error("the secret is in the log")
	}
	if q := program.Start(t, environ, "disconnect"); q.Exit() != 0 {
		t.Error(q.Stderr.String())
	}
	if q := program.Start(t, environ, "check"); q.Exit() != 2 {
		t.Errorf("a connection that was removed is used: %s", q.Stdout.String())
	}
}

func TestKeyringThatCannotBeUsedIsNamedAndAFileOffered(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	session := keyringtest.Start(t)
	keyringtest.Lock(t, session)
	locked, absent := withSession(t, sim, session), withSession(t, sim, keyringtest.Bus(t))
	idFile := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(idFile, []byte(connectID), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		says    string
	}{
		{"locked, asked for", locked, []string{"--store", "keyring"}, 1, "the keyring is locked: unlock it, or log in to the desktop; or choose --store file"},
		{"locked", locked, nil, 0, "It is stored in a private file, since the keyring cannot be used: the keyring is locked"},
		{"absent, asked for", absent, []string{"--store", "keyring"}, 1, "no keyring on this machine"},
		{"absent", absent, nil, 0, "It is stored in a private file, since the keyring cannot be used: no keyring on this machine"},
	} {
		q := connectWith(t, c.environ, connectSecret, append(c.args, "--client-id-file", idFile)...)
		if code := q.Exit(); code != c.code || !strings.Contains(q.Stdout.String()+q.Stderr.String(), c.says) {
			t.Errorf("%s: exit %d, %s%s", c.name, code, q.Stdout.String(), q.Stderr.String())
		}
	}
}

func TestProxyWhoseKeyringGetsLockedKeepsServing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := application(t)
	session := keyringtest.Start(t)
	environ := withSession(t, sim, session)
	idFile := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(idFile, []byte(connectID), 0o600); err != nil {
		t.Fatal(err)
	}
	if q := connectWith(t, environ, connectSecret, "--client-id-file", idFile); q.Exit() != 0 {
		t.Fatal(q.Stderr.String())
	}
	p := program.Start(t, environ).AwaitServing().AwaitReady()
	keyringtest.Lock(t, session)
	p.Stderr.Await(t, "the warning", func(text string) bool {
		return strings.Contains(text, "file reload failed") && strings.Contains(text, "the keyring is locked")
	})
	sim.RevokeTokens() // the next request needs a token, and so the secret
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if q := program.Start(t, environ, "check"); q.Exit() != 2 || !strings.Contains(q.Stderr.String(), "the keyring is locked") {
		t.Error(q.Stdout.String(), q.Stderr.String())
	}
}
