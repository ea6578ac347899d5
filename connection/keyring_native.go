//go:build darwin || windows

package connection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/zalando/go-keyring"
)

// native is the Keychain of macOS or the Credential Manager of Windows. On macOS, go-keyring
// passes the secret to /usr/bin/security on standard input, not on the command line.
type native struct{}

func systemKeyring([]string) KeyringBackend { return native{} }

// State implements KeyringBackend. It looks up an entry that no profile can have.
func (n native) State(ctx context.Context) error {
	_, err := n.Get(ctx, "(none)")
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Set implements KeyringBackend. It reads the entry back, since /usr/bin/security reports
// success for failed commands on its standard input.
func (n native) Set(ctx context.Context, profile string, document []byte) error {
	if err := explain(keyring.Set(keyringService, profile, string(document))); err != nil {
		return err
	}
	stored, err := n.Get(ctx, profile)
	if err == nil && bytes.Equal(stored, document) {
		return nil
	}
	return errors.Join(errors.New("the keyring rejected the credentials: unlock it, or use another store"), err)
}

// Get implements KeyringBackend.
func (native) Get(_ context.Context, profile string) ([]byte, error) {
	document, err := keyring.Get(keyringService, profile)
	return []byte(document), explain(err)
}

// Delete implements KeyringBackend.
func (native) Delete(_ context.Context, profile string) error {
	if err := explain(keyring.Delete(keyringService, profile)); !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// interactionNotAllowed is the exit code of /usr/bin/security if the Keychain is locked and
// cannot prompt the user: the last byte of errSecInteractionNotAllowed.
const interactionNotAllowed = 36

func explain(err error) error {
	var exit *exec.ExitError
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, exec.ErrNotFound):
		return ErrNoKeyring
	case errors.As(err, &exit) && exit.ExitCode() == interactionNotAllowed:
		return ErrKeyringLocked
	case err != nil:
		return fmt.Errorf("the keyring failed: %w", err)
	}
	return nil
}
