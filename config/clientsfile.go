package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
)

// maxClientsErrors limits the errors reported for one file.
const maxClientsErrors = 100

const (
	nameAccepts    = "1 to 40 of a-z, 0-9 and -"
	keysAccepts    = "a list such as [{file: keys/splunk}] or [{sha256: HEX}], as mimecast-proxy keygen prints it"
	fileAccepts    = "a file relative to the folder of this file"
	secretAccepts  = "client_secret_file: with a file that only the proxy can read"
	accountAccepts = "a mapping such as {region: uk, client_id_file: emea/id, client_secret_file: emea/secret}"
)

var clientName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// IsClientName reports whether name is valid for a client or an account: 1 to 40
// characters of a-z, 0-9 and '-'.
func IsClientName(name string) bool { return clientName.MatchString(name) }

// clientsParser collects the content and the errors of one clients file.
type clientsParser struct {
	path string
	// readFile reads a file that the clients file names.
	readFile func(path string) ([]byte, error)
	dir      Directory
	errs     clientsErrors
	// owners maps each key's digest to the line of the key.
	owners map[[sha256.Size]byte]int
	// tooMany is set once the file has more than maxAllKeys keys.
	tooMany bool
	// lines maps each account to its line. used has the accounts that clients name.
	lines map[string]int
	used  map[string]bool
}

// parseClients parses a clients file. If there are errors, the Directory has the valid
// parts.
func parseClients(path string, content []byte, readFile func(path string) ([]byte, error)) (*Directory, clientsErrors) {
	p := &clientsParser{
		path: path, readFile: readFile,
		owners: map[[sha256.Size]byte]int{}, lines: map[string]int{}, used: map[string]bool{},
	}
	p.parse(content)
	slices.SortStableFunc(p.errs, func(a, b clientsError) int { return cmp.Compare(a.line, b.line) })
	if len(p.errs) > maxClientsErrors {
		p.errs = p.errs[:maxClientsErrors]
		p.addError(p.errs[maxClientsErrors-1].line, "more errors follow", "a file without errors")
	}
	return &p.dir, p.errs
}

func (p *clientsParser) addError(line int, found, accepted string) {
	p.errs = append(p.errs, newClientsError(p.path, line, found, accepted))
}

func (p *clientsParser) addWarning(line int, format string, args ...any) {
	p.dir.Warnings = append(p.dir.Warnings, clientsVariable+": "+position(p.path, line)+": "+fmt.Sprintf(format, args...))
}

func (p *clientsParser) parse(content []byte) {
	const accepted = "clients: and accounts: in YAML or JSON, in one document"
	text, err := decodeText(content)
	if err != nil {
		p.addError(1, "the file "+err.Error(), accepted)
		return
	}
	root, failed := parseYAML([]byte(text))
	switch {
	case failed != nil:
		p.addError(failed.line, "the file "+failed.reason, accepted)
		return
	case root == nil:
		p.addError(1, "the file is empty", accepted)
		return
	}
	fields := p.fields(root, "the file", accepted, "clients", "accounts")
	if n := fields["accounts"]; n != nil {
		p.named(n, "account", maxAccounts, p.account)
	}
	if n := fields["clients"]; n != nil {
		p.named(n, "client", maxClients, p.client)
	} else if len(p.errs) == 0 {
		p.addError(root.Line, "the file has no clients", "clients: with at least one")
	}
	for _, a := range p.dir.Accounts {
		if !p.used[a.Name] {
			p.addWarning(p.lines[a.Name], "no client uses the account %s", a.Name)
		}
	}
}

// pair is a key of a mapping and its value.
type pair struct {
	key   string
	line  int
	value *yaml.Node
}

// pairs returns the keys and values of a mapping. Invalid and repeated keys are errors.
func (p *clientsParser) pairs(n *yaml.Node, what, accepted string) []pair {
	if fault := nodeFault(n); fault != "" {
		p.addError(n.Line, what+" "+fault, "the text itself")
		return nil
	}
	if n.Kind != yaml.MappingNode {
		p.addError(n.Line, what+" is "+nodeKind(n), accepted)
		return nil
	}
	var all []pair
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		line, again := first[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || nodeFault(key) != "":
			p.addError(key.Line, what+" has a key that is not plain text", accepted)
		case key.ShortTag() == "!!merge":
			p.addError(key.Line, what+" has a merge key (<<)", "the text itself")
		case again:
			p.addError(key.Line, fmt.Sprintf("%s has %s twice, first in line %d", what, shownKey(key.Value), line), "each key once")
		default:
			first[key.Value] = key.Line
			all = append(all, pair{key.Value, key.Line, value})
		}
	}
	return all
}

