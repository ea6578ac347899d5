package config_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

const clientsReport = "PROXY_CLIENTS_FILE "

// digestOf returns the sha256 value of a key for a clients file.
func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// longKey returns a key that is long enough to cause no warning.
func longKey(name string) string { return name + strings.Repeat("-k", 10) }

// clientsDir writes a clients file and the files that it names. It returns the path of
// the clients file.
func clientsDir(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"clients.yaml": content,
		"splunk":       longKey("splunk") + "\n" + longKey("splunk-next") + "\n",
		"short":        "short\n",
		"quoted":       `"` + longKey("quoted") + `"` + "\n",
		"blank":        longKey("blank") + " \n",
		"same":         longKey("splunk") + "\n",
		"id":           "emea-id\n",
		"secret":       marked + "\n",
		"two-lines":    "a\nb\n",
	} {
		put(t, filepath.Join(dir, name), text)
	}
	return filepath.Join(dir, "clients.yaml")
}

const wholeClientsFile = `clients:
  splunk:
    keys: [{file: splunk}, {sha256: DIGEST}]
    allow:
      - "@siem"
      - GET /audit/
    max_requests: 32
    account: emea
  cortex: {keys: [{sha256: OTHER}], account: default}
accounts:
  emea: {region: uk, client_id_file: id, client_secret_file: secret}
  apac:
    base_url: https://api.example/x/
    client_id: "007"
    client_secret_file: secret
`

func wholeClients(t *testing.T) string {
	t.Helper()
	return clientsDir(t, strings.NewReplacer("DIGEST", digestOf("a"), "OTHER", strings.ToUpper(digestOf("b"))).Replace(wholeClientsFile))
}

func TestClientsFileSaysWhoMayCall(t *testing.T) {
	path := wholeClients(t)
	cfg := parse(t, "PROXY_CLIENTS_FILE="+path, "PROXY_LISTEN=0.0.0.0:8080")
	d := cfg.Clients.Current()
	splunk, cortex := d.Clients[0], d.Clients[1]
	equal(t, "keys", []string{splunk.Keys[0].Reveal(), splunk.Keys[1].Reveal()}, []string{longKey("splunk"), longKey("splunk-next")})
	equal(t, "digests", splunk.Digests, [][sha256.Size]byte{sha256.Sum256([]byte("a"))})
	splunk.Keys, splunk.Digests = nil, nil
	equal(t, "client", splunk, config.Client{Name: "splunk", Line: 2, AllowLine: 5, Allow: []string{"@siem", "GET /audit/"}, MaxRequests: 32, Account: "emea"})
	equal(t, "client", cortex, config.Client{Name: "cortex", Line: 9, Digests: [][sha256.Size]byte{sha256.Sum256([]byte("b"))}})
	emea, apac := d.Accounts[0], d.Accounts[1]
	equal(t, "emea", strings.Join([]string{emea.Name, emea.Region, emea.BaseURL.String(), emea.TokenURL.String(), emea.ClientID.Reveal(), emea.ClientSecret.Reveal(), filepath.Base(emea.SecretFile)}, " "),
		"emea uk https://uk-api.services.mimecast.com https://uk-api.services.mimecast.com/oauth/token emea-id "+marked+" secret")
	equal(t, "apac", strings.Join([]string{apac.Region, apac.BaseURL.String(), apac.TokenURL.String(), apac.ClientID.Reveal()}, " "),
		" https://api.example/x https://api.example/x/oauth/token 007")
	equal(t, "warnings", d.Warnings, []string{"PROXY_CLIENTS_FILE: clients.yaml:12: no client uses the account apac"})
	equal(t, "warnings", cfg.Warnings, d.Warnings)
	equal(t, "position", cfg.Clients.Position(5), "clients.yaml:5")
	if !cfg.KeyRequired() || !cfg.HasDefaultAccount() {
		t.Error("no key is required, or there is no account")
	}
	if text := fmt.Sprintf("%+v %#v %v", cfg, cfg, d); strings.Contains(text, marked) || strings.Contains(text, "-k-k") {
		t.Errorf("a secret is printed: %s", text)
	}
}

func TestClientsFileMayBeJSON(t *testing.T) {
	cfg := parse(t, "PROXY_CLIENTS_FILE="+clientsDir(t, "{\n\t\"clients\": {\"splunk\": {\"keys\": [{\"file\": \"splunk\"}],\n\t\t\"max_requests\": 3}}\n}\n"))
	c := cfg.Clients.Current().Clients[0]
	equal(t, "client", []any{c.Name, c.Line, len(c.Keys), c.MaxRequests}, []any{"splunk", 2, 2, 3})
}

