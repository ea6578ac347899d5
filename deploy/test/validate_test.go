package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	admission "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// types returns the types that manifests may use.
func types() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	return s
}

// decode decodes every document into its type, except add-ons' kinds. It rejects unknown
// and duplicate fields.
func decode(t *testing.T, text []byte) []runtime.Object {
	t.Helper()
	s := types()
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: true, Strict: true})
	var objects []runtime.Object
	for _, document := range documents(t, text) {
		if isAddOns(t, document) {
			continue
		}
		object, _, err := strict.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		objects = append(objects, object)
	}
	return objects
}

// pod returns the pod template of a workload or a pod, or nil for other objects.
func pod(object runtime.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	case *corev1.Pod:
		return &corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
	}
	return nil
}

func TestEverythingDecodesStrictly(t *testing.T) {
	all := everything(t)
	for _, name := range names(all) {
		if n := len(decode(t, all[name])); n < 2 && !strings.HasSuffix(name, "/argo-cd") {
			t.Errorf("%s: %d objects", name, n)
		}
	}
}

// forbidden reports violations of Pod Security's level restricted, and more privileges that
// no pod here needs.
func forbidden(t *testing.T, name string, template *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := admission.LevelVersion{Level: admission.LevelRestricted, Version: admission.LatestVersion()}
	if verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec)); !verdict.Allowed {
		t.Errorf("%s: %s", name, verdict.ForbiddenDetail())
	}
	if mounts := template.Spec.AutomountServiceAccountToken; mounts == nil || *mounts {
		t.Errorf("%s: a service account's token is mounted", name)
	}
	if links := template.Spec.EnableServiceLinks; links == nil || *links {
		t.Errorf("%s: variables of services are set", name)
	}
}

func TestPodsAreRestrictedAsPodSecurityAdmissionJudges(t *testing.T) {
	all := everything(t)
	for _, name := range names(all) {
		pods := 0
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil {
				continue
			}
			pods++
			forbidden(t, name, template)
		}
		if pods != 1 && !strings.HasSuffix(name, "/argo-cd") {
			t.Errorf("%s: %d pods", name, pods)
		}
	}
}

func TestKubeScoreFindsNothing(t *testing.T) {
	// Each exclusion has a reason that applies to every manifest here.
	args := []string{
		"tool", "-modfile=policy.mod", "kube-score", "score", "--output-format", "ci", "--kubernetes-version", "v1.29", "--exit-one-on-warning",
		// A CPU limit throttles TLS and protects no other pod: requests share the CPU.
		"--ignore-container-cpu-limit",
		// Users choose the pull policy, as they choose the image.
		"--ignore-test", "container-image-pull-policy",
		// Topology spread constraints have the same purpose, and leave room to schedule.
		"--ignore-test", "deployment-has-host-podantiaffinity",
		// 65532 and 65534 are common IDs for images without their own user.
		"--ignore-test", "container-security-context-user-group-id",
		"-",
	}
	all := everything(t)
	for _, name := range names(all) {
		if name == "kustomize base" || name == "kustomize gateway" || strings.HasSuffix(name, "/argo-cd") {
			continue // parts that the examples contain, and objects without pods
		}
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Stdin = bytes.NewReader(all[name])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestOperatorsRulesAreThoseOfTheFile compares the copy with the original line by line,
// since kustomize cannot include a file in a resource.
func TestOperatorsRulesAreThoseOfTheFile(t *testing.T) {
	const dir, began = "../monitoring/", "groups:\n"
	rules, err := os.ReadFile(dir + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	resource, err := os.ReadFile(dir + "prometheusrule.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, groups, _ := strings.Cut(string(rules), "\n"+began)
	head, _, _ := strings.Cut(string(resource), "  "+began)
	want := head + "  " + began
	for line := range strings.Lines(groups) {
		if strings.TrimSpace(line) != "" {
			line = "  " + line
		}
		want += line
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(dir+"prometheusrule.yaml", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(resource) != want {
		t.Error("prometheusrule.yaml is not what alerts.yaml says: run this test with UPDATE=1")
	}
}
