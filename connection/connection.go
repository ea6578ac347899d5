// Package connection stores connections to Mimecast accounts: credentials that the user entered
// once, with the account's name and address.
//
// A [Book] is the list of one user's connections. The credentials of each are in the system's
// keyring, or in a file that only the user can read. The list itself contains no secrets. The
// package also exports credentials for systemd, Kubernetes and Docker Compose.
package connection

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// ErrNotFound is the error if there is no such connection, or its credentials are gone.
var ErrNotFound = errors.New("not found")

// Store is a kind of place for credentials, where the proxy finds them without a variable.
type Store string

// The stores.
const (
	// Keyring is the system's keyring: Secret Service, Keychain or Credential Manager.
	Keyring Store = "keyring"
	// File is a file in the user's configuration folder.
	File Store = "file"
)

// Connection describes a stored connection. It contains no secrets.
type Connection struct {
	// Profile is the name of the connection. It must pass [CheckProfile].
	Profile string `json:"profile"`
	// Store is where the credentials are.
	Store Store `json:"store"`
	// IDStart is the beginning of the client ID. [Book.Save] sets it.
	IDStart string `json:"client_id_start"`
	// Region is empty if BaseURL is set.
	Region string `json:"region,omitempty"`
	// BaseURL, TokenURL and CAFile are the values of MIMECAST_BASE_URL, MIMECAST_TOKEN_URL
	// and MIMECAST_CA_FILE, or empty.
	BaseURL  string `json:"base_url,omitempty"`
	TokenURL string `json:"token_url,omitempty"`
	CAFile   string `json:"ca_file,omitempty"`
	// Account is the account's name at Mimecast; empty if unknown.
	Account string `json:"account,omitempty"`
	// Tested is when a test of the credentials last succeeded.
	Tested time.Time `json:"tested"`
}

var profileName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// CheckProfile returns an error unless name is a valid profile name: 1 to 40 of a-z, 0-9 and
// "-". Valid names are safe as file names.
func CheckProfile(name string) error {
	if !profileName().MatchString(name) {
		return fmt.Errorf("the profile %.40q cannot be used: 1 to 40 of a-z, 0-9 and '-' are allowed", name)
	}
	return nil
}

// idStart returns the first 8 characters of a client ID, but at most half of it.
func idStart(id string) string {
	runes := []rune(id)
	return string(runes[:min(8, len(runes)/2)])
}
