package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mimecast-proxy/config"
	"mimecast-proxy/connection"
)

// ConnectStores are the valid values of ConnectOptions.Store.
var ConnectStores = []string{"keyring", "file", "systemd", "kubernetes", "env-file"}

// target is where connect stores a tested connection.
type target struct {
	// store stores the connection. It must ignore or set Connection.Store.
	store func(context.Context, connection.Connection, connection.Credentials) error
	// where describes the place, and next what to run or do then; empty: nothing.
	where, next string
}

// bookTarget returns the target for the keyring and file stores, which the proxy finds without
// a variable.
func bookTarget(book connection.Book, store connection.Store, o ConnectOptions) target {
	where, next := "in "+placeOf(store)+", as profile "+o.Profile, profilePrefix(o.Profile)+"mimecast-proxy serve"
	if o.Rotate {
		where, next = where+". Running proxies use the new secret within 10 s", ""
	}
	return target{
		store: func(ctx context.Context, c connection.Connection, creds connection.Credentials) error {
			c.Store = store
			return book.Save(ctx, c, creds)
		},
		where: where,
		next:  next,
	}
}

// profilePrefix returns the assignment that selects a profile in a command line.
func profilePrefix(profile string) string {
	if profile == config.DefaultProfile {
		return ""
	}
	return "MIMECAST_PROFILE=" + profile + " "
}

// The default paths of the encrypted credentials and of the drop-in that loads them.
const (
	systemdFolder = "/etc/mimecast-proxy/encrypted"
	systemdDropIn = "/etc/systemd/system/mimecast-proxy.service.d/credentials.conf"
)

// systemdTarget returns a target that encrypts the credentials for this machine, and writes a
// drop-in that makes the unit load them.
func systemdTarget(o ConnectOptions) (target, error) {
	if _, err := exec.LookPath("systemd-creds"); err != nil {
		return target{}, errors.New("systemd-creds is not installed: it comes with systemd 250 and later")
	}
	dir, file, next := systemdFolder, systemdDropIn, "systemctl daemon-reload && systemctl restart mimecast-proxy"
	if o.Output != "" {
		absolute, err := filepath.Abs(o.Output)
		if err != nil {
			return target{}, err
		}
		dir, file = absolute, filepath.Join(absolute, filepath.Base(systemdDropIn))
		next = "install -D -m 644 " + quotePath(file) + " " + systemdDropIn + " && " + next
	}
	return target{
		store: func(ctx context.Context, c connection.Connection, creds connection.Credentials) error {
			if _, err := connection.SystemdCredentials(ctx, dir, creds); err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
			return os.WriteFile(file, []byte(connection.SystemdDropIn(dir)+environmentLines(c)), 0o644) //nolint:gosec // contains no secret, and systemd's tools read it
		},
		where: "encrypted for this machine in " + dir + ", with a drop-in for the unit in " + file,
		next:  next,
	}, nil
}

// environmentLines returns a unit's Environment= lines for the connection's API address.
func environmentLines(c connection.Connection) string {
	var lines strings.Builder
	for _, v := range [][2]string{{"MIMECAST_REGION", c.Region}, {"MIMECAST_BASE_URL", c.BaseURL}, {"MIMECAST_TOKEN_URL", c.TokenURL}, {"MIMECAST_CA_FILE", c.CAFile}} {
		if v[1] != "" {
			fmt.Fprintf(&lines, "Environment=%s=%s\n", v[0], strings.ReplaceAll(v[1], "%", "%%")) // % begins a specifier
		}
	}
	return lines.String()
}

// kubernetesTarget returns a target that writes a manifest to out. connect prints out at the
// end.
func kubernetesTarget(out *bytes.Buffer, o ConnectOptions) target {
	return target{
		store: func(_ context.Context, _ connection.Connection, creds connection.Credentials) error {
			out.Reset()
			return connection.WriteKubernetesSecret(out, "mimecast", o.Namespace, creds)
		},
		where: "nowhere on this machine: the Secret's manifest is on standard output",
		next:  "pass standard output to kubectl apply -f -, and set MIMECAST_REGION or MIMECAST_BASE_URL in the proxy's manifest",
	}
}

// envFileTarget returns a target that writes a file of variables.
func envFileTarget(o ConnectOptions) (target, error) {
	path := cmp.Or(o.Output, "mimecast.env")
	overwrite := o.Force
	if _, err := os.Lstat(path); err == nil && !overwrite {
		return target{}, usageError("%s exists: choose another file with --output, or overwrite it with --force", path)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil { // fail before asking for the secret
		return target{}, usageError("--output: %w", err)
	}
	return target{
		store: func(_ context.Context, c connection.Connection, creds connection.Credentials) error {
			return connection.WriteEnvFile(path, overwrite, c, creds)
		},
		where: "in " + path + ", which only you can read",
		next:  "set env_file: " + path + " for the proxy in compose.yaml, and run docker compose up",
	}, nil
}
