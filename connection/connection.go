// Package connection keeps connections to Mimecast accounts: credentials that the user
// entered once, and what is known of them.
//
// A Book is the list of one user's connections. The credentials of each are either in the
// system's keyring or in a file that only the user can read; the list itself holds no
// secret. The package also exports credentials to where systemd, Kubernetes and Docker
// Compose read them.
package connection

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// ErrNotFound says that there is no such connection, or that its credentials are gone.
var ErrNotFound = errors.New("not found")

// Store is a place for credentials that the proxy finds without a variable.
type Store string

// The stores.
const (
	// Keyring is the system's: Secret Service, Keychain or Credential Manager.
	Keyring Store = "keyring"
	// File is a file in the user's configuration folder.
	File Store = "file"
)

// Connection is what is known of a stored connection; nothing in it is secret.
type Connection struct {
	// Profile is its name, which CheckProfile accepts.
	Profile string `json:"profile"`
	// Store is where its credentials are.
	Store Store `json:"store"`
	// IDStart is the beginning of the client ID. Save sets it.
	IDStart string `json:"client_id_start"`
	// Region is empty if BaseURL is set.
	Region string `json:"region,omitempty"`
	// BaseURL, TokenURL and CAFile are as in the variables of these names, or empty.
	BaseURL  string `json:"base_url,omitempty"`
	TokenURL string `json:"token_url,omitempty"`
	CAFile   string `json:"ca_file,omitempty"`
	// Account is the account's name, as Mimecast calls it. It may be empty.
	Account string `json:"account,omitempty"`
	// Tested is when the credentials last proved good.
	Tested time.Time `json:"tested"`
}

var profileName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// CheckProfile returns an error unless the name can be a profile's. What it accepts is
// also safe as a file name.
func CheckProfile(name string) error {
	if !profileName().MatchString(name) {
		return fmt.Errorf("the profile %.40q cannot be used: 1 to 40 of a-z, 0-9 and '-' are allowed", name)
	}
	return nil
}

// idStart returns the first 8 characters of a client ID, and at most half of them.
func idStart(id string) string {
	runes := []rune(id)
	return string(runes[:min(8, len(runes)/2)])
}
