package deploy_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	sigsyaml "sigs.k8s.io/yaml"
)

// file returns a rendered template of the chart.
func file(t *testing.T, name string, v values) string {
	t.Helper()
	files, err := helmFiles("mimecast", v)
	if err != nil {
		t.Fatal(err)
	}
	return files["mimecast-proxy/templates/"+name]
}

// helmTest returns the objects that helm test runs.
func helmTest(t *testing.T, v values) []byte {
	t.Helper()
	return []byte(file(t, "tests/check.yaml", v))
}

// theCA mounts a CA from a ConfigMap.
var theCA = values{
	"settings":          values{"MIMECAST_CA_FILE": "/etc/company-ca/ca.pem"},
	"extraVolumes":      []any{values{"name": "company-ca", "configMap": values{"name": "company-ca"}}},
	"extraVolumeMounts": []any{values{"name": "company-ca", "mountPath": "/etc/company-ca", "readOnly": true}},
}

// theRegistry is a private registry, from which the image is pulled by its digest.
var theRegistry = values{
	"image":            values{"repository": "registry.example/mimecast-proxy", "digest": digest},
	"imagePullSecrets": []any{values{"name": "registry"}},
}

var digest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

// shapes returns the chart's values for each shape.
func shapes(t *testing.T) map[string]values {
	t.Helper()
	return map[string]values{"gateway": {}, "sidecar": {"shape": "sidecar", "sidecar": values{"workloads": []any{tool(t, "job")}}}}
}

// proxyOf returns a pod's proxy container.
func proxyOf(t *testing.T, pod corev1.PodSpec) corev1.Container {
	t.Helper()
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if c.Name == "mimecast-proxy" {
			return c
		}
	}
	t.Fatal("no proxy")
	return corev1.Container{}
}

func TestChartTakesACAFromAConfigMap(t *testing.T) {
	for name, shape := range shapes(t) {
		for _, text := range [][]byte{mustHelm(t, with(shape, theCA)), helmTest(t, with(shape, theCA))} {
			template := gatewayPod(t, text)
			c := proxyOf(t, template.Spec)
			mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.Name == "company-ca" && m.MountPath == "/etc/company-ca"
			})
			volume := slices.ContainsFunc(template.Spec.Volumes, func(v corev1.Volume) bool {
				return v.Name == "company-ca" && v.ConfigMap != nil && v.ConfigMap.Name == "company-ca"
			})
			if variables(c)["MIMECAST_CA_FILE"] != "/etc/company-ca/ca.pem" || !mounted || !volume || len(c.VolumeMounts) < 2 {
				t.Errorf("%s: %v %v %v", name, variables(c), c.VolumeMounts, template.Spec.Volumes)
			}
		}
	}
}

func TestChartPullsFromAPrivateRegistryByDigest(t *testing.T) {
	for name, shape := range shapes(t) {
		for _, text := range [][]byte{mustHelm(t, with(shape, theRegistry)), helmTest(t, with(shape, theRegistry))} {
			template := gatewayPod(t, text)
			if c := proxyOf(t, template.Spec); c.Image != "registry.example/mimecast-proxy@"+digest {
				t.Errorf("%s: %s", name, c.Image)
			}
			if !slices.Equal(template.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "registry"}}) {
				t.Errorf("%s: %v", name, template.Spec.ImagePullSecrets)
			}
		}
	}
}

// By default, kube-prometheus-stack selects objects by the label "release", in all
// namespaces. Its Grafana sidecar selects ConfigMaps by label too.
func TestPrometheusStackSelectsTheMonitors(t *testing.T) {
	byDefault := labels.SelectorFromSet(labels.Set{"release": "kube-prometheus-stack"})
	for name, shape := range shapes(t) {
		monitors, rules, dashboards := monitoringOf(t, mustHelm(t, with(shape, values{"monitoring": values{
			"enabled": true, "labels": values{"release": "kube-prometheus-stack"},
		}})))
		if !byDefault.Matches(labels.Set(monitors[0].Labels)) || !byDefault.Matches(labels.Set(rules[0].Labels)) || dashboards[0].Labels["grafana_dashboard"] != "1" {
			t.Errorf("%s: %v, %v, %v", name, monitors[0].Labels, rules[0].Labels, dashboards[0].Labels)
		}
		template := gatewayPod(t, mustHelm(t, shape))
		if !selects(t, &monitors[0].Spec.Selector, template.Labels) {
			t.Errorf("%s: the monitor does not select %v", name, template.Labels)
		}
	}
}