// fields returns the values of the known keys of a mapping. Unknown keys are errors.
func (p *clientsParser) fields(n *yaml.Node, what, accepted string, known ...string) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	for _, f := range p.pairs(n, what, accepted) {
		switch {
		case slices.Contains(known, f.key):
			fields[f.key] = f.value
		case f.key == "client_secret":
			p.addError(f.line, what+" contains a secret, which this file must not", secretAccepts)
		default:
			p.addError(f.line, what+" has "+shownKey(f.key)+", which is unknown", strings.Join(known, ", "))
		}
	}
	return fields
}

// named calls parse for each client or account.
func (p *clientsParser) named(n *yaml.Node, kind string, most int, parse func(pair)) {
	all := p.pairs(n, kind+"s", "a mapping of names")
	if len(all) > most {
		p.addError(all[most].line, fmt.Sprintf("more than %d %ss", most, kind), fmt.Sprintf("at most %d", most))
		all = all[:most]
	}
	if len(n.Content) == 0 && isMapping(n) && kind == "client" {
		p.addError(n.Line, "the file has no clients", "clients: with at least one")
	}
	for _, f := range all {
		if !clientName.MatchString(f.key) {
			p.addError(f.line, "a name in "+kind+"s is not one", nameAccepts)
			continue
		}
		parse(f)
	}
}

// text returns the text of a scalar value.
func (p *clientsParser) text(n *yaml.Node, what, accepted string) (string, bool) {
	fault := nodeFault(n)
	switch {
	case fault != "":
		p.addError(n.Line, what+" "+fault, accepted)
	case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null":
		p.addError(n.Line, what+" is "+nodeKind(n), accepted)
	case strings.TrimSpace(n.Value) == "":
		p.addError(n.Line, what+" is empty", accepted)
	case strings.ContainsFunc(n.Value, isControl):
		p.addError(n.Line, what+" has a control character in it, such as a line break", accepted)
	default:
		return n.Value, true
	}
	return "", false
}

// items returns the items of a list, which must not be empty.
func (p *clientsParser) items(n *yaml.Node, what, accepted string) []*yaml.Node {
	fault := nodeFault(n)
	switch {
	case fault != "":
		p.addError(n.Line, what+" "+fault, accepted)
	case n.Kind != yaml.SequenceNode:
		p.addError(n.Line, what+" is "+nodeKind(n), accepted)
	case len(n.Content) == 0:
		p.addError(n.Line, what+" is an empty list", accepted)
	default:
		return n.Content
	}
	return nil
}

func (p *clientsParser) client(named pair) {
	what := "client " + named.key
	fields := p.fields(named.value, what, "a mapping such as {keys: [{file: keys/splunk}]}", "keys", "allow", "max_requests", "account")
	c := Client{Name: named.key, Line: named.line}
	if n := fields["keys"]; n != nil {
		p.keys(&c, n, "keys of "+what)
	} else if isMapping(named.value) {
		p.addError(named.line, what+" has no keys", keysAccepts)
	}
	if n := fields["allow"]; n != nil {
		const accepted = `a list of patterns such as ["@siem"]; without allow: everything that PROXY_ALLOW lets through`
		c.AllowLine = n.Line
		for _, item := range p.items(n, "allow of "+what, accepted) {
			if route, ok := p.text(item, "a route of "+what, accepted); ok {
				c.Allow = append(c.Allow, strings.TrimSpace(route))
			}
		}
	}
	if n := fields["max_requests"]; n != nil {
		c.MaxRequests = p.count(n, "max_requests of "+what)
	}
	if n := fields["account"]; n != nil {
		c.Account = p.accountOf(n, what)
	}
	p.dir.Clients = append(p.dir.Clients, c)
}

func (p *clientsParser) count(n *yaml.Node, what string) int {
	const accepted = "a number from 1 to 1000000"
	text, ok := p.text(n, what, accepted)
	if !ok {
		return 0
	}
	var count number
	err := invalid("is not a whole number")
	if n.ShortTag() == "!!int" {
		err = count.UnmarshalText([]byte(text))
	}
	if err != nil {
		p.addError(n.Line, what+" "+err.Error(), accepted)
	}
	return int(count)
}

