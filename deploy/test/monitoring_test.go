package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	monitoringPath = "../monitoring"
	runbooks       = "https://wiki.example/mimecast/oncall"
)

// monitoringOf returns a rendering's monitoring objects.
func monitoringOf(t *testing.T, text []byte) (monitors []*monitoringv1.PodMonitor, rules []*monitoringv1.PrometheusRule, dashboards []*corev1.ConfigMap) {
	t.Helper()
	for _, object := range decode(t, text) {
		switch o := object.(type) {
		case *monitoringv1.PodMonitor:
			monitors = append(monitors, o)
		case *monitoringv1.PrometheusRule:
			rules = append(rules, o)
		case *corev1.ConfigMap:
			dashboards = append(dashboards, o)
		}
	}
	return monitors, rules, dashboards
}

// The component goes into each namespace, so it contains nothing that works for all
// namespaces.
func TestComponentBringsAMonitorAlone(t *testing.T) {
	for _, example := range []string{"gateway", "job", "cronjob", "deployment"} {
		monitors, rules, dashboards := monitoringOf(t, overlayOf(t, "examples/"+example, "monitoring"))
		if len(monitors) != 1 || len(rules) != 0 || len(dashboards) != 0 {
			t.Errorf("%s: %d monitors, %d rules, %d dashboards", example, len(monitors), len(rules), len(dashboards))
		}
		for _, m := range monitors {
			if !slices.Equal(m.Spec.PodTargetLabels, []string{"mimecast-proxy"}) {
				t.Errorf("%s: the rules cannot tell a gateway from a sidecar: %v", example, m.Spec.PodTargetLabels)
			}
		}
	}
	_, rules, dashboards := monitoringOf(t, kustomize(t, monitoringPath))
	if len(rules) != 1 || len(dashboards) != 1 {
		t.Errorf("deploy/monitoring: %d rules, %d dashboards", len(rules), len(dashboards))
	}
}

// runbookURLs returns each alert's link to a runbook.
func runbookURLs(rule *monitoringv1.PrometheusRule) map[string]string {
	found := map[string]string{}
	for _, group := range rule.Spec.Groups {
		for _, r := range group.Rules {
			found[r.Alert] = r.Annotations["runbook_url"]
		}
	}
	return found
}

// leadTo reports alerts that do not link to a section of a page.
func leadTo(t *testing.T, rule *monitoringv1.PrometheusRule, page string) {
	t.Helper()
	found := runbookURLs(rule)
	if len(found) < 10 {
		t.Errorf("%d alerts", len(found))
	}
	for alert, url := range found {
		if url != page+"#"+strings.ToLower(alert) {
			t.Errorf("%s leads to %s", alert, url)
		}
	}
}

// The overlay is the one in docs/operations.md.
func TestOverlayLinksTheAlertsToARunbook(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(doc), "<!-- overlay: run by a test -->\n\n```yaml\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("docs/operations.md has no overlay")
	}
	dir := t.TempDir()
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(monitoringPath)
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.Rel(dir, path); err != nil {
		t.Fatal(err)
	}
	example = strings.ReplaceAll(example, "../mimecast-proxy/deploy/monitoring", path)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	_, rules, _ := monitoringOf(t, kustomize(t, dir))
	leadTo(t, rules[0], runbooks)
	if rules[0].Labels["release"] != "kube-prometheus-stack" || rules[0].Namespace != "monitoring" {
		t.Errorf("%v in %s", rules[0].Labels, rules[0].Namespace)
	}
}

func TestChartTakesLabelsAndARunbook(t *testing.T) {
	monitors, rules, dashboards := monitoringOf(t, mustHelm(t, values{"monitoring": values{
		"enabled": true, "labels": values{"release": "kube-prometheus-stack"}, "runbookBaseURL": runbooks,
	}}))
	for _, labels := range []map[string]string{monitors[0].Labels, rules[0].Labels, dashboards[0].Labels} {
		if labels["release"] != "kube-prometheus-stack" || labels["app.kubernetes.io/name"] != "mimecast-proxy" {
			t.Errorf("%v", labels)
		}
	}
	leadTo(t, rules[0], runbooks)
	for _, v := range []values{{"runbookBaseURL": "wiki"}, {"runbookBaseURL": runbooks + "#x"}, {"labels": values{"a": 1}}, {"label": values{}}} {
		if _, err := helm(values{"monitoring": v}); err == nil {
			t.Errorf("%v is accepted", v)
		}
	}
}

