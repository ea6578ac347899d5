package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/strvals"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Names of files and tests become outdated when code moves.
func TestDevelopersDocumentsNameWhatThereIs(t *testing.T) {
	paths := regexp.MustCompile("`([a-z][a-z0-9_./-]*/|(?:[a-z][a-z0-9_-]*/)*[a-z_]+\\.(?:go|yaml|yml|md))`")
	tests := regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	for _, doc := range []string{"CONTRIBUTING.md", "docs/architecture.md"} {
		text := readDoc(t, doc)
		named := paths.FindAllStringSubmatch(text, -1)
		if len(named) < 10 {
			t.Errorf("%s: only %d paths were found", doc, len(named))
		}
		for _, m := range named {
			if strings.HasSuffix(m[1], ".yml") && !strings.Contains(m[1], "/") {
				m[1] = ".github/workflows/" + m[1]
			}
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s: %v", doc, m[1], err)
			}
		}
		for _, m := range tests.FindAllStringSubmatch(text, -1) {
			cmd := exec.CommandContext(t.Context(), "git", "grep", "-q", "-F", "func "+m[1]+"(", "--", "*_test.go")
			cmd.Dir = root
			if err := cmd.Run(); err != nil {
				t.Errorf("%s names %s, which there is not: %v", doc, m[1], err)
			}
		}
	}
}

func TestArchitectureNamesEveryPackage(t *testing.T) {
	text := readDoc(t, "docs/architecture.md")
	for name := range strings.Lines(goInRoot(t, nil, "list", "-deps", "-f", `{{with .Module}}{{if .Main}}{{$.ImportPath}}{{"\n"}}{{end}}{{end}}`, ".")) {
		name = strings.TrimPrefix(strings.TrimSpace(name), "mimecast-proxy")
		if name != "" && !strings.Contains(text, "| `"+strings.TrimPrefix(name, "/")+"/` |") {
			t.Errorf("docs/architecture.md has no line for %s", name)
		}
	}
}

// TestArchitectureNamesWhatToTouch checks the table at the end of docs/architecture.md:
// each file must declare the names listed after it.
func TestArchitectureNamesWhatToTouch(t *testing.T) {
	_, table, _ := strings.Cut(readDoc(t, "docs/architecture.md"), "\n| to change | touch |\n")
	rows := regexp.MustCompile("`([a-z0-9_./]+\\.go)`: `([A-Za-z]+)`").FindAllStringSubmatch(table, -1)
	if len(rows) < 20 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		source := readDoc(t, row[1])
		declared := regexp.MustCompile(`(?m)^(?:func (?:\([^)]*\) )?|type |var |const |\t)` + row[2] + `\b`)
		if !declared.MatchString(source) {
			t.Errorf("%s does not declare %s", row[1], row[2])
		}
	}
}

var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")

