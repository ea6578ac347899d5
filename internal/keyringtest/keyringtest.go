// Package keyringtest starts a real keyring for tests: gnome-keyring on a separate D-Bus
// session, so that the user's keyring is not touched.
package keyringtest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	ss "github.com/zalando/go-keyring/secret_service"
)

const (
	password   = "keyring-password"
	service    = "org.freedesktop.secrets"
	collection = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
)

// config configures a session bus that starts no services.
const config = `<busconfig>
  <type>session</type>
  <listen>unix:path=DIR/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// Bus starts a D-Bus session without a keyring and returns the environment for programs
// in it. Both end with the test. It skips the test if dbus-daemon is missing.
func Bus(t testing.TB) (environ []string) {
	t.Helper()
	need(t, "dbus-daemon")
	dir, err := os.MkdirTemp("", "bus") // paths from t.TempDir are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	environ = []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "PATH=/usr/bin:/bin", "DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(dir, "bus")}
	cmd := command(t, "dbus-daemon", "--config-file="+file, "--nofork", "--print-address")
	cmd.Env = environ
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon prints no address: %v", err)
	}
	return environ
}

// Start starts an empty, unlocked keyring on a Bus. It returns the environment for programs
// that use it. It skips the test if gnome-keyring-daemon is missing.
func Start(t testing.TB) (environ []string) {
	t.Helper()
	need(t, "gnome-keyring-daemon")
	environ = Bus(t)
	cmd := command(t, "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	cmd.Env = environ
	cmd.Stdin = strings.NewReader(password)
	start(t, cmd)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn := connect(t, environ)
	for !unlocked(ctx, conn) {
		if ctx.Err() != nil {
			t.Fatal("the keyring is not unlocked after a minute")
		}
	}
	return environ
}

// Lock locks the keyring that Start returned.
func Lock(t testing.TB, environ []string) {
	t.Helper()
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	call := connect(t, environ).Object(service, "/org/freedesktop/secrets").CallWithContext(t.Context(), "org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{collection})
	if err := call.Store(&locked, &prompt); err != nil || !slices.Contains(locked, collection) {
		t.Fatalf("locked %v: %v", locked, err)
	}
}

// Unlock unlocks the keyring again without the prompt that a user would see.
func Unlock(t testing.TB, environ []string) {
	t.Helper()
	object := connect(t, environ).Object(service, "/org/freedesktop/secrets")
	var ignored dbus.Variant
	var session dbus.ObjectPath
	if err := object.CallWithContext(t.Context(), "org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&ignored, &session); err != nil {
		t.Fatal(err)
	}
	const method = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword"
	if err := object.CallWithContext(t.Context(), method, 0, collection, ss.NewSecret(session, password)).Err; err != nil {
		t.Fatal(err)
	}
}

// unlocked waits until the service runs. Until then the bus responds at once, so it polls.
func unlocked(ctx context.Context, conn *dbus.Conn) bool {
	var locked dbus.Variant
	err := conn.Object(service, collection).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.Secret.Collection", "Locked").Store(&locked)
	if err == nil && locked.Value() == false {
		return true
	}
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
	return false
}

func connect(t testing.TB, environ []string) *dbus.Conn {
	t.Helper()
	for _, entry := range environ {
		if address, ok := strings.CutPrefix(entry, "DBUS_SESSION_BUS_ADDRESS="); ok {
			conn, err := dbus.Connect(address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
	}
	t.Fatal("the environment has no D-Bus session")
	return nil
}

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program + " is not installed")
	}
}

// command returns a command that outlives the test's context, because cleanup functions may
// still need the keyring.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
}

// start starts a program that ends with the test.
func start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
