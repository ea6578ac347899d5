package deploy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestRealAPIServer checks documented and rendered manifests on a real API server. Building
// it with deploy/cluster/build takes minutes, so only the daily workflow does.
func TestRealAPIServer(t *testing.T) {
	a := startAPIServer(t)
	t.Run("accepts what is rendered", a.acceptsWhatIsRendered)
	t.Run("accepts what the documents apply", a.acceptsWhatDocumentsApply)
	t.Run("injects by label", a.injectsByLabel)
}

// resourceDefinition defines one of the Prometheus operator's kinds, with any fields.
const resourceDefinition = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: PLURAL.monitoring.coreos.com},
spec: {group: monitoring.coreos.com, scope: Namespaced, names: {kind: KIND, plural: PLURAL},
versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

// operatorsKinds is the API group that a plain cluster does not know.
const operatorsKinds = "apiVersion: monitoring.coreos.com/"

// acceptsWhatIsRendered applies everything to a plain cluster first. Manifests with the
// Prometheus operator's objects follow, once the cluster knows their kinds.
func (a *apiServer) acceptsWhatIsRendered(t *testing.T) {
	all := everything(t)
	var later []string
	accept := func(name string) {
		namespace := regexp.MustCompile(`[^a-z]+`).ReplaceAllString(name, "-")
		a.namespace(t, namespace, "restricted")
		if strings.Contains(string(all[name]), "\n  namespace: ") {
			namespace = "" // the rendering sets its namespace
		}
		args := []string{"apply", "--server-side", "--force-conflicts", "-f", "-"}
		if namespace != "" {
			args = append(args, "-n", namespace)
		}
		if _, err := a.run(all[name], args...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range names(all) {
		// Another test validates add-ons' kinds against their definitions.
		all[name] = bytes.Join(slices.DeleteFunc(documents(t, all[name]), func(d []byte) bool { return isAddOns(t, d) }), []byte("\n---\n"))
		if len(all[name]) == 0 {
			continue
		}
		if strings.Contains(string(all[name]), operatorsKinds) {
			later = append(later, name)
			continue
		}
		accept(name)
	}
	a.knowOperatorsKinds(t)
	for _, name := range later {
		accept(name)
	}
	if len(later) == len(all) {
		t.Error("nothing was accepted by a plain cluster")
	}
}

func (a *apiServer) knowOperatorsKinds(t *testing.T) {
	t.Helper()
	for _, kind := range []string{"PodMonitor", "ServiceMonitor", "PrometheusRule"} {
		text := strings.NewReplacer("KIND", kind, "PLURAL", strings.ToLower(kind)+"s").Replace(resourceDefinition)
		a.must(t, []byte(text), "apply", "-f", "-")
		a.must(t, nil, "wait", "--for", "condition=Established", "--timeout", patience.String(), "crd", strings.ToLower(kind)+"s.monitoring.coreos.com")
	}
}

// acceptsWhatDocumentsApply runs the documented commands unchanged.
func (a *apiServer) acceptsWhatDocumentsApply(t *testing.T) {
	a.knowOperatorsKinds(t)
	a.namespace(t, "monitoring", "restricted")
	applied := regexp.MustCompile(`(?m)^kubectl (apply -[kf] [a-z]\S*(?: -n \S+)?)`)
	seen := 0
	for _, doc := range []string{"docs/kubernetes.md", "docs/teams.md", "docs/operations.md"} {
		for _, block := range shellBlock.FindAllStringSubmatch(readDoc(t, doc), -1) {
			for _, m := range applied.FindAllStringSubmatch(block[1], -1) {
				seen++
				if _, err := a.run(nil, strings.Fields(m[1])...); err != nil {
					t.Errorf("%s: %v", doc, err)
				}
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d commands apply something", seen)
	}
}

// documentedInjection renders the kustomization in docs/kubernetes.md, with the path of
// this checkout.
func documentedInjection(t *testing.T) (rendered []byte, image string) {
	t.Helper()
	found := regexp.MustCompile("(?s)## A sidecar by a label\n.*?```yaml\n(.*?)```").FindStringSubmatch(readDoc(t, "docs/kubernetes.md"))
	if found == nil {
		t.Fatal("docs/kubernetes.md has no kustomization for the policy")
	}
	policy, err := os.ReadFile(filepath.Join(injection, "mutatingadmissionpolicy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile(`- (\S+/mutatingadmissionpolicy\.yaml)`).FindStringSubmatch(found[1])
	image = strings.Trim(regexp.MustCompile(`'"(\S+)"'`).FindString(found[1]), `'"`)
	if path == nil || image == "" {
		t.Fatalf("no path or image: %s", found[1])
	}
	for name, text := range map[string]string{"policy.yaml": string(policy), "kustomization.yaml": strings.Replace(found[1], path[1], "policy.yaml", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return kustomize(t, dir), image
}

func TestDocumentedPatchNamesTheImage(t *testing.T) {
	rendered, image := documentedInjection(t)
	if !strings.Contains(string(rendered), `expression: '"`+image+`"'`) || strings.Contains(string(rendered), `"mimecast-proxy:0.1.0"`) {
		t.Errorf("the image is not %s:\n%s", image, rendered)
	}
}

// injectsByLabel compares each pod that the server creates with the policy and without.
func (a *apiServer) injectsByLabel(t *testing.T) {
	a.namespace(t, "tools", "privileged")
	a.namespace(t, "restricted", "restricted")
	a.must(t, []byte(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: kube-system}}`), "apply", "-f", "-")
	type observed struct {
		pod               *corev1.Pod
		namespace         string
		plain, labeledToo string
	}
	var all []observed
	for _, p := range toolPods(t) {
		namespace := "tools"
		if p.Name == "restricted" {
			namespace = "restricted"
		}
		all = append(all, observed{pod: p, namespace: namespace, plain: a.create(t, namespace, p), labeledToo: a.create(t, namespace, labeled(p, inject, interceptToo))})
	}
	rendered, image := documentedInjection(t)
	a.must(t, rendered, "apply", "-f", "-")
	a.awaitPolicy(t, labeled(all[0].pod, inject))
	for _, o := range all {
		for name, other := range map[string]*corev1.Pod{"no label": o.pod, "none": labeled(o.pod, "mimecast-proxy=none")} {
			if got := a.create(t, o.namespace, other); name == "no label" && got != o.plain {
				t.Errorf("%s: %s: not byte-identical:\n%s\n%s", o.pod.Name, name, o.plain, got)
			} else if strings.Contains(got, `"name":"`+sidecarName+`"`) {
				t.Errorf("%s: %s: changed: %s", o.pod.Name, name, got)
			}
		}
		if got := a.create(t, "kube-system", labeled(o.pod, inject)); strings.Contains(got, `"name":"mimecast-proxy"`) {
			t.Errorf("%s: changed in kube-system: %s", o.pod.Name, got)
		}
		text := a.create(t, o.namespace, labeled(o.pod, inject, interceptToo))
		original, injected := parsePod(t, o.labeledToo), parsePod(t, text)
		original.Status.QOSClass = injected.Status.QOSClass // depends on the sidecar's requests
		checkInjected(t, injected, original)
		if injected.Spec.InitContainers[0].Image != image {
			t.Errorf("the image is %s", injected.Spec.InitContainers[0].Image)
		}
		if again := a.create(t, o.namespace, injected); again != text {
			t.Errorf("%s: a second time:\n%s", o.pod.Name, cmp.Diff(text, again))
		}
	}
}

// awaitPolicy waits until the server applies a policy, soon after its creation.
func (a *apiServer) awaitPolicy(t *testing.T, p *corev1.Pod) {
	t.Helper()
	for range 300 {
		if strings.Contains(a.create(t, "tools", p), `"initContainers":[{`) {
			return
		}
	}
	t.Fatal("the policy is not in use")
}

// create returns the pod that the server would store, without fields that differ each time.
func (a *apiServer) create(t *testing.T, namespace string, p *corev1.Pod) string {
	t.Helper()
	p = p.DeepCopy()
	p.Namespace = ""
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := json.Unmarshal([]byte(a.must(t, text, "create", "--dry-run=server", "-o", "json", "-n", namespace, "-f", "-")), &plain); err != nil {
		t.Fatal(err)
	}
	metadata := plain["metadata"].(map[string]any)
	delete(metadata, "uid")
	delete(metadata, "creationTimestamp")
	delete(metadata, "managedFields")
	if text, err = json.Marshal(plain); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`).ReplaceAllString(string(text), "kube-api-access-00000")
}

func parsePod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}
