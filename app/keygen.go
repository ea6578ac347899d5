package app

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"mimecast-proxy/config"
)

// keyBytes is the length of a new key before hex encoding.
const keyBytes = 32

// Keygen prints a new client key on Stdout, and the lines for the clients file on Stderr. With
// keygen NAME > keys/NAME, the key goes to a file and the lines stay on the terminal.
func (p Env) Keygen(name string) error {
	if !config.IsClientName(name) {
		return &ExitError{ExitUsage, errors.New("the name of a client has 1 to 40 of a-z, 0-9 and -")}
	}
	random := make([]byte, keyBytes)
	_, _ = rand.Read(random) // never fails
	key := hex.EncodeToString(random)
	if _, err := fmt.Fprintln(p.Stdout, key); err != nil {
		return fmt.Errorf("the key was not written: %w", err)
	}
	digest := sha256.Sum256([]byte(key))
	_, err := fmt.Fprintf(p.Stderr, `
The key is the line on standard output. Give it to %[1]s, and add to PROXY_CLIENTS_FILE:

clients:
  %[1]s:
    keys: [{sha256: %[2]x}]

Or keep the key in a file that only the proxy can read, with: keys: [{file: keys/%[1]s}]
`, name, digest)
	if err != nil {
		return fmt.Errorf("the lines for the clients file were not written: %w", err)
	}
	return nil
}