// TestKubernetesCommandsNameWhatThereIs checks the commands in the Kubernetes pages: bash
// can parse them, and the manifests that they apply exist.
func TestKubernetesCommandsNameWhatThereIs(t *testing.T) {
	applied := regexp.MustCompile(`apply -k (\S+)`)
	seen := 0
	for _, doc := range []string{"docs/kubernetes.md", "docs/kubernetes-first-hour.md", "docs/teams.md"} {
		for _, block := range shellBlock.FindAllStringSubmatch(readDoc(t, doc), -1) {
			cmd := exec.CommandContext(t.Context(), "bash", "-n")
			cmd.Stdin = strings.NewReader(block[1])
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", doc, err, out, block[1])
			}
			for _, m := range applied.FindAllStringSubmatch(block[1], -1) {
				seen++
				kustomize(t, filepath.Join(root, m[1]))
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d commands apply something", seen)
	}
}

// TestHelmCommandsRender renders the chart with the values of each documented command.
func TestHelmCommandsRender(t *testing.T) {
	set := regexp.MustCompile(`--(set|set-string) ('[^']+'|\S+)`)
	commands := 0
	for _, block := range shellBlock.FindAllStringSubmatch(readDoc(t, "docs/kubernetes.md"), -1) {
		if !strings.HasPrefix(strings.TrimSpace(block[1]), "helm install") {
			continue
		}
		commands++
		v := values{}
		for _, m := range set.FindAllStringSubmatch(block[1], -1) {
			parse := strvals.ParseInto
			if m[1] == "set-string" {
				parse = strvals.ParseIntoString
			}
			if err := parse(strings.Trim(m[2], "'"), v); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(decode(t, mustHelm(t, v))); n < 4 {
			t.Errorf("%v: %d objects", v, n)
		}
	}
	if commands != 2 {
		t.Errorf("%d commands", commands)
	}
}

// TestFirstCommandsApplyYourImage runs the second of the first commands, without a cluster.
func TestFirstCommandsApplyYourImage(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("kubectl is not installed")
	}
	_, block, found := strings.Cut(readDoc(t, "docs/kubernetes.md"), "<!-- first commands: run by a test -->\n\n```sh\n")
	commands := strings.Split(block, "\n")
	const apply = " | kubectl apply -f -"
	if !found || len(commands) < 4 || commands[3] != "```" || !strings.HasSuffix(commands[1], apply) {
		t.Fatalf("not three commands:\n%.300s", block)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", strings.TrimSuffix(commands[1], apply))
	cmd.Dir, cmd.Env = root, append(os.Environ(), "IMAGE=registry.example/team/mimecast-proxy:1.2.3")
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if image := proxyOf(t, gatewayPod(t, text).Spec).Image; image != "registry.example/team/mimecast-proxy:1.2.3" {
		t.Error(image)
	}
	if job := decode(t, text)[0].(metav1.Object).GetName(); !strings.Contains(commands[2], "job/"+job+" ") {
		t.Errorf("%q does not wait for %s", commands[2], job)
	}
}

// TestAdapterRuleIsForTheAutoscalersMetric checks the documented rule for Prometheus
// Adapter.
func TestAdapterRuleIsForTheAutoscalersMetric(t *testing.T) {
	metric := autoscaler(t, overlayOf(t, "gateway", "autoscale-on-requests")).Spec.Metrics[1].Pods.Metric.Name
	block := regexp.MustCompile("(?ms)^```yaml\n(rules:\n.*?)^```$").FindStringSubmatch(readDoc(t, "docs/kubernetes.md"))
	if block == nil {
		t.Fatal("docs/kubernetes.md has no rule")
	}
	var config struct {
		Rules []struct {
			SeriesQuery string         `json:"seriesQuery"`
			Resources   map[string]any `json:"resources"`
			Query       string         `json:"metricsQuery"`
		} `json:"rules"`
	}
	if err := sigsyaml.UnmarshalStrict([]byte(block[1]), &config); err != nil {
		t.Fatal(err)
	}
	rule := config.Rules[0]
	if !strings.HasPrefix(rule.SeriesQuery, metric+"{") {
		t.Errorf("%s is not for %s", rule.SeriesQuery, metric)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; Debian has it in the package prometheus")
	}
	query := strings.NewReplacer("<<.GroupBy>>", "pod", "<<.Series>>", metric, "<<.LabelMatchers>>", `namespace="mimecast"`).Replace(rule.Query)
	rules := fmt.Sprintf("groups:\n- name: a\n  rules:\n  - record: a\n    expr: %s\n", query)
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var (
	codeBlock    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	relativeLink = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`)
	heading      = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchor  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// anchors returns the anchors that GitHub generates for a document's headings.
func anchors(markdown string) map[string]bool {
	found := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(markdown, ""), -1) {
		name := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
		anchor := name
		for n := 1; found[anchor]; n++ {
			anchor = fmt.Sprintf("%s-%d", name, n)
		}
		found[anchor] = true
	}
	return found
}

// TestLinksOfDocumentsLeadSomewhere checks every relative link, to files and to headings.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "*.md")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	docs, links := strings.Fields(string(out)), 0
	for _, doc := range docs {
		for _, m := range relativeLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(readDoc(t, doc), ""), -1) {
			links++
			target := filepath.Join(filepath.Dir(doc), m[1])
			if m[1] == "" {
				target = doc
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", doc, err)
			} else if m[2] != "" && !anchors(readDoc(t, target))[m[2]] {
				t.Errorf("%s: %s has no heading #%s", doc, target, m[2])
			}
		}
	}
	if len(docs) < 20 || links < 200 {
		t.Errorf("only %d documents and %d links were found", len(docs), links)
	}
}

// TestLongDocumentsHaveATableOfContents checks documents longer than a screen and a half.
func TestLongDocumentsHaveATableOfContents(t *testing.T) {
	const screens = 75 // lines
	for _, pattern := range []string{"docs/*.md", "docs/recipes/*.md", "CONTRIBUTING.md"} {
		docs, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(docs) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range docs {
			doc, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			text := readDoc(t, doc)
			beginning, _, _ := strings.Cut(text, "\n## ")
			if strings.Count(text, "\n") > screens && strings.Count(beginning, "](#") < 3 {
				t.Errorf("%s has no table of contents", doc)
			}
		}
	}
}
