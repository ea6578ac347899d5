package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"mimecast-proxy/simulator"
)

// These tests run rendered manifests as far as possible without a cluster. They run the
// program with the container's variables and files, probe it as the manifest says, and run
// the tool's command. They do not cover container order, endpoints, network policies or
// admission.

// patience limits every wait for something that must happen.
const patience = 30 * time.Second

// secrets are the contents of the Secrets that the manifests mount.
var secrets = map[string]map[string]string{
	"mimecast":           {"client-id": simulator.DefaultClientID, "client-secret": simulator.DefaultClientSecret},
	"mimecast-proxy-key": {"api-key": "a-key-for-the-tests-only"},
}

// node runs pods.
type node struct {
	t      *testing.T
	binary string
	sim    *simulator.Server
	ca     string
	// secrets are the cluster's Secrets; volumes are the paths where they are mounted.
	secrets map[string]map[string]string
	volumes map[string]string
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{
		t: t, binary: filepath.Join(dir, "mimecast-proxy"), ca: filepath.Join(dir, "ca.pem"),
		secrets: maps.Clone(secrets), volumes: map[string]string{},
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", n.binary, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sim, err := simulator.Start(simulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n.sim = sim
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(n.ca, sim.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// mount writes a container's secrets and returns a replacer for their paths.
func (n *node) mount(spec corev1.PodSpec, c corev1.Container) *strings.Replacer {
	n.t.Helper()
	var pairs []string
	for _, m := range c.VolumeMounts {
		dir := n.t.TempDir()
		for _, v := range spec.Volumes {
			if v.Name == m.Name {
				n.publish(dir, n.secrets[v.Secret.SecretName])
				n.volumes[v.Secret.SecretName] = dir
			}
		}
		pairs = append(pairs, m.MountPath+"/", dir+"/")
	}
	return strings.NewReplacer(pairs...)
}

// publish writes a volume's files as the kubelet does: into a new folder, to which it then
// atomically points the link ..data.
func (n *node) publish(dir string, files map[string]string) {
	n.t.Helper()
	version, err := os.MkdirTemp(dir, "..")
	if err != nil {
		n.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(version, name), []byte(text), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Base(version), filepath.Join(dir, "..data_tmp")); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		n.t.Fatal(err)
	}
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			n.t.Fatal(err)
		}
	}
}

// environ returns a container's variables as the kubelet would, with free local ports, and
// with the simulator as Mimecast.
func (n *node) environ(spec corev1.PodSpec, c corev1.Container) []string {
	n.t.Helper()
	paths := n.mount(spec, c)
	values := map[string]string{}
	environ := []string{"MIMECAST_CA_FILE=" + n.ca}
	if slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "MIMECAST_CLIENT_ID_FILE" }) {
		environ = append(environ, "MIMECAST_BASE_URL="+n.sim.URL)
	}
	for _, v := range c.Env {
		value := paths.Replace(v.Value)
		for name, earlier := range values {
			value = strings.ReplaceAll(value, "$("+name+")", earlier)
		}
		switch from := v.ValueFrom; {
		case from == nil:
		case from.ResourceFieldRef != nil && from.ResourceFieldRef.Resource == "requests.memory":
			value = strconv.FormatInt(c.Resources.Requests.Memory().Value(), 10)
		case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.namespace":
			value = "mimecast"
		default:
			n.t.Fatalf("%s comes from where this kubelet does not look", v.Name)
		}
		values[v.Name] = value
		if strings.HasSuffix(v.Name, "_LISTEN") {
			host, _, _ := strings.Cut(value, ":")
			value = host + ":0"
		}
		environ = append(environ, v.Name+"="+value)
	}
	return environ
}

// container is the proxy, running as a process.
type container struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr log
	port   map[string]string // maps the manifest's ports to local ports
	data   string            // host:port
	spec   corev1.Container
}

// log is a program's output, readable while the program writes.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.text.Write(b) }
func (l *log) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }

func (n *node) run(spec corev1.PodSpec, c corev1.Container) *container {
	n.t.Helper()
	p := n.start(n.environ(spec, c))
	p.spec = c
	return p
}

