package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"
)

// helmsOwn are the labels that only an installation by Helm has.
var helmsOwn = []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}

// plainly brings an object into the one form that both ways can agree on:
// less Helm's labels and the namespace, with variables in the order of names.
func plainly(t *testing.T, object runtime.Object) map[string]any {
	t.Helper()
	text, err := sigsyaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := sigsyaml.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	delete(plain["metadata"].(map[string]any), "namespace")
	normalise(plain)
	return plain
}

func normalise(value any) {
	switch v := value.(type) {
	case map[string]any:
		for _, label := range helmsOwn {
			delete(v, label)
		}
		for _, inner := range v {
			normalise(inner)
		}
	case []any:
		for _, inner := range v {
			normalise(inner)
		}
		byName := func(a, b any) int { return strings.Compare(nameOf(a), nameOf(b)) }
		slices.SortStableFunc(v, byName)
	}
}

func nameOf(value any) string {
	m, _ := value.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// byKind are the objects of a rendering, less the namespace, which Helm leaves
// to whoever installs.
func byKind(t *testing.T, text []byte) map[string]any {
	t.Helper()
	found := map[string]any{}
	for _, object := range decode(t, text) {
		if kind := object.GetObjectKind().GroupVersionKind().Kind; kind != "Namespace" {
			if found[kind] != nil {
				t.Fatalf("two of kind %s", kind)
			}
			found[kind] = plainly(t, object)
		}
	}
	return found
}

func TestKustomizeAndHelmAgree(t *testing.T) {
	all := everything(t)
	for _, shape := range []string{"gateway", "deployment", "job", "cronjob"} {
		if diff := cmp.Diff(byKind(t, all["kustomize examples/"+shape]), byKind(t, all["helm "+shape])); diff != "" {
			t.Errorf("%s: kustomize (-) and Helm (+) differ:\n%s", shape, diff)
		}
	}
}

// overlay renders a kustomization of workloads with the sidecar component.
func overlay(t *testing.T, workloads string) []byte {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	component, err := filepath.Abs(filepath.Join(manifests, "components", "sidecar"))
	if err != nil {
		t.Fatal(err)
	}
	if component, err = filepath.Rel(dir, component); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"workloads.yaml": workloads, "kustomization.yaml": "resources: [workloads.yaml]\ncomponents: [" + component + "]\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return kustomize(t, dir)
}

const workload = `
apiVersion: apps/v1
kind: KIND
metadata: {name: KIND, labels: {mimecast-proxy: LABEL}}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      initContainers: [{name: migrate, image: x}]
      containers: [{name: tool, image: x}]
      volumes: [{name: own, emptyDir: {}}]
---
`

func TestSidecarIsTheSameInEveryKindAndComesFirst(t *testing.T) {
	var text string
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		text += strings.NewReplacer("KIND", kind, "LABEL", "any").Replace(workload)
	}
	all := everything(t)
	pods := decode(t, overlay(t, strings.NewReplacer("name: D", "name: d", "name: S", "name: s").Replace(text)))
	for _, example := range []string{"deployment", "job", "cronjob"} {
		pods = append(pods, decode(t, all["kustomize examples/"+example])...)
	}
	var first *corev1.Container
	seen := 0
	for _, object := range pods {
		template := pod(object)
		if template == nil {
			continue
		}
		seen++
		sidecar := &template.Spec.InitContainers[0]
		if first == nil {
			first = sidecar
		}
		if diff := cmp.Diff(first, sidecar); diff != "" {
			t.Errorf("%T: %s", object, diff)
		}
		if template.Spec.Volumes[0].Name != "mimecast" || template.Labels["mimecast-proxy"] != "sidecar" {
			t.Errorf("%T: %v %v", object, template.Spec.Volumes, template.Labels)
		}
	}
	if seen != 6 {
		t.Errorf("%d pods", seen)
	}
}

func TestWorkloadCanBeLeftOut(t *testing.T) {
	text := overlay(t, strings.NewReplacer("KIND", "Deployment", "LABEL", "none", "name: KIND", "name: left-out").Replace(workload))
	for _, object := range decode(t, text) {
		if n := len(pod(object).Spec.InitContainers); n != 1 {
			t.Errorf("%d init containers:\n%s", n, text)
		}
	}
}

// The container's variables as a map, with what refers to elsewhere left out.
func variables(c corev1.Container) map[string]string {
	found := map[string]string{}
	for _, v := range c.Env {
		found[v.Name] = v.Value
	}
	return found
}

func TestSidecarIsANativeOneOnLoopback(t *testing.T) {
	c := pod(decode(t, kustomize(t, filepath.Join(manifests, "examples", "job")))[0]).Spec.InitContainers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil || c.StartupProbe.HTTPGet.Path != "/startupz" {
		t.Errorf("not a native sidecar that the tool waits for: %v %v", c.RestartPolicy, c.StartupProbe)
	}
	if c.ReadinessProbe != nil || c.Lifecycle != nil {
		t.Error("it has a readiness probe or a hook")
	}
	if got := variables(c)["PROXY_LISTEN"]; !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("it listens at %s", got)
	}
	for _, v := range c.Env {
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			t.Errorf("%s comes from a secret, and would not be rotated", v.Name)
		}
	}
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s is mounted by a subPath, and would not be rotated", m.Name)
		}
	}
}

func TestChartRefusesWhatCannotWork(t *testing.T) {
	for name, v := range map[string]values{
		"shape":         {"shape": "both"},
		"typo":          {"gatway": values{}},
		"secret":        {"settings": values{"MIMECAST_CLIENT_SECRET": "x"}},
		"trust":         {"settings": values{"PROXY_TRUST_NETWORK": "true"}},
		"not a string":  {"settings": values{"PROXY_MAX_REQUESTS": 10}},
		"not ours":      {"settings": values{"LD_PRELOAD": "x"}},
		"no workloads":  {"shape": "sidecar"},
		"bare pod":      {"shape": "sidecar", "sidecar": values{"workloads": []any{values{"apiVersion": "v1", "kind": "Pod", "metadata": values{}, "spec": values{}}}}},
		"short delay":   {"gateway": values{"shutdownDelaySeconds": 1}},
		"no memory":     {"gateway": values{"resources": values{"requests": values{"memory": nil}}}},
		"host with URL": {"gateway": values{"allowedHosts": []any{"https://x"}}},
	} {
		if text, err := helm(v); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

func TestChartTakesSettingsAndNames(t *testing.T) {
	text := mustHelm(t, values{
		"settings": values{"PROXY_ALLOW": "@read, GET /x"},
		"image":    values{"repository": "registry.example/proxy", "tag": "9"},
		"gateway":  values{"allowedHosts": []any{"mimecast.example"}, "apiKeySecret": "own-key"},
	})
	for _, object := range decode(t, text) {
		template := pod(object)
		if template == nil {
			continue
		}
		c := template.Spec.Containers[0]
		env := variables(c)
		if env["PROXY_ALLOW"] != "@read, GET /x" || !strings.HasPrefix(env["PROXY_ALLOWED_HOSTS"], "mimecast.example,mimecast-proxy,") || c.Image != "registry.example/proxy:9" || template.Spec.Volumes[1].Secret.SecretName != "own-key" {
			t.Errorf("%v %s %v", env, c.Image, template.Spec.Volumes)
		}
	}
}