// accountOf returns the account that a client names; empty for the default one.
func (p *clientsParser) accountOf(n *yaml.Node, what string) string {
	accepted := "an account of this file, or " + DefaultAccount
	name, ok := p.text(n, "account of "+what, accepted)
	if !ok || name == DefaultAccount {
		return ""
	}
	if _, known := p.lines[name]; !known {
		p.addError(n.Line, what+" names "+shownAccount(name)+", which is not in accounts:", accepted)
	}
	p.used[name] = true
	return name
}

func shownAccount(name string) string {
	if clientName.MatchString(name) {
		return "the account " + name
	}
	return "an account"
}

// keys adds the keys of a client.
func (p *clientsParser) keys(c *Client, n *yaml.Node, what string) {
	for _, item := range p.items(n, what, keysAccepts) {
		if item.Kind == yaml.ScalarNode {
			p.addError(item.Line, what+" contain a key, which this file must not", "{file: FILE} or {sha256: HEX}")
			continue
		}
		fields := p.fields(item, "a key of client "+c.Name, "{file: FILE} or {sha256: HEX}", "file", "sha256")
		switch {
		case len(fields) == 2:
			p.addError(item.Line, "a key of client "+c.Name+" has file and sha256", "one of the two")
		case fields["file"] != nil:
			p.keysOfFile(c, fields["file"])
		case fields["sha256"] != nil:
			p.digest(c, fields["sha256"])
		case isMapping(item) && len(item.Content) == 0:
			p.addError(item.Line, "a key of client "+c.Name+" is empty", "{file: FILE} or {sha256: HEX}")
		}
	}
	if len(c.Keys)+len(c.Digests) > maxKeys {
		p.addError(n.Line, fmt.Sprintf("client %s has more than %d keys", c.Name, maxKeys), fmt.Sprintf("at most %d", maxKeys))
	}
}

func (p *clientsParser) keysOfFile(c *Client, n *yaml.Node) {
	keys, _ := p.secretFile(n, "the key file of client "+c.Name, parseKeys)
	weak := false
	for _, key := range keys {
		if text := key.Reveal(); p.unique(c, n, sha256.Sum256([]byte(text))) {
			c.Keys = append(c.Keys, key)
			weak = weak || utf8.RuneCountInString(text) < minKeyLength
		}
		if form := suspiciousForm(key.Reveal()); form != "" {
			p.addWarning(n.Line, "a key of client %s %s", c.Name, form)
		}
	}
	if weak {
		p.addWarning(n.Line, "client %s has a key of fewer than %d characters, which can be guessed; make one with: mimecast-proxy keygen %[1]s", c.Name, minKeyLength)
	}
}

func (p *clientsParser) digest(c *Client, n *yaml.Node) {
	const accepted = "64 hexadecimal digits, as mimecast-proxy keygen prints them"
	what := "sha256 of client " + c.Name
	text, ok := p.text(n, what, accepted)
	if !ok {
		return
	}
	digest, err := hex.DecodeString(text)
	if err != nil || len(digest) != sha256.Size {
		p.addError(n.Line, what+" is not a SHA-256", accepted)
		return
	}
	if d := [sha256.Size]byte(digest); p.unique(c, n, d) {
		c.Digests = append(c.Digests, d)
	}
}

// unique records a key and reports whether it is new in the file and within maxAllKeys.
// A key must identify one client.
func (p *clientsParser) unique(c *Client, n *yaml.Node, digest [sha256.Size]byte) bool {
	if line, again := p.owners[digest]; again {
		p.addError(n.Line, fmt.Sprintf("client %s repeats the key of line %d", c.Name, line), "each key once in the whole file")
		return false
	}
	if len(p.owners) == maxAllKeys && !p.tooMany {
		p.tooMany = true
		p.addError(n.Line, fmt.Sprintf("the clients have more than %d keys in all", maxAllKeys), fmt.Sprintf("at most %d", maxAllKeys))
	}
	if p.tooMany {
		return false
	}
	p.owners[digest] = n.Line
	return true
}

// secretFile returns the secrets in a file that the clients file names, and the path.
// Errors do not show the path: it may be the secret itself, put there by mistake.
func (p *clientsParser) secretFile(n *yaml.Node, what string, parse func([]byte) ([]secret.Text, error)) ([]secret.Text, string) {
	path, ok := p.text(n, what, fileAccepts)
	if !ok {
		return nil, ""
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(p.path), path)
	}
	content, err := p.readFile(path)
	var secrets []secret.Text
	if err == nil {
		secrets, err = parse(content)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.addError(n.Line, what+" does not exist; its name is not shown, in case it is the secret itself", fileAccepts)
	case err != nil:
		p.addError(n.Line, what+" "+err.Error(), fileAccepts)
	default:
		return secrets, path
	}
	return nil, ""
}

