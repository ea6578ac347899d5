package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mimecast-proxy/intercept"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
)

// bundleVariables are variables that name a program's file of trusted certificates. Their
// readers are OpenSSL and its users, Python's requests, curl, the AWS SDKs, git, and Deno.
var bundleVariables = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "DENO_CERT"}

// nodeVariable names a file of certificates that Node.js trusts in addition to its own.
const nodeVariable = "NODE_EXTRA_CA_CERTS"

// phpVariable names folders with settings for PHP, since its curl extension reads no variable
// for certificates. An empty entry stands for PHP's default folder.
const phpVariable = "PHP_INI_SCAN_DIR"

// trustFolder has the certificates for a command, in files that only this user can read. It
// is removed when the command ends.
type trustFolder struct{ dir string }

func (f trustFolder) bundle(variable string) string {
	return filepath.Join(f.dir, strings.ToLower(variable)+".pem")
}
func (f trustFolder) ca() string  { return filepath.Join(f.dir, "ca.pem") }
func (f trustFolder) php() string { return filepath.Join(f.dir, "php.ini") }

// newTrustFolder writes the files that a command needs to trust the authority. If a variable
// already names certificates, its file gets those and the authority's only: the tool may be
// meant to trust just a private CA.
func newTrustFolder(a *intercept.Authority, environ []string) (f trustFolder, err error) {
	roots, err := intercept.SystemRootsPEM()
	if err != nil && lookup(environ, "SSL_CERT_FILE") == "" {
		return f, err
	}
	usual, err := readNamed(environ, "SSL_CERT_FILE")
	if err != nil {
		return f, err
	}
	if f.dir, err = os.MkdirTemp("", "mimecast-proxy-run-"); err != nil { // with mode 0700
		return f, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
		}
	}()
	for _, name := range bundleVariables {
		own, err := readNamed(environ, name)
		if err != nil {
			return f, err
		}
		trusted := [][]byte{own}
		if own == nil {
			trusted = [][]byte{roots, usual}
		}
		if err := os.WriteFile(f.bundle(name), a.Bundle(trusted...), 0o600); err != nil {
			return f, err
		}
	}
	node, err := readNamed(environ, nodeVariable)
	if err != nil {
		return f, err
	}
	php := fmt.Appendf(nil, "curl.cainfo='%s'\nopenssl.cafile='%s'\n", f.bundle("CURL_CA_BUNDLE"), f.bundle("SSL_CERT_FILE"))
	return f, errors.Join(os.WriteFile(f.ca(), a.Bundle(node), 0o600), os.WriteFile(f.php(), php, 0o600))
}

func (f trustFolder) remove() error { return os.RemoveAll(f.dir) }

// readNamed reads the file that a variable names. It returns nil if the variable is empty or
// names a folder, which some programs accept.
func readNamed(environ []string, name string) ([]byte, error) {
	path := lookup(environ, name)
	if path == "" {
		return nil, nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return content, nil
}

// environ returns a command's environment with the variables that make it use the forward
// proxy and trust its certificates.
func (f trustFolder) environ(environ []string, address string, password secret.Text) []string {
	forward := (&url.URL{Scheme: "http", Host: address, User: url.UserPassword("run", password.Reveal())}).String()
	php := lookup(environ, phpVariable) + string(os.PathListSeparator) + f.dir
	names := append([]string{"HTTPS_PROXY", "https_proxy", nodeVariable, "NODE_USE_ENV_PROXY", phpVariable}, bundleVariables...)
	environ = without(environ, named(names...))
	for _, name := range bundleVariables {
		environ = append(environ, name+"="+f.bundle(name))
	}
	return append(environ, phpVariable+"="+php, nodeVariable+"="+f.ca(), "NODE_USE_ENV_PROXY=1", "HTTPS_PROXY="+forward, "https_proxy="+forward)
}

// exempted returns the first NO_PROXY entry that makes a program bypass the forward proxy for
// a Mimecast host; empty if there is none.
func exempted(environ []string) string {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		for _, entry := range strings.FieldsFunc(lookup(environ, name), func(c rune) bool { return c == ',' || c == ' ' }) {
			host, _, _ := strings.Cut(strings.TrimLeft(strings.ToLower(entry), "*."), ":")
			if entry == "*" || slices.ContainsFunc(mimecast.APIHosts(), func(h string) bool { return strings.HasSuffix("."+h, "."+host) && host != "" }) {
				return entry
			}
		}
	}
	return ""
}

// newPassword returns a random password.
func newPassword() secret.Text { return secret.New(rand.Text()) }
