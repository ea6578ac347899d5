package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"
)

// helmsOwn are the labels that only Helm sets.
var helmsOwn = []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}

// plainly returns an object in a form that makes kustomize and Helm comparable. It drops
// Helm's labels and the namespace, and sorts variables by name.
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

// byKind returns a rendering's objects by kind. It skips the namespace, which Helm's
// command creates.
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
	for _, shape := range []string{"gateway", "gateway-clients", "deployment", "job", "cronjob"} {
		if diff := cmp.Diff(byKind(t, all["kustomize examples/"+shape]), byKind(t, all["helm "+shape])); diff != "" {
			t.Errorf("%s: kustomize (-) and Helm (+) differ:\n%s", shape, diff)
		}
	}
}

// Both enable monitoring with one line.
func TestKustomizeAndHelmAgreeOnMonitoring(t *testing.T) {
	monitoring := values{"networkPolicy": values{"enabled": true}, "monitoring": values{"enabled": true, "rules": false, "dashboard": false}}
	for example, shape := range map[string]values{"gateway": {}, "job": shapes(t)["sidecar"]} {
		want := byKind(t, overlayOf(t, "examples/"+example, "monitoring"))
		if diff := cmp.Diff(want, byKind(t, mustHelm(t, with(shape, monitoring)))); diff != "" || want["PodMonitor"] == nil {
			t.Errorf("%s: kustomize (-) and Helm (+) differ:\n%s", example, diff)
		}
	}
}

func TestKustomizeAndHelmAgreeOnOpenShift(t *testing.T) {
	policy := values{"networkPolicy": values{"enabled": true}}
	job := with(shapes(t)["sidecar"], values{"sidecar": values{"workloads": []any{theirTool(t)}}})
	for example, v := range map[string]values{"openshift": policy, "openshift-job": with(job, policy)} {
		if diff := cmp.Diff(byKind(t, kustomize(t, filepath.Join(manifests, "examples", example))), byKind(t, mustHelm(t, with(v, noIDs)))); diff != "" {
			t.Errorf("%s: kustomize (-) and Helm (+) differ:\n%s", example, diff)
		}
	}
}

const clientPolicy = "mimecast-proxy-client"

// networkPolicies returns the rendering's network policies with a name.
func networkPolicies(t *testing.T, text []byte, name string) (found []*networkingv1.NetworkPolicy) {
	t.Helper()
	for _, object := range decode(t, text) {
		if p, ok := object.(*networkingv1.NetworkPolicy); ok && p.Name == name {
			found = append(found, p)
		}
	}
	return found
}

func TestKustomizeAndHelmAgreeOnWhatClientsReach(t *testing.T) {
	want := networkPolicies(t, everything(t)["kustomize examples/gateway-tool"], clientPolicy)
	got := networkPolicies(t, mustHelm(t, values{"networkPolicy": values{"clientNamespaces": []any{"team-a", "team-b"}}}), clientPolicy)
	if len(want) != 1 || len(got) != 2 || got[0].Namespace != "team-a" || got[1].Namespace != "team-b" {
		t.Fatalf("%v, %v", want, got)
	}
	for _, policy := range got {
		if diff := cmp.Diff(plainly(t, want[0]), plainly(t, policy)); diff != "" {
			t.Errorf("%s: kustomize (-) and Helm (+) differ:\n%s", policy.Namespace, diff)
		}
	}
}

// selects reports whether a selector matches the labels.
func selects(t *testing.T, s *metav1.LabelSelector, has map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(has))
}

// The policies of both ends must allow a client's connection to the gateway, and no other
// connection to where Mimecast could be.
func TestClientReachesTheGatewayAlone(t *testing.T) {
	all := everything(t)
	var gateway *corev1.PodTemplateSpec
	for _, object := range decode(t, all["kustomize examples/gateway-clients"]) {
		if template := pod(object); template != nil {
			gateway = template
		}
	}
	client := pod(decode(t, all["kustomize examples/gateway-tool"])[0])
	policy := networkPolicies(t, all["kustomize examples/gateway-tool"], clientPolicy)[0]
	if !selects(t, &policy.Spec.PodSelector, client.Labels) || !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}) {
		t.Errorf("the policy is not for the client's egress: %+v", policy.Spec)
	}
	reached := false
	for _, rule := range policy.Spec.Egress {
		for _, port := range rule.Ports {
			switch port.Port.IntValue() {
			case 53, 5353:
				continue
			case 18080:
			default:
				t.Errorf("port %v is open", port.Port)
			}
			for _, to := range rule.To {
				if to.IPBlock != nil || to.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "mimecast" || !selects(t, to.PodSelector, gateway.Labels) {
					t.Errorf("it leads elsewhere than to the gateway: %+v", to)
				}
				reached = true
			}
		}
		if len(rule.To) == 0 || len(rule.Ports) == 0 {
			t.Errorf("a rule is open: %+v", rule)
		}
	}
	ingress := networkPolicies(t, all["kustomize examples/gateway-clients"], "mimecast-proxy")[0].Spec.Ingress[0]
	if !reached || !selects(t, ingress.From[0].PodSelector, client.Labels) || ingress.Ports[0].Port.IntValue() != 18080 {
		t.Errorf("the gateway does not let the client in: %+v", ingress)
	}
}

