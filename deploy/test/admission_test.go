package deploy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	sigsyaml "sigs.k8s.io/yaml"
)

// These tests evaluate the policy with the API server's own packages, so that they run
// everywhere. apiserver_test.go repeats them on a real API server, if there is one.

// variable is a policy's variable, for the compiler.
type variable admissionv1.Variable

func (v variable) GetName() string          { return v.Name }
func (v variable) GetExpression() string    { return v.Expression }
func (variable) ReturnTypes() []*celgo.Type { return []*celgo.Type{celgo.AnyType, celgo.DynType} }

// admit returns a new pod as an API server with the policy would change it.
func admit(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	policy := readPolicy(t)
	selector, err := metav1.LabelSelectorAsSelector(policy.Spec.MatchConstraints.ObjectSelector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set(p.Labels)) {
		return p
	}
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	declared := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	var conditions []plugincel.ExpressionAccessor
	for i := range policy.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]))
	}
	var variables []plugincel.NamedExpressionAccessor
	for _, v := range policy.Spec.Variables {
		variables = append(variables, variable(v))
	}
	compiler.CompileAndStoreVariables(variables, declared, environment.StoredExpressions)
	fail := admissionv1.Fail
	matcher := matchconditions.NewMatcher(compiler.CompileCondition(conditions, declared, environment.StoredExpressions), &fail, "policy", "admit", policy.Name)

	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	interfaces := admission.NewObjectInterfacesFromScheme(s)
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	attributes := admission.NewAttributesRecord(p, nil, kind, "default", p.Name, resource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	versioned, err := admission.NewVersionedAttributes(attributes, kind, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	ctx := compiler.CreateContext(t.Context())
	if match := matcher.Match(ctx, versioned, nil, nil); match.Error != nil {
		t.Fatal(match.Error)
	} else if !match.Matches {
		return p
	}
	declared.HasPatchTypes = true
	for _, m := range policy.Spec.Mutations {
		patcher := patch.NewJSONPatcher(compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, declared, environment.StoredExpressions))
		patched, err := patcher.Patch(ctx, patch.Request{MatchedResource: resource, VersionedAttributes: versioned, ObjectInterfaces: interfaces, Namespace: &corev1.Namespace{}}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		versioned.UpdateObject(patched)
	}
	return versioned.VersionedObject.Object().(*corev1.Pod)
}

func readPolicy(t *testing.T) *admissionv1.MutatingAdmissionPolicy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(injection, "mutatingadmissionpolicy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	policy := &admissionv1.MutatingAdmissionPolicy{}
	if err := sigsyaml.UnmarshalStrict(documents(t, text)[0], policy); err != nil {
		t.Fatal(err)
	}
	return policy
}

// toolPods returns the pods of testdata/tools.yaml as their controllers would create them.
func toolPods(t *testing.T) []*corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "tools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var pods []*corev1.Pod
	for _, object := range decode(t, text) {
		template := pod(object)
		p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		p.Name = object.(metav1.Object).GetName()
		pods = append(pods, p)
	}
	if len(pods) < 5 {
		t.Fatalf("%d pods", len(pods))
	}
	return pods
}

// labeled returns a copy of a pod with more labels.
func labeled(p *corev1.Pod, more ...string) *corev1.Pod {
	p = p.DeepCopy()
	for _, label := range more {
		name, value, _ := strings.Cut(label, "=")
		metav1.SetMetaDataLabel(&p.ObjectMeta, name, value)
	}
	return p
}

const (
	inject        = "mimecast-proxy=inject"
	interceptToo  = "mimecast-proxy/intercept=true"
	sidecarName   = "mimecast-proxy"
	caMountFolder = "/var/run/mimecast-ca/"
)

// withoutInjection removes only what the policy may add. It takes the variables that the
// tool sets itself from the original.
func withoutInjection(injected, original *corev1.Pod) *corev1.Pod {
	p := injected.DeepCopy()
	p.Spec.InitContainers = p.Spec.InitContainers[1:]
	if original.Spec.InitContainers == nil {
		p.Spec.InitContainers = nil
	}
	p.Spec.Volumes = less(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "mimecast" || v.Name == "mimecast-ca" })
	strip := func(containers, originals []corev1.Container) {
		for i := range containers {
			c, had := &containers[i], variables(originals[i])
			c.Env = less(c.Env, func(v corev1.EnvVar) bool { _, own := had[v.Name]; return !own })
			c.VolumeMounts = less(c.VolumeMounts, func(m corev1.VolumeMount) bool { return strings.HasPrefix(m.MountPath, caMountFolder) })
		}
	}
	strip(p.Spec.Containers, original.Spec.Containers)
	strip(p.Spec.InitContainers, original.Spec.InitContainers)
	return p
}

// less returns the items that are not dropped, or nil if none are left.
func less[T any](items []T, dropped func(T) bool) (left []T) {
	for _, item := range items {
		if !dropped(item) {
			left = append(left, item)
		}
	}
	return left
}

