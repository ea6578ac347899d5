package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const monitoring = "deploy/monitoring"

// dashboard is the part of Grafana's data model that the tests need.
type dashboard struct {
	Templating struct {
		List []struct {
			Name       string
			Definition string
		}
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ RefID, Expr, LegendFormat string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(program.ReadFile(t, monitoring+"/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// expressions returns the dashboard's expressions. Every variable is replaced as Grafana
// does for "All".
func (d dashboard) expressions() []string {
	fill := strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$namespace", ".*", "$pod", ".*", "$instance", ".+", "$account", ".+")
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, fill.Replace(target.Expr))
		}
	}
	return all
}

var (
	alertName  = regexp.MustCompile(`(?m)^      - alert: (\w+)$`)
	alertExpr  = regexp.MustCompile(`(?m)^        expr: (?:>-\n((?:          .*\n)+)|(.*)\n)`)
	metricName = regexp.MustCompile(`\b((?:mimecast_proxy|process|go)_\w+)(\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on) \(([^)]*)\)`)
	sampleName = regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?$`)
)

// alertExpressions returns the expressions of the alert rules.
func alertExpressions(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, m := range alertExpr.FindAllStringSubmatch(program.ReadFile(t, monitoring+"/alerts.yaml"), -1) {
		all = append(all, strings.Join(strings.Fields(m[1]+m[2]), " "))
	}
	return all
}

// ofPrometheus are the labels that Prometheus adds.
var ofPrometheus = []string{"job", "instance", "namespace", "pod", "mimecast_proxy"}

// series has the label sets of a scrape by metric.
type series map[string][]map[string]string

func seriesOf(samples map[string]float64) series {
	s := series{}
	for sample := range samples {
		m := sampleName.FindStringSubmatch(sample)
		labels := map[string]string{}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[3]
		}
		s[m[1]] = append(s[m[1]], labels)
	}
	return s
}

// selects reports whether a selector matches a series of the program. It ignores the
// labels that Prometheus adds.
func (s series) selects(name, matchers string) bool {
	return slices.ContainsFunc(s[name], func(labels map[string]string) bool {
		for _, m := range matcher.FindAllStringSubmatch(matchers, -1) {
			if slices.Contains(ofPrometheus, m[1]) {
				continue
			}
			value, ok := labels[m[1]]
			equal := ok && value == m[3]
			if strings.Contains(m[2], "~") {
				equal = ok && regexp.MustCompile("^(?:"+m[3]+")$").MatchString(value)
			}
			if !ok || equal == strings.HasPrefix(m[2], "!") {
				return false
			}
		}
		return true
	})
}

// hasLabel reports whether any of the program's own series has the label.
func (s series) hasLabel(name string) bool {
	for metric, sets := range s {
		if strings.HasPrefix(metric, "mimecast_proxy_") && slices.ContainsFunc(sets, func(l map[string]string) bool { return l[name] != "" }) {
			return true
		}
	}
	return false
}

// exercise runs a program and sends it one request of every kind.
func exercise(t *testing.T, more ...string) *program.Program {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/identity/", Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "40", "X-RateLimit-Reset": "1500"}})
	armKinds(sim)
	p := program.Serve(t, sim, append(more, "PROXY_ALLOW=/kind/,/identity/,POST /api/")...)
	sendEach(t, p)
	return p
}

// exerciseClients runs a program with named clients, in which everything about clients has
// happened once.
func exerciseClients(t *testing.T) *program.Program {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/identity/", Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "600000"}})
	p := program.Serve(t, sim, "PROXY_CLIENTS_FILE="+clientsFile(t), "PROXY_RATE_LIMIT_PACE=on", "PROXY_RATE_LIMIT_WAIT=10ms")
	sendAsClient(t, p)
	return p
}

// clientsFile returns a file with one client, which may only make a few calls.
func clientsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clients.yaml")
	digest := sha256.Sum256([]byte(clientKey))
	text := fmt.Sprintf("clients: {reports: {keys: [{sha256: %x}], allow: [GET /identity/]}}\n", digest)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const clientKey = "a-key-of-reports-for-the-tests"

func sendAsClient(t *testing.T, p *program.Program) {
	t.Helper()
	for _, path := range []string{"/identity/whoami", "/identity/whoami", "/identity/whoami", "/identity/whoami", "/identity/whoami", "/siem/v1/events/cg"} {
		p.Must("GET", path, "", "X-Proxy-Key", clientKey) // whatever the response is
	}
}

func sendEach(t *testing.T, p *program.Program) {
	t.Helper()
	for _, k := range kinds {
		if status, _, err := send(t, p, k); err != nil || status != k.status {
			t.Errorf("%s %s: %d %v", k.method, k.path, status, err)
		}
	}
}

func TestAlertsAndDashboardNameOnlyWhatThereIs(t *testing.T) {
	t.Parallel()
	p := exercise(t)
	// A client gets a response slightly before it is counted.
	program.Await(t, "the last count", func() bool { return p.Metric("mimecast_proxy_request_duration_seconds_count") == float64(len(kinds)) })
	have := seriesOf(p.Metrics())
	for name, sets := range seriesOf(exerciseClients(t).Metrics()) {
		have[name] = append(have[name], sets...)
	}
	expressions := append(alertExpressions(t), readDashboard(t).expressions()...)
	if n := len(alertName.FindAllString(program.ReadFile(t, monitoring+"/alerts.yaml"), -1)); n == 0 || n != len(alertExpressions(t)) {
		t.Fatalf("%d alerts, %d expressions", n, len(alertExpressions(t)))
	}
	named := 0
	for _, e := range expressions {
		for _, m := range metricName.FindAllStringSubmatch(e, -1) {
			named++
			if !have.selects(m[1], m[2]) {
				t.Errorf("nothing is %s%s, which is in %s", m[1], m[2], e)
			}
		}
		for _, m := range grouping.FindAllStringSubmatch(e, -1) {
			for label := range strings.SplitSeq(m[1], ",") {
				label = strings.TrimSpace(label)
				if !slices.Contains(ofPrometheus, label) && label != "" && !have.hasLabel(label) {
					t.Errorf("nothing has the label %q, which is in %s", label, e)
				}
			}
		}
	}
	t.Logf("%d expressions name %d series, all there", len(expressions), named)
}

func TestAlertRulesPassPromtool(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	promtool := look(t, "promtool")
	rules := filepath.Join(t.TempDir(), "dashboard.yaml")
	var b strings.Builder
	b.WriteString("groups: [{name: dashboard, rules: [")
	for i, e := range readDashboard(t).expressions() {
		quoted, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "{record: 'panel:%d', expr: %s},\n", i, quoted)
	}
	b.WriteString("]}]\n")
	if err := os.WriteFile(rules, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml", "recorded_test.yaml"}, {"check", "rules", rules}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(program.Root(), monitoring)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// look returns the path of a tool, or skips the test if it is missing.
func look(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed; Debian has it in the package prometheus", tool)
	}
	return path
}

func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d, %s: its id is taken, or something is missing", p.ID, p.Title)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W <= 0 || g.H <= 0 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s is off the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || !strings.Contains(target.Expr, `job=~"$job", namespace=~"$namespace", pod=~"$pod", instance=~"$instance"`) {
				t.Errorf("%s: %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
	// The dashboard must show every metric of the program.
	shown := strings.Join(d.expressions(), "\n")
	all := seriesOf(exercise(t).Metrics())
	maps.Copy(all, seriesOf(exerciseClients(t).Metrics()))
	for name := range all {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "mimecast_proxy_") && !strings.Contains(shown, name) {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// A real Prometheus scrapes the program, loads the rules and answers Grafana's queries.
func TestPrometheusAnswersTheDashboard(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	prometheus := look(t, "prometheus")
	p, clients := exercise(t, "PROXY_RATE_LIMIT_WAIT=10ms"), exerciseClients(t)
	dir := t.TempDir()
	rules := filepath.Join(program.Root(), monitoring, "alerts.yaml")
	config := fmt.Sprintf("global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [%q]\nscrape_configs:\n- job_name: mimecast-proxy\n  static_configs: [{targets: [%q, %q]}]\n",
		rules, p.Admin, clients.Admin)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(prometheus, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address=127.0.0.1:0")
	var out program.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // nothing needs to be saved
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	out.Await(t, "Prometheus's address", listening.MatchString)
	base := "http://" + listening.FindStringSubmatch(out.String())[1]
	api := base + "/api/v1/"
	program.Await(t, "Prometheus", func() bool { // it listens before it is ready
		res, err := p.Client.Get(base + "/-/ready")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})

	for _, e := range readDashboard(t).expressions() {
		program.Await(t, e+": an answer", func() bool {
			if len(ask(t, p.Client, api+"query?query="+url.QueryEscape(e))["result"].([]any)) > 0 {
				return true
			}
			sendEach(t, p) // a rate needs an increase
			sendAsClient(t, clients)
			return false
		})
	}
	for _, group := range ask(t, p.Client, api+"rules")["groups"].([]any) {
		for _, rule := range group.(map[string]any)["rules"].([]any) {
			if r := rule.(map[string]any); r["health"] != "ok" {
				t.Errorf("%v: %v %v", r["name"], r["health"], r["lastError"])
			}
		}
	}
	for _, alert := range ask(t, p.Client, api+"alerts")["alerts"].([]any) {
		if a := alert.(map[string]any); a["state"] == "firing" {
			t.Errorf("on a proxy whose token is good, fires %v", a["labels"])
		}
	}
}

// ask returns the data of a Prometheus response.
func ask(t *testing.T, client *http.Client, address string) map[string]any {
	t.Helper()
	res, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Data          map[string]any
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %s %v", address, answer.Error, err)
	}
	return answer.Data
}
