package deploy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"mimecast-proxy/simulator"
)

// clientsFile has the fields of a clients file that these tests change.
type clientsFile struct {
	Clients  map[string]map[string]any    `json:"clients"`
	Accounts map[string]map[string]string `json:"accounts"`
}

// workedExample returns the clients file of docs/teams.md.
func workedExample(t *testing.T) clientsFile {
	t.Helper()
	block := regexp.MustCompile("(?ms)^```yaml\n(clients:\n.*?)^```$").FindStringSubmatch(readDoc(t, "docs/teams.md"))
	if block == nil {
		t.Fatal("docs/teams.md has no clients file")
	}
	var file clientsFile
	if err := sigsyaml.UnmarshalStrict([]byte(block[1]), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// setKeys replaces a client's keys.
func (f clientsFile) setKeys(name string, keys ...string) {
	var digests []any
	for _, key := range keys {
		digest := sha256.Sum256([]byte(key))
		digests = append(digests, map[string]any{"sha256": hex.EncodeToString(digest[:])})
	}
	f.Clients[name]["keys"] = digests
}

// keyOf returns a client's first key in these tests.
func keyOf(name string) string { return name + "-key-for-the-tests-only" }

// secret returns the Secret's content: the clients file and the files that it names.
func (f clientsFile) secret(t *testing.T) map[string]string {
	t.Helper()
	text, err := sigsyaml.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"clients.yaml": string(text)}
	for _, account := range f.Accounts {
		files[account["client_id_file"]], files[account["client_secret_file"]] = simulator.DefaultClientID, simulator.DefaultClientSecret
	}
	return files
}

// atSimulator returns the worked example with known keys, with the simulator as Mimecast.
func atSimulator(t *testing.T, n *node) clientsFile {
	t.Helper()
	file := workedExample(t)
	for name := range file.Clients {
		file.setKeys(name, keyOf(name))
	}
	for _, account := range file.Accounts {
		delete(account, "region")
		account["base_url"] = n.sim.URL
	}
	return file
}

// newClientsNode skips the test if the program does not know clients.
func newClientsNode(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	help, err := exec.CommandContext(t.Context(), n.binary, "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(help), "PROXY_CLIENTS_FILE") {
		t.Skip("the program has no PROXY_CLIENTS_FILE")
	}
	return n
}

// A Secret has no folders, and its keys are file names.
func TestWorkedExampleFitsIntoASecret(t *testing.T) {
	file := workedExample(t)
	if len(file.Clients) != 3 || len(file.Accounts) != 2 {
		t.Errorf("%d clients and %d accounts", len(file.Clients), len(file.Accounts))
	}
	for name, client := range file.Clients {
		account, _ := client["account"].(string)
		if file.Accounts[account] == nil {
			t.Errorf("client %s has no account, which the component named-accounts needs", name)
		}
	}
	doc := readDoc(t, "docs/teams.md")
	for name := range file.secret(t) {
		if !regexp.MustCompile(`^[-._a-zA-Z0-9]+$`).MatchString(name) {
			t.Errorf("%s cannot be a Secret's key", name)
		}
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/teams.md does not say that the Secret has %s", name)
		}
	}
}

func TestGatewayKnowsItsClients(t *testing.T) {
	t.Parallel()
	n := newClientsNode(t)
	all := everything(t)
	for _, name := range []string{"kustomize examples/gateway-clients", "helm gateway-clients"} {
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil {
				continue
			}
			n.secrets["mimecast-clients"] = atSimulator(t, n).secret(t)
			c := template.Spec.Containers[0]
			p := n.run(template.Spec, c)
			p.passes(c.StartupProbe)
			p.passes(c.ReadinessProbe)
			n.useAsDocumented(p)
			n.rotateKey(p)
			p.end()
		}
	}
}

// useAsDocumented checks what docs/teams.md says about the worked example's clients.
func (n *node) useAsDocumented(p *container) {
	n.t.Helper()
	for name, want := range map[string]int{"splunk": http.StatusForbidden, "reports": http.StatusOK, "soar": http.StatusOK, "nobody": http.StatusUnauthorized} {
		if status := p.get("http://"+p.data+"/identity/whoami", "mimecast-proxy", keyOf(name)); status != want {
			n.t.Errorf("%s: %d instead of %d", name, status, want)
		}
	}
	for _, object := range decode(n.t, kustomize(n.t, filepath.Join(manifests, "examples", "gateway-tool"))) {
		if template := pod(object); template != nil {
			n.runTool(p, template.Spec)
		}
	}
}

// runTool runs the example tool's command with a client's key.
func (n *node) runTool(p *container, spec corev1.PodSpec) {
	n.t.Helper()
	n.secrets["mimecast-key"] = map[string]string{"api-key": keyOf("reports")}
	job, paths := spec.Containers[0], n.mount(spec, spec.Containers[0])
	if want, got := "http://mimecast-proxy.mimecast", variables(job)["MIMECAST_BASE_URL"]; got != want {
		n.t.Errorf("the tool calls %s instead of %s", got, want)
	}
	cmd := exec.CommandContext(n.t.Context(), job.Command[0], append(job.Command[1:], paths.Replace(job.Args[0]))...)
	cmd.Env = append(os.Environ(), "MIMECAST_BASE_URL=http://"+p.data)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "account-codes") {
		n.t.Errorf("%v\n%s", err, out)
	}
}

// rotateKey replaces a client's key as docs/teams.md describes. No request is rejected:
// each step waits until the proxy has read the previous step's file.
func (n *node) rotateKey(p *container) {
	n.t.Helper()
	const next = "the-next-key-of-reports"
	url := "http://" + p.data + "/identity/whoami"
	status := func(key string) int { return p.get(url, "mimecast-proxy", key) }
	file := atSimulator(n.t, n)
	update := func(keys ...string) {
		file.setKeys("reports", keys...)
		n.publish(n.volumes["mimecast-clients"], file.secret(n.t))
	}
	update(keyOf("reports"), next)
	p.await("the new key is valid", func() bool { return status(next) == http.StatusOK })
	if got := status(keyOf("reports")); got != http.StatusOK {
		n.t.Errorf("with both keys in the file, the old one gets %d", got)
	}
	update(next)
	p.await("the old key is rejected", func() bool { return status(keyOf("reports")) == http.StatusUnauthorized })
	if got := status(next); got != http.StatusOK {
		n.t.Errorf("after the old key, the new one gets %d", got)
	}
}