// scheduling has values that place the gateway's pods.
var scheduling = values{
	"nodeSelector":              values{"pool": "egress"},
	"tolerations":               []any{values{"key": "egress", "operator": "Exists"}},
	"affinity":                  values{"nodeAffinity": values{"requiredDuringSchedulingIgnoredDuringExecution": values{"nodeSelectorTerms": []any{values{"matchExpressions": []any{values{"key": "a", "operator": "Exists"}}}}}}},
	"topologySpreadConstraints": []any{values{"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}},
	"priorityClassName":         "high",
	"podAnnotations":            values{"a": "pod's"},
	"podLabels":                 values{"team": "mail"},
	"serviceAccount":            values{"create": true, "annotations": values{"a": "account's"}},
	"service":                   values{"annotations": values{"a": "service's"}},
	"extraEnv":                  []any{values{"name": "HTTPS_PROXY", "valueFrom": values{"secretKeyRef": values{"name": "corporate-proxy", "key": "url"}}}},
	"settings":                  values{"GODEBUG": "netdns=go"},
	"networkPolicy":             values{"enabled": true, "extraEgress": []any{values{"ports": []any{values{"port": 3128}}}}},
}

func TestChartTakesWhatOtherChartsTake(t *testing.T) {
	text := mustHelm(t, scheduling)
	template := gatewayPod(t, text)
	spec := template.Spec
	c := proxyOf(t, spec)
	constraint := spec.TopologySpreadConstraints[0]
	for what, ok := range map[string]bool{
		"nodeSelector":      spec.NodeSelector["pool"] == "egress",
		"tolerations":       len(spec.Tolerations) == 1,
		"affinity":          spec.Affinity.NodeAffinity != nil,
		"constraints":       len(spec.TopologySpreadConstraints) == 1 && constraint.TopologyKey == "rack" && selects(t, constraint.LabelSelector, template.Labels),
		"priorityClassName": spec.PriorityClassName == "high",
		"annotations":       template.Annotations["a"] == "pod's",
		"labels":            template.Labels["team"] == "mail" && template.Labels["mimecast-proxy"] == "gateway",
		"serviceAccount":    spec.ServiceAccountName == "mimecast-proxy" && !*spec.AutomountServiceAccountToken,
		"GODEBUG":           variables(c)["GODEBUG"] == "netdns=go",
		"extraEnv": slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
			return v.Name == "HTTPS_PROXY" && v.ValueFrom.SecretKeyRef.Name == "corporate-proxy"
		}),
	} {
		if !ok {
			t.Errorf("%s is not as set", what)
		}
	}
	for _, object := range decode(t, text) {
		switch o := object.(type) {
		case *corev1.Service:
			if o.Annotations["a"] != "service's" {
				t.Errorf("%v", o.Annotations)
			}
		case *corev1.ServiceAccount:
			if o.Name != spec.ServiceAccountName || o.Annotations["a"] != "account's" || *o.AutomountServiceAccountToken {
				t.Errorf("%+v", o)
			}
		case *networkingv1.NetworkPolicy:
			if last := o.Spec.Egress[len(o.Spec.Egress)-1]; *last.Ports[0].Port != intstr.FromInt32(3128) {
				t.Errorf("%+v", o.Spec.Egress)
			}
		}
	}
}

// The chart accepts the readme's values, and they have the documented effect.
func TestChartsReadmeHasValuesThatWork(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(readDoc(t, "deploy/helm/mimecast-proxy/README.md"), -1)
	if len(blocks) != 7 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, block := range blocks[:6] { // the last block is a template
		var v values
		if err := sigsyaml.UnmarshalStrict([]byte(block[1]), &v); err != nil {
			t.Fatal(err)
		}
		decode(t, mustHelm(t, v))
	}
}

