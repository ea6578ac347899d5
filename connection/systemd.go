package connection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"mimecast-proxy/secret"
)

// systemdTimeout bounds one run of systemd-creds, which may need to wait for a TPM.
const systemdTimeout = 30 * time.Second

// SystemdCredentials encrypts the client ID and secret for this machine with systemd-creds. It
// writes them to the files client-id and client-secret in dir, and returns their paths.
// [SystemdDropIn] makes the unit load them.
//
// systemd-creds gets each value on standard input. It must be installed (systemd 250 or later),
// and on most machines requires root.
func SystemdCredentials(ctx context.Context, dir string, creds Credentials) ([]string, error) {
	if err := creds.Check(); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("systemd-creds")
	if err != nil {
		return nil, errors.New("systemd-creds is not installed: it comes with systemd 250 and later")
	}
	id, err := encrypt(ctx, program, "client-id", creds.ClientID)
	if err != nil {
		return nil, err
	}
	key, err := encrypt(ctx, program, "client-secret", creds.ClientSecret)
	if err != nil {
		return nil, err
	}
	if err := makeMissing(dir); err != nil {
		return nil, err
	}
	paths := []string{filepath.Join(dir, "client-id"), filepath.Join(dir, "client-secret")}
	return paths, errors.Join(writePrivate(paths[0], id), writePrivate(paths[1], key))
}

func encrypt(ctx context.Context, program, name string, text secret.Text) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "encrypt", "--name="+name, "-", "-")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} // not the proxy's environment, which may contain a secret
	cmd.Stdin = strings.NewReader(text.Reveal())
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("systemd-creds failed; run as root (%w: %.80q)", err, lines[len(lines)-1])
	}
	return out.Bytes(), nil
}

// SystemdDropIn returns a drop-in that makes the unit load the encrypted credentials in dir, an
// absolute path, instead of the plain files.
func SystemdDropIn(dir string) string {
	dir = strings.ReplaceAll(dir, "%", "%%") // % begins a specifier
	return "[Service]\n" +
		"# Encrypted for this machine, in place of the plain files.\n" +
		"LoadCredential=\n" +
		"LoadCredentialEncrypted=client-id:" + filepath.Join(dir, "client-id") + "\n" +
		"LoadCredentialEncrypted=client-secret:" + filepath.Join(dir, "client-secret") + "\n"
}