// overlay renders a kustomization of workloads with the sidecar component.
func overlay(t *testing.T, workloads string) []byte {
	t.Helper()
	dir := resolvedTempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "workloads.yaml"), []byte(workloads), 0o600); err != nil {
		t.Fatal(err)
	}
	return renderOverlay(t, dir, "workloads.yaml", "sidecar")
}

// overlayOf renders a folder of the manifests with components.
func overlayOf(t *testing.T, resource string, components ...string) []byte {
	t.Helper()
	dir := resolvedTempDir(t)
	return renderOverlay(t, dir, relative(t, dir, resource), components...)
}

func renderOverlay(t *testing.T, dir, resource string, components ...string) []byte {
	t.Helper()
	text := "resources: [" + resource + "]\ncomponents:\n"
	for _, c := range components {
		text += "  - " + relative(t, dir, "components/"+c) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kustomize(t, dir)
}

// resolvedTempDir returns a temporary directory without symbolic links, which kustomize
// would follow.
func resolvedTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// relative returns the path from a folder to a part of the manifests.
func relative(t *testing.T, dir, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(manifests, name))
	if err == nil {
		path, err = filepath.Rel(dir, path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
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

// variables returns the container's variables as a map, except those that refer to other
// objects.
func variables(c corev1.Container) map[string]string {
	found := map[string]string{}
	for _, v := range c.Env {
		found[v.Name] = v.Value
	}
	return found
}

func TestFilesOfSecretsAreReplacedTogether(t *testing.T) {
	all := everything(t)
	for _, name := range []string{"kustomize examples/gateway", "helm gateway", "kustomize examples/gateway-clients", "helm gateway-clients"} {
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil {
				continue
			}
			for _, m := range template.Spec.Containers[0].VolumeMounts {
				if m.SubPath != "" || !m.ReadOnly {
					t.Errorf("%s: %s is mounted by a subPath, or can be written", name, m.Name)
				}
			}
			for _, v := range template.Spec.Volumes {
				if v.Secret == nil || len(v.Secret.Items) > 0 {
					t.Errorf("%s: %s is not the whole of a Secret", name, v.Name)
				}
			}
		}
	}
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
	sidecar := values{"shape": "sidecar", "sidecar": values{"workloads": []any{tool(t, "job")}}}
	mustHelm(t, sidecar)
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
		"no account":    {"credentialsSecret": ""},
		"clients file":  {"settings": values{"PROXY_CLIENTS_FILE": "/x"}},
		"file's path":   {"clients": values{"existingSecret": "x", "file": "a/clients.yaml"}},
		"file outside":  {"clients": values{"existingSecret": "x", "file": "..data"}},
		"clients' typo": {"clients": values{"secret": "x"}},
		"own clients":   with(sidecar, values{"clients": values{"existingSecret": "x"}}),
		"own policy":    with(sidecar, values{"networkPolicy": values{"clientNamespaces": []any{"x"}}}),
		"own account":   with(sidecar, values{"credentialsSecret": ""}),
		"namespaces":    {"networkPolicy": values{"clientNamespaces": []any{"a", "a"}}},
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

func TestChartTakesAClientsFileBesideTheVariablesAccount(t *testing.T) {
	for _, object := range decode(t, mustHelm(t, values{"clients": values{"existingSecret": "teams", "file": "teams.yaml"}})) {
		template := pod(object)
		if template == nil {
			continue
		}
		env := variables(template.Spec.Containers[0])
		if _, key := env["PROXY_API_KEY_FILE"]; key || env["PROXY_CLIENTS_FILE"] != "/var/run/mimecast-clients/teams.yaml" || env["MIMECAST_CLIENT_ID_FILE"] == "" {
			t.Errorf("%v", env)
		}
		var from []string
		for _, v := range template.Spec.Volumes {
			from = append(from, v.Secret.SecretName)
		}
		if !slices.Equal(from, []string{"mimecast", "teams"}) {
			t.Errorf("%v", from)
		}
	}
}