// start runs the program until it logs its addresses.
func (n *node) start(environ []string, args ...string) *container {
	n.t.Helper()
	p := &container{t: n.t, cmd: exec.Command(n.binary, args...), port: map[string]string{}}
	p.cmd.Env = append(environ, "PROXY_LOG_FORMAT=json")
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it has usually ended by now
	p.await("where it serves", func() bool {
		for line := range strings.Lines(p.stderr.String()) {
			var said struct{ Listen, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Listen != "" {
				_, data, _ := cutLast(said.Listen)
				_, admin, _ := cutLast(said.Admin)
				p.port["18080"], p.port["19090"], p.data = data, admin, "127.0.0.1:"+data
				return true
			}
		}
		return false
	})
	return p
}

func cutLast(address string) (host, port string, ok bool) {
	i := strings.LastIndexByte(address, ':')
	return address[:max(i, 0)], address[i+1:], i >= 0
}

func (p *container) await(what string, so func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not so after %v\n%s", what, patience, p.stderr.String())
		}
	}
}

// passes waits until a probe succeeds.
func (p *container) passes(probe *corev1.Probe) {
	p.t.Helper()
	port := probe.HTTPGet.Port
	for _, named := range p.spec.Ports {
		if port.Type == intstr.String && named.Name == port.StrVal {
			port = intstr.FromInt32(named.ContainerPort)
		}
	}
	p.await("probe "+probe.HTTPGet.Path, func() bool {
		// The kubelet sends the pod's address as the host, which is never in the allowed
		// names.
		res := p.get("http://127.0.0.1:"+p.port[port.String()]+probe.HTTPGet.Path, "10.1.2.3", "")
		return res == http.StatusOK
	})
}

func (p *container) get(url, host, key string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(p.t.Context()), http.MethodGet, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Host = host
	if key != "" {
		req.Header.Set("X-Proxy-Key", key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// end stops the container as the kubelet does.
func (p *container) end() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%v\n%s", err, p.stderr.String())
	}
	for line := range strings.Lines(p.stderr.String()) {
		if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
			p.t.Error(line)
		}
	}
}

func TestJobsToolReachesMimecastThroughItsSidecar(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	all := everything(t)
	for _, name := range []string{"kustomize examples/job", "helm job", "kustomize examples/cronjob"} {
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil {
				continue
			}
			p := n.run(template.Spec, template.Spec.InitContainers[0])
			p.passes(template.Spec.InitContainers[0].StartupProbe)
			p.passes(template.Spec.InitContainers[0].LivenessProbe)
			job := template.Spec.Containers[0]
			cmd := exec.CommandContext(t.Context(), job.Command[0], append(job.Command[1:], job.Args...)...)
			cmd.Env = append(os.Environ(), "MIMECAST_BASE_URL="+strings.Replace(variables(job)["MIMECAST_BASE_URL"], "127.0.0.1:18080", p.data, 1))
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "account-codes") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			p.end()
		}
	}
}

func TestGatewayTakesItsServicesNamesAndTheKey(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	all := everything(t)
	for _, name := range []string{"kustomize examples/gateway", "helm gateway"} {
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil {
				continue
			}
			c := template.Spec.Containers[0]
			p := n.run(template.Spec, c)
			p.passes(c.StartupProbe)
			p.passes(c.ReadinessProbe)
			p.passes(c.LivenessProbe)
			url, key := "http://"+p.data+"/identity/whoami", secrets["mimecast-proxy-key"]["api-key"]
			for _, host := range []string{"mimecast-proxy", "mimecast-proxy.mimecast", "mimecast-proxy.mimecast.svc", "mimecast-proxy.mimecast.svc.cluster.local"} {
				if status := p.get(url, host, key); status != http.StatusOK {
					t.Errorf("%s: %s: %d", name, host, status)
				}
			}
			if status := p.get(url, "mimecast-proxy", "wrong"); status != http.StatusUnauthorized {
				t.Errorf("%s: with a wrong key: %d", name, status)
			}
			if status := p.get(url, "elsewhere", key); status != http.StatusForbidden {
				t.Errorf("%s: by another name: %d", name, status)
			}
			p.end()
		}
	}
}