// checkInjected checks a pod that the policy has changed against the original.
func checkInjected(t *testing.T, injected, original *corev1.Pod) {
	t.Helper()
	if len(injected.Spec.InitContainers) != len(original.Spec.InitContainers)+1 || injected.Spec.InitContainers[0].Name != sidecarName {
		t.Fatalf("%s: the sidecar is not the first init container: %v", original.Name, injected.Spec.InitContainers)
	}
	if diff := cmp.Diff(original, withoutInjection(injected, original)); diff != "" {
		t.Errorf("%s: changed apart from what is added:\n%s", original.Name, diff)
	}
	intercepts := original.Labels["mimecast-proxy/intercept"] == "true"
	tools := append(injected.Spec.InitContainers[1:len(injected.Spec.InitContainers):len(injected.Spec.InitContainers)], injected.Spec.Containers...)
	originals := append(original.Spec.InitContainers[:len(original.Spec.InitContainers):len(original.Spec.InitContainers)], original.Spec.Containers...)
	for i, c := range tools {
		own, has := variables(originals[i]), variables(c)
		want := map[string]string{"MIMECAST_BASE_URL": "http://127.0.0.1:18080"}
		if intercepts {
			want["HTTPS_PROXY"], want["SSL_CERT_FILE"], want["NODE_EXTRA_CA_CERTS"] = "http://127.0.0.1:18081", caMountFolder+"bundle.pem", caMountFolder+"ca.pem"
		}
		for name, value := range want {
			if set, ok := own[name]; ok {
				value = set
			}
			if has[name] != value {
				t.Errorf("%s, %s: %s is %q, not %q", original.Name, c.Name, name, has[name], value)
			}
		}
		if _, proxied := has["HTTPS_PROXY"]; !intercepts && proxied && own["HTTPS_PROXY"] == "" {
			t.Errorf("%s, %s: interception without the label", original.Name, c.Name)
		}
		names := map[string]bool{}
		for _, v := range c.Env {
			if names[v.Name] {
				t.Errorf("%s, %s: %s is set twice", original.Name, c.Name, v.Name)
			}
			names[v.Name] = true
		}
	}
}

func TestLabeledPodsGetTheSidecarFirstAndNothingElseChanges(t *testing.T) {
	for _, p := range toolPods(t) {
		for _, more := range [][]string{{inject}, {inject, interceptToo}, {inject, "mimecast-proxy/intercept=false"}} {
			original := labeled(p, more...)
			checkInjected(t, admit(t, original.DeepCopy()), original)
		}
	}
}

// The injected sidecar equals the component's, except what only the policies have.
func TestInjectedSidecarIsTheComponents(t *testing.T) {
	want := pod(decode(t, kustomize(t, filepath.Join(manifests, "examples", "deployment")))[0]).Spec
	for _, p := range toolPods(t) {
		spec := admit(t, labeled(p, inject)).Spec
		got := spec.InitContainers[0]
		if len(got.EnvFrom) != 1 || got.EnvFrom[0].ConfigMapRef.Optional == nil || !*got.EnvFrom[0].ConfigMapRef.Optional {
			t.Errorf("%s: %v", p.Name, got.EnvFrom)
		}
		got.EnvFrom = nil
		if diff := cmp.Diff(want.InitContainers[0], got); diff != "" {
			t.Errorf("%s:\n%s", p.Name, diff)
		}
		if diff := cmp.Diff(want.Volumes[0], spec.Volumes[len(spec.Volumes)-1]); diff != "" {
			t.Errorf("%s:\n%s", p.Name, diff)
		}
	}
}

func TestPolicyLeavesOtherPodsAlone(t *testing.T) {
	for _, p := range toolPods(t) {
		withSidecar := admit(t, labeled(p, inject, interceptToo))
		old := labeled(p, inject) // as before Kubernetes 1.29
		old.Spec.Containers = append(old.Spec.Containers, corev1.Container{Name: sidecarName, Image: "x"})
		onNode := labeled(p, inject)
		onNode.Spec.HostNetwork = true
		for name, left := range map[string]*corev1.Pod{
			"no label": p, "none": labeled(p, "mimecast-proxy=none"), "component": labeled(p, "mimecast-proxy=sidecar"), "interception alone": labeled(p, interceptToo),
			"a second time": withSidecar, "a container": old, "node's network": onNode,
		} {
			before, err := json.Marshal(left)
			if err != nil {
				t.Fatal(err)
			}
			after, err := json.Marshal(admit(t, left))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("%s: %s: %v\n%s\n%s", p.Name, name, err, before, after)
			}
		}
	}
}

func TestInjectionKeepsARestrictedPodRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	p := admit(t, labeled(toolPods(t)[4], inject, interceptToo))
	if verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &p.ObjectMeta, &p.Spec)); !verdict.Allowed {
		t.Error(verdict.ForbiddenDetail())
	}
}

func TestPolicyUsesThePodsVolumeInsteadOfTheSecret(t *testing.T) {
	p := labeled(toolPods(t)[4], inject)
	p.Spec.Volumes = []corev1.Volume{{Name: "mimecast", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "secrets-store.csi.k8s.io"}}}}
	if volumes := admit(t, p.DeepCopy()).Spec.Volumes; len(volumes) != 1 || volumes[0].CSI == nil {
		t.Errorf("%v", volumes)
	}
}