func TestWithoutClientsFile(t *testing.T) {
	cfg := parse(t)
	cfg.Clients.OnChange(func(*config.Directory) error { return nil })
	if !cfg.Clients.IsZero() || cfg.Clients.Current() != nil || cfg.KeyRequired() {
		t.Error("there are clients")
	}
}

// clientsAndMore returns a clients file with one valid client, followed by lines.
func clientsAndMore(lines string) string {
	return "clients:\n  good: {keys: [{sha256: " + digestOf("good") + "}]}\n" + lines
}

// clientsFaults maps lines of a clients file, from line 3 on, to the expected errors.
var clientsFaults = map[string][]string{
	"":                              nil,
	"  a: {keys: [{file: splunk}]}": nil,
	"  a:":                          {"3: client a is nothing"},
	"  a: {}":                       {"3: client a has no keys"},
	"  a: b":                        {"3: client a is a single value"},
	"  a: [b]":                      {"3: client a is a list"},
	"  A: {keys: [{file: splunk}]}": {"3: a name in clients is not one"},
	"  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: {keys: [{file: splunk}]}": {"3: a name in clients is not one"},
	"  good: {keys: [{file: splunk}]}":                                      {`3: clients has "good" twice, first in line 2`},
	"  [a, b]: {}":                                                          {"3: clients has a key that is not plain text"},
	"  a: {keyz: [], keys: [{file: splunk}]}":                               {`3: client a has "keyz", which is unknown`},
	"  a: {" + marked + marked + ": x, keys: [{file: splunk}]}":             {"3: client a has a key (not shown, in case it is a secret), which is unknown"},
	"  a:\n    keys: [{file: splunk}]\n    keys: [{file: short}]":           {`5: client a has "keys" twice, first in line 4`},
	"  a: {keys: []}":                                                       {"3: keys of client a is an empty list"},
	"  a: {keys: }":                                                         {"3: keys of client a is nothing"},
	"  a: {keys: splunk}":                                                   {"3: keys of client a is a single value"},
	"  a: {keys: [" + marked + "]}":                                         {"3: keys of client a contain a key, which this file must not"},
	"  a: {keys: [{}]}":                                                     {"3: a key of client a is empty"},
	"  a: {keys: [[]]}":                                                     {"3: a key of client a is a list"},
	"  a: {keys: [{file: splunk, sha256: x}]}":                              {"3: a key of client a has file and sha256"},
	"  a:\n    keys:\n    - file: splunk\n    - file: " + marked:            {"6: the key file of client a does not exist; its name is not shown, in case it is the secret itself"},
	"  a: {keys: [{file: .}]}":                                              {"3: the key file of client a is not a regular file"},
	"  a: {keys: [{file: blank}]}":                                          {"3: the key file of client a has a key in line 1 that begins or ends with a blank"},
	"  a: {keys: [{file: ''}]}":                                             {"3: the key file of client a is empty"},
	`  a: {keys: [{file: "a\nb"}]}`:                                         {"3: the key file of client a has a control character in it, such as a line break"},
	"  a: {keys: [{sha256: abc}]}":                                          {"3: sha256 of client a is not a SHA-256"},
	"  a: {keys: [{sha256: {}}]}":                                           {"3: sha256 of client a is a mapping"},
	"  a:\n    keys: [{file: splunk},\n      {file: same}]":                 {"5: client a repeats the key of line 4"},
	"  a: {keys: [{file: splunk}]}\n  b: {keys: [{file: same}]}":            {"4: client b repeats the key of line 3"},
	"  a: {keys: [{file: splunk}]}\n  b: {keys: [{sha256: " + digestOf(longKey("splunk")) + "}]}": {"4: client b repeats the key of line 3"},
	"  a: {keys: [{sha256: " + digestOf("good") + "}]}":                                           {"3: client a repeats the key of line 2"},
	"  a: {keys: [{file: splunk}], allow: '@siem'}":                                               {"3: allow of client a is a single value"},
	"  a: {keys: [{file: splunk}], allow: []}":                                                    {"3: allow of client a is an empty list"},
	"  a:\n    keys: [{file: splunk}]\n    allow:\n      - GET /a\n      -\n      - []":           {"7: a route of client a is nothing", "8: a route of client a is a list"},
	"  a: {keys: [{file: splunk}], max_requests: 0}":                                              {"3: max_requests of client a is out of range"},
	"  a: {keys: [{file: splunk}], max_requests: 1000001}":                                        {"3: max_requests of client a is out of range"},
	"  a: {keys: [{file: splunk}], max_requests: 0x10}":                                           {"3: max_requests of client a is not a whole number"},
	"  a: {keys: [{file: splunk}], max_requests: '3'}":                                            {"3: max_requests of client a is not a whole number"},
	"  a: {keys: [{file: splunk}], max_requests: [3]}":                                            {"3: max_requests of client a is a list"},
	"  a: {keys: [{file: splunk}], max_requests: }":                                               {"3: max_requests of client a is nothing"},
	"  a: {keys: [{file: splunk}], account: emea}":                                                {"3: client a names the account emea, which is not in accounts:"},
	"  a: {keys: [{file: splunk}], account: NO NAME}":                                             {"3: client a names an account, which is not in accounts:"},
	"  a: &x {keys: [{file: splunk}]}":                                                            {"3: client a has an anchor (&)"},
	"  a: {keys: &x [{file: splunk}]}\n  b: {keys: *x}":                                           {"3: keys of client a has an anchor (&)", "4: keys of client b is an alias (*)"},
	"  a: {keys: [{file: *x}]}":                                                                   {"3: the file has a value that begins with *, which is an alias in YAML"},
	"  a: {keys: [{file: splunk}], allow: [!!binary aGk=]}":                                       {"3: a route of client a has a tag (!)"},
	"  a: {keys: [{file: splunk}], max_requests: &n 3}":                                           {"3: max_requests of client a has an anchor (&)"},
	"  a: {<<: {allow: [x]}, keys: [{file: splunk}]}":                                             {"3: client a has a merge key (<<)"},
	"---\nclients: {}":             {"3: the file has a second document"},
	"--- {":                        {"3: the file is not YAML: did not find expected node content"},
	"  a: {keys: [{file: splunk}]": {"3: the file is not YAML: did not find expected ',' or '}'"},
	"  a: 'x\n  b: c":              {"3: the file is not YAML: found unexpected end of stream"},
	"  a: b: c\n  d: e\n  f: g":    {"3: the file is not YAML: mapping values are not allowed in this context"},
	"\ta: b\n  d: e\n  f: g":       {"3: the file is not YAML: found character that cannot start any token"},
	"  a: \"\\q\"\n  b: c":         {"3: the file is not YAML: found unknown escape character"},
	"client: {}":                   {`3: the file has "client", which is unknown`},
	"clients: {}":                  {`3: the file has "clients" twice, first in line 1`},
	"accounts: []":                 {"3: accounts is a list"},
	"accounts:\n  emea:":           {"4: account emea is nothing"},
	"accounts:\n  emea: {}":        {"4: account emea has no client ID", "4: account emea has no client_secret_file"},
	"accounts:\n  default: {}":     {"4: account default is that of the MIMECAST_ variables"},
	"accounts:\n  E: {}":           {"4: a name in accounts is not one"},
	"accounts:\n  emea: {client_id: a, client_secret: " + marked + "}":                                                        {"4: account emea contains a secret, which this file must not", "4: account emea has no client_secret_file"},
	"accounts:\n  emea: {client_id: a, client_id_file: id, client_secret_file: secret}":                                       {"4: account emea has client_id and client_id_file"},
	"accounts:\n  emea: {client_id: a b , client_secret_file: two-lines}":                                                     {"4: client_secret_file of account emea has a control character in it, such as a line break"},
	"accounts:\n  emea: {client_id: ' a', client_secret_file: secret}":                                                        {"4: client_id of account emea begins or ends with a blank"},
	"accounts:\n  emea: {client_id: a, client_secret_file: gone}":                                                             {"4: client_secret_file of account emea does not exist; its name is not shown, in case it is the secret itself"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, region: eu}":                                               {"4: region of account emea is not one of them"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, region: [uk]}":                                             {"4: region of account emea is a list"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, region: uk, base_url: https://a.example}":                  {"4: account emea has region and base_url"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, base_url: http://a.example}":                               {"4: base_url of account emea would send the credentials over the network in the clear"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, base_url: https://uk-api.mimecast.com}":                    {"4: base_url of account emea is an API 1.0 host, which accepts no bearer token"},
	"accounts:\n  emea: {client_id: a, client_secret_file: secret, base_url: https://a.example/oauth/token}":                  {"4: base_url of account emea is the URL of the token endpoint"},
	"accounts:\n  emea:\n    client_id: a\n    client_secret_file: secret\n    token_url: https://u:" + marked + "@a.example": {"7: token_url of account emea contains a user name or password"},
}

func TestEveryFaultOfAClientsFileHasItsLine(t *testing.T) {
	for lines, want := range clientsFaults {
		checkClientsFaults(t, clientsDir(t, clientsAndMore(lines)), lines, want)
	}
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i, digestOf(fmt.Sprint(i)))
		}
		return b.String()
	}
	for content, want := range map[string][]string{
		"":                  {"1: the file is empty"},
		"# nothing\n":       {"1: the file is empty"},
		"---":               {"1: the file is empty"},
		"---\n...\n":        {"1: the file is empty"},
		"---\nnull":         {"2: the file is nothing"},
		"[]":                {"1: the file is a list"},
		"accounts: {}":      {"1: the file has no clients"},
		"# a\nclients: {}":  {"2: the file has no clients"},
		"# a\nclients:":     {"2: clients is nothing"},
		"clients: *x":       {"1: the file has a value that begins with *, which is an alias in YAML"},
		"\xff\xfec\x00":     {"1: the file is in UTF-16, not UTF-8"},
		"clients: \xc3\x28": {"1: the file is not text in UTF-8"},
		"clients:\n" + many(100, "  c%d: {keys: [{sha256: %s}]}\n"):                                       nil,
		"clients:\n" + many(101, "  c%d: {keys: [{sha256: %s}]}\n"):                                       {"102: more than 100 clients"},
		"clients:\n  a:\n    keys:\n" + many(101, "    - sha256: %[2]s # %[1]d\n"):                        {"4: client a has more than 100 keys"},
		clientsAndMore("accounts:\n" + many(101, "  a%d: {client_id: %s, client_secret_file: secret}\n")): {"104: more than 100 accounts"},
	} {
		checkClientsFaults(t, clientsDir(t, content), content[:min(len(content), 50)], want)
	}
	keys := "clients:\n"
	for n := range 1001 {
		if n%91 == 0 {
			keys += fmt.Sprintf("  c%d:\n    keys:\n", n)
		}
		keys += "    - sha256: " + digestOf(fmt.Sprint(n)) + "\n"
	}
	checkClientsFaults(t, clientsDir(t, keys), "1,001 keys", []string{"1024: the clients have more than 1000 keys in all"})
	all := faults(t, environ("PROXY_CLIENTS_FILE="+clientsDir(t, "clients:\n  a: {keys: [{file: splunk}]}\n"+many(90, "  c%d: {x: %s}\n"))))
	if len(all) != 101 || !strings.Contains(all[100], "clients.yaml:52: more errors follow") {
		t.Errorf("%d errors, the last: %s", len(all), all[len(all)-1])
	}
}

