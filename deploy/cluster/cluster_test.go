//go:build cluster

// Package cluster_test runs the manifests of k8s/ on a real Kubernetes cluster. The script
// "test" in this directory creates the cluster, runs the tests on it and removes it.
//
// The tests change only Mimecast's address in the manifests: a simulator runs as the first
// native sidecar of each pod. Every namespace enforces the restricted Pod Security
// Standard.
package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	root = "../.."
	// patience limits every wait for something that must happen.
	patience = 5 * time.Minute
)

// kubectl runs a command and returns its output.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func tryKubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, out, stderr.String())
	}
	return string(out), err
}

// await polls until so returns true. It fails the test after patience.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}

// namespace is a namespace of the cluster.
type namespace struct {
	t    *testing.T
	name string
}

// newNamespace creates a namespace that enforces the restricted Pod Security Standard, with
// the Secrets that the manifests mount.
func newNamespace(t *testing.T, name string) namespace {
	t.Helper()
	n := namespace{t, name}
	kubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q, "labels": {
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}}}`, name), "apply", "-f", "-")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := tryKubectl(t, "", "-n", name, "get", "pods,events", "-o", "wide") // there may be none
			t.Log(out)
			out, _ = tryKubectl(t, "", "-n", name, "logs", "--all-containers", "--prefix", "--tail=15", "-l", "mimecast-proxy")
			t.Log(out)
		}
		kubectl(t, "", "delete", "namespace", name, "--wait=false")
		// Do not wait for a tool that ignores SIGTERM.
		_, _ = tryKubectl(t, "", "-n", name, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false") // there may be none
	})
	n.secret("mimecast", map[string]string{"client-id": "demo-client-id", "client-secret": "demo-client-secret"})
	return n
}

// kubectl runs a command in the namespace.
func (n namespace) kubectl(args ...string) string {
	n.t.Helper()
	return kubectl(n.t, "", append([]string{"-n", n.name}, args...)...)
}

// secret creates or replaces a Secret.
func (n namespace) secret(name string, data map[string]string) {
	n.t.Helper()
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}, "stringData": data})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := tryKubectl(n.t, string(object), "-n", n.name, "replace", "-f", "-"); err != nil {
		kubectl(n.t, string(object), "-n", n.name, "create", "-f", "-")
	}
}

// overlay is a kustomization on top of the repository's.
type overlay struct {
	resources, components []string // paths in the repository
	files                 map[string]string
	patches               []string
}

// apply renders an overlay with kubectl and applies it.
func (n namespace) apply(o overlay) {
	n.t.Helper()
	dir, err := filepath.EvalSymlinks(n.t.TempDir())
	if err != nil {
		n.t.Fatal(err)
	}
	type patch struct {
		Target map[string]string `json:"target,omitempty"`
		Patch  string            `json:"patch"`
	}
	patches := []patch{}
	for _, p := range o.patches {
		patches = append(patches, patch{Patch: p, Target: targetOf(p)})
	}
	resources := inRepository(n.t, dir, o.resources)
	for name, text := range o.files {
		resources = append(resources, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": resources, "components": inRepository(n.t, dir, o.components), "patches": patches,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("apply", "-k", dir)
}

// targetOf makes a patch named "any" apply to every object of its kind.
func targetOf(patch string) map[string]string {
	for line := range strings.Lines(patch) {
		if kind, ok := strings.CutPrefix(strings.TrimSpace(line), "kind: "); ok && strings.Contains(patch, "name: any") {
			return map[string]string{"kind": kind}
		}
	}
	return nil
}

func inRepository(t *testing.T, dir string, paths []string) []string {
	t.Helper()
	found := []string{}
	for _, p := range paths {
		absolute, err := filepath.Abs(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(dir, absolute)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, relative)
	}
	return found
}

// restricted is the security context that the Pod Security Standard requires of a
// container.
const restricted = "{runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"

// simulated returns a patch for all workloads of a kind. It runs a simulated Mimecast as
// the pod's first native sidecar. place is the list with the proxy's container.
func simulated(kind, place string, args ...string) string {
	proxy := `- name: mimecast-proxy
  env:
    - {name: MIMECAST_BASE_URL, value: "https://127.0.0.1:18443"}
    - {name: MIMECAST_CA_FILE, value: /var/run/simulator/ca.pem}
  volumeMounts: [{name: simulator, mountPath: /var/run/simulator, readOnly: true}]
`
	simulator := `- name: simulator
  image: docker.io/library/tool:local
  args: [` + strings.Join(append([]string{"simulator"}, args...), ", ") + `]
  restartPolicy: Always
  startupProbe: {exec: {command: [/tool, ready]}, periodSeconds: 1, failureThreshold: 120}
  securityContext: ` + restricted + `
  volumeMounts: [{name: simulator, mountPath: /var/run/simulator}]