// The chart does not change the workload's own settings.
func TestSidecarLeavesThePodToItsWorkload(t *testing.T) {
	job := tool(t, "job")
	meta := job["spec"].(map[string]any)["template"].(map[string]any)["metadata"].(map[string]any)
	meta["annotations"] = map[string]any{"a": "tool's"}
	v := with(with(scheduling, theRegistry), values{"shape": "sidecar", "sidecar": values{"workloads": []any{job}}})
	template := gatewayPod(t, mustHelm(t, v))
	want := gatewayPod(t, mustHelm(t, shapes(t)["sidecar"]))
	if template.Annotations["a"] != "tool's" || template.Labels["team"] != "mail" || template.Labels["mimecast-proxy"] != "sidecar" {
		t.Errorf("%v %v", template.Annotations, template.Labels)
	}
	proxy := &template.Spec.InitContainers[0]
	if got := variables(*proxy); got["GODEBUG"] != "netdns=go" || got["PROXY_LISTEN"] != "127.0.0.1:18080" || len(proxy.Env) != len(want.Spec.InitContainers[0].Env)+2 {
		t.Errorf("%v", proxy.Env)
	}
	proxy.Env, proxy.Image = want.Spec.InitContainers[0].Env, want.Spec.InitContainers[0].Image
	want.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	if diff := cmp.Diff(want.Spec, template.Spec); diff != "" {
		t.Error(diff)
	}
}

// fromVolume takes credentials and key from a volume that a driver fills.
var fromVolume = values{
	"credentialsSecret": "",
	"gateway":           values{"apiKeySecret": ""},
	"settings": values{
		"MIMECAST_CLIENT_ID_FILE": "/mnt/secrets/client-id", "MIMECAST_CLIENT_SECRET_FILE": "/mnt/secrets/client-secret", "PROXY_API_KEY_FILE": "/mnt/secrets/api-key",
	},
	"extraVolumes":      []any{values{"name": "secrets", "csi": values{"driver": "secrets-store.csi.k8s.io", "readOnly": true, "volumeAttributes": values{"secretProviderClass": "mimecast"}}}},
	"extraVolumeMounts": []any{values{"name": "secrets", "mountPath": "/mnt/secrets", "readOnly": true}},
}

func TestChartTakesCredentialsFromAVolume(t *testing.T) {
	spec := gatewayPod(t, mustHelm(t, fromVolume)).Spec
	c := proxyOf(t, spec)
	if len(spec.Volumes) != 1 || spec.Volumes[0].CSI == nil || len(c.VolumeMounts) != 1 || variables(c)["MIMECAST_CLIENT_ID_FILE"] != "/mnt/secrets/client-id" {
		t.Errorf("%v %v %v", spec.Volumes, c.VolumeMounts, variables(c))
	}
	if notes := file(t, "NOTES.txt", fromVolume); strings.Contains(notes, "create secret") {
		t.Error(notes)
	}
}