func checkClientsFaults(t *testing.T, path, name string, want []string) {
	t.Helper()
	var got []string
	for _, line := range faults(t, environ("PROXY_CLIENTS_FILE="+path)) {
		found, _, _ := strings.Cut(strings.TrimPrefix(line, "PROXY_CLIENTS_FILE: clients.yaml:"), "; accepted: ")
		got = append(got, found)
		if strings.Contains(line, "-k-k") {
			t.Errorf("a key is shown: %s", line)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", name, got, want)
	}
}

func TestClientsFileThatCannotBeRead(t *testing.T) {
	for path, want := range map[string]string{
		t.TempDir():                                 "is not a regular file",
		filepath.Join(t.TempDir(), "gone"):          "cannot be read: no such file or directory",
		clientsDir(t, strings.Repeat("#", 1<<20+1)): "is larger than 1MiB",
	} {
		equal(t, "faults", faults(t, environ("PROXY_CLIENTS_FILE="+path)), []string{
			fmt.Sprintf("PROXY_CLIENTS_FILE: %q %s; accepted: a file in YAML or JSON, of at most 1MiB", path, want)})
	}
}

func TestClientsFileAndAPIKeyExcludeEachOther(t *testing.T) {
	path := wholeClients(t)
	for _, other := range []string{"PROXY_API_KEY=" + longKey("x"), "PROXY_API_KEY_FILE=" + write(t, longKey("x"))} {
		name, _, _ := strings.Cut(other, "=")
		equal(t, "faults", faults(t, environ("PROXY_CLIENTS_FILE="+path, other)), []string{
			"PROXY_CLIENTS_FILE: set together with " + name + "; accepted: one of the two; the clients file has the keys of each client"})
	}
}

func TestWeakKeysOfClientsDrawWarnings(t *testing.T) {
	cfg := parse(t, "PROXY_CLIENTS_FILE="+clientsDir(t, "clients:\n  a: {keys: [{file: short}]}\n  b: {keys: [{file: quoted}]}\n"))
	equal(t, "warnings", cfg.Warnings, []string{
		"PROXY_CLIENTS_FILE: clients.yaml:2: client a has a key of fewer than 16 characters, which can be guessed; make one with: mimecast-proxy keygen a",
		"PROXY_CLIENTS_FILE: clients.yaml:3: a key of client b has quotation marks around its value, which count as part of it",
	})
}

const accountsOnly = "clients:\n  a: {keys: [{file: splunk}], account: emea}\naccounts:\n  emea: {client_id: id, client_secret_file: secret}\n"

func TestDefaultAccountIsRequiredOnlyIfAClientUsesIt(t *testing.T) {
	cfg, err := config.Parse([]string{"PROXY_CLIENTS_FILE=" + clientsDir(t, accountsOnly)}, nil)
	if err != nil || cfg.HasDefaultAccount() || !cfg.ClientSecret.IsZero() {
		t.Error(err, cfg.ClientID)
	}
	all := faults(t, []string{"PROXY_CLIENTS_FILE=" + clientsDir(t, accountsOnly), "MIMECAST_CLIENT_ID=id"})
	if len(all) != 1 || !strings.HasPrefix(all[0], "MIMECAST_CLIENT_SECRET: not set; ") {
		t.Errorf("half a default account: %q", all)
	}
	all = faults(t, []string{"PROXY_CLIENTS_FILE=" + clientsDir(t, clientsAndMore(""))})
	if len(all) != 2 || !strings.HasPrefix(all[0], "MIMECAST_CLIENT_ID: not set; ") {
		t.Errorf("a client of the default account: %q", all)
	}
}

func TestPaceThatCannotWaitDrawsAWarning(t *testing.T) {
	cfg := parse(t, "PROXY_RATE_LIMIT_PACE=on", "PROXY_BATCH_RELAY=true")
	equal(t, "pace", []any{cfg.RateLimitPace, cfg.BatchRelay, len(cfg.Warnings)}, []any{"on", true, 1})
	for _, others := range [][]string{{"PROXY_RATE_LIMIT_PACE=on", "PROXY_RATE_LIMIT_WAIT=1s"}, {"PROXY_RATE_LIMIT_PACE=observe"}} {
		equal(t, "warnings", len(parse(t, others...).Warnings), 0)
	}
}

// names returns the current clients, each with the number of its keys.
func (w *watched) names() string {
	var all []string
	for _, c := range w.cfg.Clients.Current().Clients {
		all = append(all, fmt.Sprint(c.Name, len(c.Keys)))
	}
	return strings.Join(all, " ")
}

func TestClientsFileAndWhatItNamesAreReloadedTogether(t *testing.T) {
	path := clientsDir(t, "clients:\n  a: {keys: [{file: splunk}]}\n")
	dir := filepath.Dir(path)
	watch(t, environ("PROXY_CLIENTS_FILE="+path), func(t *testing.T, w *watched) {
		before := w.cfg.Clients.Current()
		put(t, filepath.Join(dir, "splunk"), longKey("other")+"\n")
		round()
		equal(t, "a key file alone", w.names()+" "+w.said(), "a1 "+clientsReport+"changed <nil>")
		equal(t, "the version before", len(before.Clients[0].Keys), 2)
		put(t, path, "clients:\n  a: {keys: [{file: splunk}]}\n  b: {keys: [{file: gone}]}\n")
		round()
		equal(t, "a missing file", w.names()+" "+w.said(), "a1 "+clientsReport+
			"failed clients.yaml:3: the key file of client b does not exist; its name is not shown, in case it is the secret itself, accepted: a file relative to the folder of this file")
		round()
		equal(t, "once", w.said(), "")
		put(t, filepath.Join(dir, "gone"), longKey("b"))
		round()
		equal(t, "the file is there", w.names()+" "+w.said(), "a1 b1 "+clientsReport+"changed <nil>")
		put(t, path, "clients: [")
		round()
		equal(t, "no YAML", w.names()+" "+w.said()[:50], "a1 b1 "+(clientsReport + "failed clients.yaml:1: the file is not YAML")[:50])
		put(t, path, "clients:\n  b: {keys: [{file: gone}]}\n")
		w.reread <- struct{}{}
		round()
		equal(t, "a client is gone", w.names(), "b1")
	})
}

func TestUnchangedClientsFileIsNotParsedAgain(t *testing.T) {
	path := clientsDir(t, "clients:\n  a: {keys: [{file: splunk}]}\n")
	key := filepath.Join(filepath.Dir(path), "splunk")
	watch(t, environ("PROXY_CLIENTS_FILE="+path), func(t *testing.T, w *watched) {
		first := w.cfg.Clients.Loaded()
		round()
		put(t, path, "clients:\n  a: {keys: [{file: splunk}]}\n") // unchanged content
		round()
		if w.cfg.Clients.Loaded() != first {
			t.Error("parsed without a change")
		}
		put(t, key, longKey("other"))
		round()
		second := w.cfg.Clients.Loaded()
		equal(t, "a key file that changed", w.names()+" "+w.said(), "a1 "+clientsReport+"changed <nil>")
		do(t, os.Remove(key))
		round()
		equal(t, "a key file that is gone", w.names()+" "+w.said()[:len(clientsReport)+6], "a1 "+clientsReport+"failed")
		round()
		equal(t, "once", w.said(), "")
		put(t, key, longKey("other"))
		round()
		equal(t, "it is back", w.names()+" "+w.said(), "a1 "+clientsReport+"restored <nil>")
		if third := w.cfg.Clients.Loaded(); third == first || third == second {
			t.Error("not parsed after a change")
		}
	})
}

func TestSwapOfLinksChangesClientsAtOnce(t *testing.T) {
	dir := t.TempDir()
	version := func(name, client string) {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		put(t, filepath.Join(dir, name, "clients.yaml"), "clients:\n  "+client+": {keys: [{file: key}]}\n")
		put(t, filepath.Join(dir, name, "key"), longKey(client))
		do(t, os.Symlink(name, filepath.Join(dir, "..tmp")), os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	version("..1", "one")
	do(t, os.Symlink("..data/key", filepath.Join(dir, "key")), os.Symlink("..data/clients.yaml", filepath.Join(dir, "clients.yaml")))
	watch(t, environ("PROXY_CLIENTS_FILE="+filepath.Join(dir, "clients.yaml")), func(t *testing.T, w *watched) {
		version("..2", "two")
		do(t, os.RemoveAll(filepath.Join(dir, "..1")))
		round()
		equal(t, "clients", w.names()+" "+w.said(), "two1 "+clientsReport+"changed <nil>")
		equal(t, "key", w.cfg.Clients.Current().Clients[0].Keys[0].Reveal(), longKey("two"))
		equal(t, "changes", w.together, [][]string{{"PROXY_CLIENTS_FILE"}})
	})
}

func TestVersionOfTheClientsFileThatIsVetoedDoesNotCount(t *testing.T) {
	path := clientsDir(t, "clients:\n  a: {keys: [{file: splunk}]}\n")
	watch(t, environ("PROXY_CLIENTS_FILE="+path), func(t *testing.T, w *watched) {
		w.cfg.Clients.OnChange(func(d *config.Directory) error {
			if c := d.Clients[0]; c.AllowLine > 0 {
				return fmt.Errorf("%s: no such preset", w.cfg.Clients.Position(c.AllowLine))
			}
			return nil
		})
		put(t, path, "clients:\n  a:\n    keys: [{file: short}]\n    allow: ['@odd']\n")
		round()
		equal(t, "vetoed", w.names()+" "+w.said(), "a2 "+clientsReport+"failed clients.yaml:4: no such preset")
		put(t, path, "clients:\n  a:\n    keys: [{file: short}]\n")
		round()
		equal(t, "fixed", w.names()+" "+w.said(), "a1 "+clientsReport+"changed <nil>")
	})
}

func TestReloadDoesNotMakeAnAccountNecessaryThatThereIsNot(t *testing.T) {
	path := clientsDir(t, accountsOnly)
	watch(t, []string{"PROXY_CLIENTS_FILE=" + path}, func(t *testing.T, w *watched) {
		put(t, path, strings.Replace(accountsOnly, "account: emea", "account: default", 1))
		round()
		equal(t, "clients", w.names()+" "+w.said()[:100], "a2 "+(clientsReport + "failed clients.yaml:2: client a uses the account of MIMECAST_CLIENT_ID, which was not set at the start")[:100])
	})
}