func (p *clientsParser) account(named pair) {
	what := "account " + named.key
	if named.key == DefaultAccount {
		p.addError(named.line, what+" is that of the MIMECAST_ variables", "another name")
		return
	}
	p.lines[named.key] = named.line
	fields := p.fields(named.value, what, accountAccepts, "region", "base_url", "token_url", "client_id", "client_id_file", "client_secret_file")
	if !isMapping(named.value) {
		return // already reported
	}
	a := Account{Name: named.key, ClientID: p.clientID(named, fields)}
	p.upstreamOf(&a, fields)
	if n := fields["client_secret_file"]; n == nil {
		p.addError(named.line, what+" has no client_secret_file", secretAccepts)
	} else if secrets, path := p.secretFile(n, "client_secret_file of "+what, parseSecret); path != "" {
		a.ClientSecret, a.SecretFile = secrets[0], path
		if isBase64Line(secrets[0].Reveal()) {
			p.addWarning(n.Line, "client_secret_file of %s looks base64-encoded; use the value as Mimecast shows it", what)
		}
	}
	p.dir.Accounts = append(p.dir.Accounts, a)
}

// clientID returns the client ID of an account.
func (p *clientsParser) clientID(named pair, fields map[string]*yaml.Node) secret.Text {
	what := "account " + named.key
	literal, file := fields["client_id"], fields["client_id_file"]
	switch {
	case literal != nil && file != nil:
		p.addError(literal.Line, what+" has client_id and client_id_file", "one of the two")
	case file != nil:
		if ids, path := p.secretFile(file, "client_id_file of "+what, parseSecret); path != "" {
			return ids[0]
		}
	case literal != nil:
		const accepted = "the value that the Administration Console shows"
		id, ok := p.text(literal, "client_id of "+what, accepted)
		if err := checkSecret(id); ok && err != nil {
			p.addError(literal.Line, "client_id of "+what+" "+err.Error(), accepted)
		}
		return secret.New(id)
	default:
		p.addError(named.line, what+" has no client ID", "client_id or client_id_file")
	}
	return secret.Text{}
}

// upstreamOf sets the URLs of an account, by the same rules as the variables.
func (p *clientsParser) upstreamOf(a *Account, fields map[string]*yaml.Node) {
	region, base := fields["region"], fields["base_url"]
	switch {
	case region != nil && base != nil:
		p.addError(base.Line, "account "+a.Name+" has region and base_url", "one of the two")
	case base != nil:
		a.BaseURL = p.url(base, "base_url of account "+a.Name)
		if without, ok := withoutTokenPath(a.BaseURL); ok {
			p.addError(base.Line, "base_url of account "+a.Name+" is the URL of the token endpoint", without)
		}
	default:
		a.Region = "global"
		if region != nil {
			a.Region = p.region(region, "region of account "+a.Name)
		}
		a.BaseURL, _ = url.Parse(mimecast.BaseURLs[a.Region]) // an invalid region is already reported
	}
	if n := fields["token_url"]; n != nil {
		a.TokenURL = p.url(n, "token_url of account "+a.Name)
	} else if a.BaseURL != nil {
		a.TokenURL = a.BaseURL.JoinPath(mimecast.TokenPath)
	}
}

func (p *clientsParser) region(n *yaml.Node, what string) string {
	accepted := variable("MIMECAST_REGION").Accepts
	name, ok := p.text(n, what, accepted)
	name = strings.ToLower(name)
	if _, known := mimecast.BaseURLs[name]; ok && !known {
		p.addError(n.Line, what+" is not one of them", accepted)
	}
	return name
}

func (p *clientsParser) url(n *yaml.Node, what string) *url.URL {
	accepted := variable("MIMECAST_BASE_URL").Accepts
	text, ok := p.text(n, what, accepted)
	if !ok {
		return nil
	}
	var e endpoint
	if err := e.UnmarshalText([]byte(text)); err != nil {
		if r, ok := errors.AsType[invalidValue](err); ok && r.hint != "" {
			accepted = strings.ReplaceAll(r.hint, "MIMECAST_REGION=", "region: ")
		}
		p.addError(n.Line, what+" "+err.Error(), accepted)
	}
	return e.URL
}