`
	lists := "initContainers:\n" + simulator
	if place == "initContainers" {
		lists += proxy
	} else {
		lists += place + ":\n" + proxy
	}
	return podPatch(kind, lists+"volumes: [{name: simulator, emptyDir: {}}]\n")
}

// toolArgs returns a patch for the tool's command line.
func toolArgs(kind, script string) string {
	text, _ := json.Marshal(script) // a string always marshals
	return podPatch(kind, "containers: [{name: tool, args: ["+string(text)+"]}]\n")
}

// podPatch returns a patch for the pods of all workloads of a kind.
func podPatch(kind, spec string) string {
	path := []string{"spec:", "template:", "spec:"}
	version := "apps/v1"
	switch kind {
	case "Job":
		version = "batch/v1"
	case "CronJob":
		version, path = "batch/v1", append([]string{"spec:", "jobTemplate:"}, path...)
	}
	patch := "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: any}\n"
	for depth, key := range path {
		patch += strings.Repeat("  ", depth) + key + "\n"
	}
	for line := range strings.Lines(spec) {
		patch += strings.Repeat("  ", len(path)) + line
	}
	return patch
}

// pod has the fields of a pod that the tests read.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
		CreationTimestamp time.Time
	}
	Spec struct {
		NodeName                   string
		InitContainers, Containers []container
	}
	Status struct {
		Phase                                    string
		PodIP                                    string
		Conditions                               []struct{ Type, Status string }
		InitContainerStatuses, ContainerStatuses []status
	}
}

type container struct{ Name string }

type status struct {
	Name, ContainerID string
	Ready             bool
	RestartCount      int
	State, LastState  struct {
		Running    *struct{ StartedAt time.Time }
		Terminated *termination
	}
}

type termination struct {
	ExitCode              int
	Reason                string
	StartedAt, FinishedAt time.Time
}

// pods returns the pods with a label, except those being deleted.
func (n namespace) pods(selector string) []pod {
	n.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(n.kubectl("get", "pods", "-l", selector, "-o", "json")), &list); err != nil {
		n.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p pod) bool { return p.Metadata.DeletionTimestamp != "" })
}

// onlyPod waits until exactly one pod has a label and returns it.
func (n namespace) onlyPod(selector string) pod {
	n.t.Helper()
	var found []pod
	await(n.t, "one pod of "+selector, func() bool { found = n.pods(selector); return len(found) == 1 })
	return found[0]
}

func (p pod) condition(name string) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == name {
			return c.Status == "True"
		}
	}
	return false
}

// status returns the status of a container or an init container.
func (p pod) status(name string) status {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Name == name {
			return s
		}
	}
	return status{}
}

// startedAt returns when a running or terminated container started, or the zero time.
func (s status) startedAt() time.Time {
	switch {
	case s.State.Running != nil:
		return s.State.Running.StartedAt
	case s.State.Terminated != nil:
		return s.State.Terminated.StartedAt
	}
	return time.Time{}
}

// logs returns the log of a pod's container.
func (n namespace) logs(p pod, container string) string {
	n.t.Helper()
	return n.kubectl("logs", p.Metadata.Name, "-c", container)
}

// checkOrder checks that a pod's containers started in order and were never restarted.
func (n namespace) checkOrder(p pod) {
	n.t.Helper()
	order := []string{"simulator", "mimecast-proxy", "tool"}
	var named []string
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		named = append(named, c.Name)
	}
	if !slices.Equal(named, order) {
		n.t.Errorf("the pod's containers are %v", named)
	}
	byStart := slices.SortedStableFunc(slices.Values(order), func(a, b string) int {
		return p.status(a).startedAt().Compare(p.status(b).startedAt())
	})
	if !slices.Equal(byStart, order) {
		n.t.Errorf("they started in the order %v", byStart)
	}
	for _, name := range order {
		if s := p.status(name); s.RestartCount != 0 || s.startedAt().IsZero() {
			n.t.Errorf("%s: %+v", name, s)
		}
	}
	n.t.Logf("start: simulator %s, proxy %s, tool %s", p.clock("simulator"), p.clock("mimecast-proxy"), p.clock("tool"))
}

func (p pod) clock(name string) string { return p.status(name).startedAt().Format(time.TimeOnly) }

// checkEnd checks the exit codes of tool and proxy, and that the proxy ended after the
// tool.
func (n namespace) checkEnd(p pod, exitCode int) {
	n.t.Helper()
	tool, proxy := p.status("tool").State.Terminated, p.status("mimecast-proxy").State.Terminated
	if tool == nil || proxy == nil {
		n.t.Fatalf("not ended: %+v", p.Status)
	}
	if tool.ExitCode != exitCode || proxy.ExitCode != 0 || proxy.FinishedAt.Before(tool.FinishedAt) {
		n.t.Errorf("tool: %+v, proxy: %+v", *tool, *proxy)
	}
	n.t.Logf("the tool ended with %d, the proxy %v later with 0", tool.ExitCode, proxy.FinishedAt.Sub(tool.FinishedAt))
}

// readRepository returns the content of a file in the repository.
func readRepository(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