func TestChartRejectsValuesThatContradict(t *testing.T) {
	for name, v := range map[string]values{
		"file twice":        {"settings": values{"MIMECAST_CLIENT_ID_FILE": "/x", "MIMECAST_CLIENT_SECRET_FILE": "/y"}},
		"key twice":         {"settings": values{"PROXY_API_KEY_FILE": "/x"}},
		"half of a pair":    {"credentialsSecret": "", "settings": values{"MIMECAST_CLIENT_ID_FILE": "/x"}},
		"no key":            {"gateway": values{"apiKeySecret": ""}},
		"secret in a value": {"extraEnv": []any{values{"name": "MIMECAST_CLIENT_SECRET", "value": "x"}}},
		"chart's variable":  {"extraEnv": []any{values{"name": "PROXY_LISTEN", "value": "0.0.0.0:1"}}},
		"two sources":       {"extraEnv": []any{values{"name": "A", "value": "x", "valueFrom": values{"fieldRef": values{"fieldPath": "x"}}}}},
		"chart's volume":    {"extraVolumes": []any{values{"name": "mimecast", "emptyDir": values{}}}},
		"no source":         {"extraVolumes": []any{values{"name": "x"}}},
		"relative mount":    {"extraVolumeMounts": []any{values{"name": "x", "mountPath": "x"}}},
		"selector's label":  {"podLabels": values{"mimecast-proxy": "client"}},
		"digest":            {"image": values{"digest": "0123"}},
		"digest in name":    {"image": values{"repository": "x@" + digest}},
		"root":              {"podSecurityContext": values{"runAsUser": 0}},
		"privileges":        {"securityContext": values{"allowPrivilegeEscalation": true}},
		"capability":        {"securityContext": values{"capabilities": values{"add": []any{"NET_ADMIN"}}}},
		"no context":        {"podSecurityContext": nil},
		"any egress":        {"networkPolicy": values{"extraEgress": []any{values{}}}},
		"pull secret":       {"imagePullSecrets": []any{"x"}},
		"label not text":    {"podAnnotations": values{"a": true}},
	} {
		if text, err := helm(v); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if _, err := helm(values{"settings": values{"PROXY_ALLOW": "@read"}, "extraEnv": []any{values{"name": "PROXY_ALLOW", "value": "@siem"}}}); err == nil || !strings.Contains(err.Error(), "PROXY_ALLOW") {
		t.Errorf("a variable in both places: %v", err)
	}
}

func TestNotesNameTheSecretsThatMustExist(t *testing.T) {
	for name, one := range map[string]struct {
		values values
		want   []string
	}{
		"gateway": {nil, []string{"these Secrets exist", "secret generic mimecast --from-file=client-id --from-file=client-secret", "secret generic mimecast-proxy-key --from-file=api-key", "helm test mimecast-proxy -n mimecast"}},
		"clients": {values{"credentialsSecret": "", "clients": values{"existingSecret": "teams"}}, []string{"this Secret exists", "secret generic teams --from-file=FOLDER/", "clients.yaml"}},
		"sidecar": {shapes(t)["sidecar"], []string{"http://127.0.0.1:18080", "this Secret exists", "secret generic mimecast "}},
		"private": {theRegistry, []string{"secret docker-registry registry "}},
	} {
		notes := file(t, "NOTES.txt", one.values)
		for _, want := range one.want {
			if !strings.Contains(notes, want) {
				t.Errorf("%s: no %q in\n%s", name, want, notes)
			}
		}
	}
}

// The pod of helm test is restricted, is not selected by the Service, may connect to
// Mimecast, and checks the proxy's settings.
func TestHelmTestChecksWhatTheProxyUses(t *testing.T) {
	for name, shape := range shapes(t) {
		v := with(shape, values{"networkPolicy": values{"enabled": true}, "podAnnotations": values{"a": "pod's"}, "test": values{"podAnnotations": values{"a": "test's"}}})
		check := gatewayPod(t, helmTest(t, v))
		forbidden(t, "the test of the "+name, check)
		text := mustHelm(t, v)
		proxy := proxyOf(t, gatewayPod(t, text).Spec)
		c := check.Spec.Containers[0]
		if diff := cmp.Diff(proxy.Env, c.Env); diff != "" || c.Image != proxy.Image || !slices.Equal(c.Args, []string{"check"}) || check.Annotations["a"] != "test's" {
			t.Errorf("%s: %s %v %s", name, c.Image, c.Args, diff)
		}
		for _, object := range decode(t, text) {
			switch o := object.(type) {
			case *corev1.Service:
				if labels.SelectorFromSet(o.Spec.Selector).Matches(labels.Set(check.Labels)) {
					t.Errorf("%s: the Service selects the test", name)
				}
			case *networkingv1.NetworkPolicy:
				if !selects(t, &o.Spec.PodSelector, check.Labels) {
					t.Errorf("%s: the network policy does not select the test", name)
				}
			}
		}
	}
	if text := helmTest(t, values{"test": values{"enabled": false}}); strings.TrimSpace(string(text)) != "" {
		t.Errorf("%s", text)
	}
}

// Another chart can make a sidecar from the templates.
func TestAnotherChartUsesTheTemplates(t *testing.T) {
	own, err := loader.Load(chartPath)
	if err != nil {
		t.Fatal(err)
	}
	const template = `
apiVersion: v1
kind: Pod
metadata: {name: tool}
spec:
  initContainers:
    - {{- include "mimecast-proxy.sidecar" (index .Subcharts "mimecast-proxy") | nindent 6 }}
  containers: [{name: tool, image: tool}]
  volumes:
    {{- include "mimecast-proxy.volumes" (index .Subcharts "mimecast-proxy") | nindent 4 }}
`
	parent := &chart.Chart{
		Metadata:  &chart.Metadata{APIVersion: "v2", Name: "tool", Version: "1.0.0"},
		Values:    values{"mimecast-proxy": values{"shape": "none", "credentialsSecret": "theirs"}},
		Templates: []*chart.File{{Name: "templates/pod.yaml", Data: []byte(template)}},
	}
	parent.AddDependency(own)
	rendered, err := chartutil.ToRenderValues(parent, values{}, chartutil.ReleaseOptions{Name: "x"}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Engine{Strict: true}.Render(parent, rendered)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if strings.HasSuffix(name, "NOTES.txt") || strings.TrimSpace(text) == "" {
			continue
		}
		objects := decode(t, []byte(text))
		if len(objects) != 1 || pod(objects[0]) == nil || pod(objects[0]).Spec.Volumes[0].Secret.SecretName != "theirs" {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}

// The autoscaler uses a metric that the proxy exports, and only if the values ask for it.
func TestAutoscalerTakesRequestsInFlight(t *testing.T) {
	chosen := mustHelm(t, values{"gateway": values{"autoscaling": values{"targetRequestsInFlight": 100}}})
	component := overlayOf(t, "gateway", "autoscale-on-requests")
	for name, text := range map[string][]byte{"helm": chosen, "kustomize": component} {
		metrics := autoscaler(t, text).Spec.Metrics
		if len(metrics) != 2 || metrics[1].Pods.Metric.Name != "mimecast_proxy_requests_in_flight" || metrics[1].Pods.Target.AverageValue.Value() != 100 {
			t.Errorf("%s: %+v", name, metrics)
		}
	}
	if n := len(autoscaler(t, mustHelm(t, nil)).Spec.Metrics); n != 1 {
		t.Errorf("%d metrics by default", n)
	}
	if !strings.Contains(readDoc(t, "docs/operations.md"), "| `requests_in_flight` | gauge |") {
		t.Error("the proxy has no such metric")
	}
	diff := cmp.Diff(byKind(t, component)["HorizontalPodAutoscaler"], byKind(t, chosen)["HorizontalPodAutoscaler"])
	if diff != "" {
		t.Errorf("kustomize (-) and Helm (+) differ:\n%s", diff)
	}
}

// autoscaler returns the rendering's autoscaler.
func autoscaler(t *testing.T, text []byte) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	for _, object := range decode(t, text) {
		if o, ok := object.(*autoscalingv2.HorizontalPodAutoscaler); ok {
			return o
		}
	}
	t.Fatal("no autoscaler")
	return nil
}

// The kubelet restarts nothing while Mimecast is down: /startupz succeeds after 60 s, and
// liveness does not depend on a token. One late response does not make a replica unready.
func TestProbesOutlastAnOutage(t *testing.T) {
	all := everything(t)
	for _, name := range names(all) {
		for _, object := range decode(t, all[name]) {
			template := pod(object)
			if template == nil || !slices.Contains([]string{"gateway", "sidecar"}, template.Labels["mimecast-proxy"]) {
				continue
			}
			c := proxyOf(t, template.Spec)
			startup, live, ready := c.StartupProbe, c.LivenessProbe, c.ReadinessProbe
			if seconds := startup.PeriodSeconds * startup.FailureThreshold; seconds < 90 {
				t.Errorf("%s: restarted after %d s", name, seconds)
			}
			if strings.Contains(name, "istio") {
				continue // its probes are commands
			}
			if startup.HTTPGet.Path != "/startupz" || live.HTTPGet.Path != "/livez" || startup.TimeoutSeconds < 3 || live.TimeoutSeconds < 3 {
				t.Errorf("%s: %+v %+v", name, startup, live)
			}
			if ready != nil && (ready.PeriodSeconds != 5 || ready.FailureThreshold != 3 || ready.TimeoutSeconds < 3) {
				t.Errorf("%s: %+v", name, ready)
			}
		}
	}
}

// Every example that is not named after an add-on works on a cluster without add-ons.
func TestBasicExamplesNeedNoAddOn(t *testing.T) {
	for _, example := range []string{"job", "cronjob", "deployment", "gateway", "gateway-clients", "gateway-tool"} {
		for _, object := range decode(t, kustomize(t, filepath.Join(manifests, "examples", example))) {
			if group := object.GetObjectKind().GroupVersionKind().Group; strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") {
				t.Errorf("%s: group %s", example, group)
			}
		}
	}
}