// The chart's rules are those of the file, limited to one namespace.
func TestChartBindsTheRulesToItsNamespace(t *testing.T) {
	_, all, _ := monitoringOf(t, kustomize(t, monitoringPath))
	_, own, _ := monitoringOf(t, mustHelm(t, values{"monitoring": values{"enabled": true}}))
	want := all[0].DeepCopy()
	for _, group := range want.Spec.Groups {
		for i := range group.Rules {
			expr := &group.Rules[i].Expr
			if !strings.Contains(expr.StrVal, `namespace=~".*"`) {
				t.Errorf("%s cannot be bound to a namespace: %s", group.Rules[i].Alert, expr.StrVal)
			}
			expr.StrVal = strings.ReplaceAll(expr.StrVal, `=~".*"`, `="mimecast"`)
		}
	}
	if diff := cmp.Diff(want.Spec, own[0].Spec); diff != "" {
		t.Errorf("the file's (-) and the chart's (+) differ:\n%s", diff)
	}
}

// Ten releases run in ten namespaces, each with a proxy that is down. Each raises one
// alert, and each dashboard has its own uid and file.
func TestTenReleasesRaiseOneAlertEach(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; Debian has it in the package prometheus")
	}
	dir := t.TempDir()
	uids, files := map[string]bool{}, map[string]bool{}
	test := "evaluation_interval: 30s\nrule_files: [rules-*.yaml]\ntests:\n- interval: 30s\n  input_series:\n"
	want := ""
	for i := range 10 {
		namespace := fmt.Sprintf("team-%d", i)
		_, rules, dashboards := monitoringOf(t, mustHelmIn(t, namespace, values{"monitoring": values{"enabled": true}}))
		text, err := sigsyaml.Marshal(map[string]any{"groups": rules[0].Spec.Groups})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "rules-"+namespace+".yaml"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range dashboards[0].Data {
			var d struct{ UID, Title string }
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(d.Title, namespace) || len(d.UID) > 40 {
				t.Errorf("%s: %+v", namespace, d)
			}
			uids[d.UID], files[name] = true, true
		}
		labels := fmt.Sprintf(`namespace="%s", job="%[1]s/mimecast-proxy", pod="a", instance="10.0.0.%[2]d:19090"`, namespace, i)
		test += fmt.Sprintf("  - {series: 'mimecast_proxy_health{%s, state=\"down\", component=\"mimecast\"}', values: '1x20'}\n", labels)
		test += fmt.Sprintf("  - {series: 'mimecast_proxy_health_affected_ratio{%s}', values: '1x20'}\n", labels)
		want += fmt.Sprintf("    - {labels: '{namespace=\"%s\"}', value: 1}\n", namespace)
	}
	test += "  promql_expr_test:\n  - expr: count by (namespace) (ALERTS{alertstate=\"firing\"})\n    eval_time: 5m\n    exp_samples:\n" + want
	if len(uids) != 10 || len(files) != 10 {
		t.Errorf("%d uids, %d files", len(uids), len(files))
	}
	path := filepath.Join(dir, "test.yaml")
	if err := os.WriteFile(path, []byte(test), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// schemaErrors returns the errors that Grafana's types find in a dashboard, or "". The
// types know each panel's options.
func schemaErrors(text []byte) string {
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard                                                //nolint:staticcheck // v1 is what a file to import has
	if err := d.UnmarshalJSONStrict(text); err != nil && err.Error() != "" { // the error may be an empty list
		return err.Error()
	}
	if err := d.Validate(); err != nil {
		return err.Error()
	}
	return ""
}

func TestDashboardIsOfGrafanasSchema(t *testing.T) {
	text, err := os.ReadFile(monitoringPath + "/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if found := schemaErrors(text); found != "" {
		t.Error(found)
	}
	for _, wrong := range [][2]string{
		{`"rowHeight": 0.8`, `"rowHeights": 0.8`}, {`"graphMode": "none"`, `"graphMode": 1`}, {`"refresh": "30s"`, `"refreshes": "30s"`},
	} {
		if !strings.Contains(string(text), wrong[0]) || schemaErrors([]byte(strings.Replace(string(text), wrong[0], wrong[1], 1))) == "" {
			t.Errorf("the schema takes %s, or there is no %s", wrong[1], wrong[0])
		}
	}
	for _, name := range []string{"namespace", "pod", "account"} {
		if !strings.Contains(string(text), `"name": "`+name+`"`) {
			t.Errorf("no variable %s", name)
		}
	}
}
