//go:build unix

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const (
	// sampleEvery is the interval at which a recording scrapes the program. promtool
	// replays the samples as 30 s apart, so a minute becomes an hour.
	sampleEvery = 500 * time.Millisecond
	// recorded is written by TestAlertsFireInRealRuns with -update.
	recorded = "recorded_test.yaml"
	// targetLabels are the labels that Prometheus adds to the metrics of a gateway's pod.
	targetLabels = `job="mimecast/mimecast-proxy", namespace="mimecast", pod="mimecast-proxy-0", mimecast_proxy="gateway", instance="10.0.0.7:19090"`
	// afterwards is the number of samples in the longest window of the rules.
	afterwards = 24
)

// recording is what a run of the program exported over time.
type recording struct {
	t       *testing.T
	sim     *simulator.Server
	program *program.Program // nil while there is no pod
	values  map[string][]string
	samples int
	wanted  map[string]bool // metrics to record
}

// metricsOfAlerts returns the metrics that the alert rules read.
func metricsOfAlerts(t *testing.T) map[string]bool {
	names := map[string]bool{}
	for _, e := range alertExpressions(t) {
		for _, m := range metricName.FindAllStringSubmatch(e, -1) {
			names[m[1]] = true
		}
	}
	return names
}

func record(t *testing.T, sim *simulator.Server, environ []string) *recording {
	t.Helper()
	p := program.Start(t, environ).AwaitServing().AwaitReady()
	return &recording{t: t, sim: sim, program: p, values: map[string][]string{}, wanted: metricsOfAlerts(t)}
}

func recordSimple(t *testing.T, more ...string) *recording {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	return record(t, sim, program.Environ(t, sim, more...))
}

// sample takes n samples and calls each before each of them.
func (r *recording) sample(n int, each func()) {
	r.t.Helper()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for range n {
		each()
		r.scrape()
		<-tick.C
	}
}

// sampleUntil takes samples until the program exports a health state, and then n more.
func (r *recording) sampleUntil(state string, n int, each func()) {
	r.t.Helper()
	program.Await(r.t, state, func() bool {
		r.sample(1, each)
		return r.program.Metric("mimecast_proxy_"+state) == 1
	})
	r.sample(n, each)
}

// sampleUntilOK takes samples until the health is ok and the alerts' windows have passed.
func (r *recording) sampleUntilOK(each func()) {
	r.t.Helper()
	r.sampleUntil(`health{state="ok"}`, afterwards, each)
}

func (r *recording) scrape() {
	r.t.Helper()
	now := map[string]string{}
	switch {
	case r.program == nil: // the target is gone
	case r.program.Ended():
		now["up{"+targetLabels+"}"] = "0"
	default:
		now["up{"+targetLabels+"}"] = "1"
		for sample, v := range r.program.Metrics() {
			name, labels, _ := strings.Cut(strings.TrimSuffix(sample, "}"), "{")
			if r.wanted[name] {
				series := name + "{" + strings.TrimSuffix(targetLabels+", "+labels, ", ") + "}"
				now[series] = strconv.FormatFloat(v, 'f', -1, 64)
			}
		}
	}
	for series, value := range now {
		missing := max(0, r.samples-len(r.values[series]))
		r.values[series] = append(append(r.values[series], slices.Repeat([]string{"_"}, missing)...), value)
	}
	r.samples++
	for series, all := range r.values {
		if len(all) == r.samples-1 && all[len(all)-1] != "_" && all[len(all)-1] != "stale" {
			r.values[series] = append(all, "stale")
		}
	}
}

// ok sends requests that succeed.
func (r *recording) ok() {
	r.t.Helper()
	for range 5 {
		if res, _ := r.program.Must("GET", "/identity/whoami", ""); res.StatusCode != http.StatusOK {
			r.t.Logf("%s in place of 200", res.Status)
		}
	}
}

func (r *recording) get(paths ...string) {
	r.t.Helper()
	for _, path := range paths {
		r.program.Must("GET", path, "")
	}
}

// hold keeps n requests in flight until release is called.
func (r *recording) hold(n int, body string) (release func()) {
	r.t.Helper()
	gate, ended := make(chan struct{}), make(chan error, n)
	r.sim.AddFault(simulator.Fault{Path: "/held/", Status: http.StatusOK, Until: gate})
	for range n {
		go func() {
			_, _, err := r.program.Do("POST", "/held/x", strings.NewReader(body))
			ended <- err
		}()
	}
	program.Await(r.t, "the held requests", func() bool { return r.program.Metric("mimecast_proxy_requests_in_flight") == float64(n) })
	return func() {
		close(gate)
		for range n {
			if err := <-ended; err != nil {
				r.t.Error(err)
			}
		}
	}
}

// series returns the samples by series, in promtool's notation.
func (r *recording) series() map[string]string {
	all := map[string]string{}
	for series, values := range r.values {
		all[series] = inRuns(values)
	}
	return all
}

// inRuns writes values in promtool's notation, in which 1x3 is four times 1.
func inRuns(values []string) string {
	var b strings.Builder
	for len(values) > 0 {
		n := slices.IndexFunc(values, func(v string) bool { return v != values[0] })
		if n < 0 {
			n = len(values)
		}
		// Unlike 1x3, _x3 is three missing values, not four.
		switch times := n - 1; {
		case n == 1 || values[0] == "stale":
			b.WriteString(values[0])
			n = 1
		case values[0] == "_":
			fmt.Fprintf(&b, "_x%d", n)
		default:
			fmt.Fprintf(&b, "%sx%d", values[0], times)
		}
		b.WriteByte(' ')
		values = values[n:]
	}
	return strings.TrimSpace(b.String())
}

// replay is a promtool test: what a run exported, and the alerts that fire in it.
type replay struct {
	name   string
	series map[string]string
	length time.Duration
	// fires are the alerts with their labels, except those of the target.
	fires []string
}

var replayHead = `# The alerts on what the program exported in real runs in front of the simulator.
# A sample of every half second is replayed as one of every 30 s.
#
#   promtool test rules ` + recorded + `
#
# Written by: go test ./internal/e2e -run TestAlertsFireInRealRuns -update
rule_files: [%s]
evaluation_interval: 30s

tests:
`

// replayFile returns a test file for promtool.
func replayFile(rules string, replays []replay) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, replayHead, rules)
	for _, r := range replays {
		fmt.Fprintf(&b, "  - name: %s\n    interval: 30s\n    input_series:\n", r.name)
		for _, series := range slices.Sorted(maps.Keys(r.series)) {
			fmt.Fprintf(&b, "      - {series: '%s', values: '%s'}\n", series, r.series[series])
		}
		fmt.Fprintf(&b, "    promql_expr_test:\n      - expr: count by (alertname, namespace, pod, component, account, client, function) (max_over_time(ALERTS{alertstate=\"firing\"}[2d]))\n        eval_time: %s\n        exp_samples:", r.length)
		if len(r.fires) == 0 {
			b.WriteString(" []")
		}
		for _, labels := range r.fires {
			fmt.Fprintf(&b, "\n          - {labels: '{%s}', value: 1}", labels)
		}
		fmt.Fprintf(&b, "\n      - {expr: 'ALERTS{alertstate=\"firing\"}', eval_time: %s, exp_samples: []}\n", r.length)
	}
	return b.Bytes()
}

// promtool runs promtool in the directory of the rules.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), look(t, "promtool"), args...)
	cmd.Dir = filepath.Join(program.Root(), monitoring)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// testReplays makes promtool replay recordings.
func testReplays(t *testing.T, replays ...replay) {
	t.Helper()
	path := filepath.Join(t.TempDir(), recorded)
	rules := filepath.Join(program.Root(), monitoring, "alerts.yaml")
	if err := os.WriteFile(path, replayFile(rules, replays), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", path)
}

// of returns the labels of an alert for the recorded pod.
func of(alert string, more ...string) string {
	labels := []string{`alertname="` + alert + `"`, `namespace="mimecast"`, `pod="mimecast-proxy-0"`}
	return strings.Join(append(labels, more...), ", ")
}

// realRun is a run to record, and the alerts that fire in it.
type realRun struct {
	name  string
	run   func(t *testing.T) *recording
	fires []string
}

var realRuns = []realRun{
	{"a healthy proxy, with a renewed token, one wrong request and one error of Mimecast", runHealthy, nil},
	{"the process ends and is started again", runUnreachable, []string{of("MimecastProxyUnreachable")}},
	{"the only pod of the gateway vanishes", runAbsent, []string{`alertname="MimecastProxyGatewayAbsent", namespace="mimecast"`}},
	{"the token is revoked and the token endpoint responds 503", runTokenDead, []string{of("MimecastProxyHealthDown", `component="mimecast"`)}},
	{"the token is revoked and the credentials are rejected", runRefused, []string{of("MimecastProxyHealthDown", `component="credentials"`)}},
	{"Mimecast resets every connection", runReset, []string{of("MimecastProxyHealthDown", `component="mimecast"`)}},
	{"a fifth of the responses are 500", runDegraded, []string{of("MimecastProxyHealthDegraded", `component="mimecast"`)}},
	{"one of two accounts gets 500 only", runAccountDown, []string{of("MimecastProxyAccountDown", `account="team-01"`)}},
	{"one of two clients sends wrong requests only", runClientErrors, []string{of("MimecastProxyClientErrors", `client="team-00"`)}},
	{"all clients send wrong requests", runAllClientErrors, []string{of("MimecastProxyClientErrors", `component="client"`)}},
	{"a client calls what it may not", runClientRejected, []string{of("MimecastProxyClientRejected", `client="reports"`)}},
	{"a quota is nearly used up", runQuota, []string{of("MimecastProxyQuotaNearlyUsed", `account="default"`, `function="/identity/whoami"`)}},
	{"few requests get 429, for a long time", runRateLimited, []string{of("MimecastProxyRateLimited")}},
	{"peaks are over the limit of in-flight requests", runTooBusy, []string{of("MimecastProxyTooBusy")}},
	{"a large upload waits", runReplayMemory, []string{of("MimecastProxyReplayMemoryFull")}},
	{"the clock is two minutes ahead", runClockWrong, []string{of("MimecastProxyClockWrong")}},
}

var someRuns = flag.Int("real-runs", 4, "how many of the real runs TestAlertsFireInRealRuns makes; all with -update; 16 to be sure")

// Each alert fires in a real run, and no other alert fires in that run.
// TestAlertRulesPassPromtool replays what all runs recorded.
func TestAlertsFireInRealRuns(t *testing.T) {
	suite.Slow(t)
	look(t, "promtool")
	runs := realRuns
	if !*update {
		runs = runs[:min(*someRuns, len(runs))]
	}
	replays := make([]replay, len(runs))
	t.Run("runs", func(t *testing.T) {
		for i, run := range runs {
			t.Run(run.name, func(t *testing.T) {
				t.Parallel()
				r := run.run(t)
				replays[i] = replay{run.name, r.series(), time.Duration(r.samples-1) * 30 * time.Second, run.fires}
				if !t.Failed() {
					testReplays(t, replays[i])
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Run("a day of a CronJob raises no alert", func(t *testing.T) { testCronJob(t, replays[0]) })
	t.Run("ten namespaces raise ten times as many alerts", func(t *testing.T) {
		for i := range replays {
			testTenNamespaces(t, replays[i])
		}
	})
	if *update && !t.Failed() {
		path := filepath.Join(program.Root(), monitoring, recorded)
		if err := os.WriteFile(path, replayFile("alerts.yaml", replays), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryAlertFiresInARecordedRun(t *testing.T) {
	t.Parallel()
	for _, m := range alertName.FindAllStringSubmatch(program.ReadFile(t, monitoring+"/alerts.yaml"), -1) {
		fires := func(text string) bool { return strings.Contains(text, `alertname="`+m[1]+`"`) }
		if !slices.ContainsFunc(realRuns, func(r realRun) bool { return slices.ContainsFunc(r.fires, fires) }) || !fires(program.ReadFile(t, monitoring+"/"+recorded)) {
			t.Errorf("%s fires in no recorded run", m[1])
		}
	}
}

func runHealthy(t *testing.T) *recording {
	r := recordSimple(t, "PROXY_RATE_LIMIT_PACE=observe")
	r.sim.AddFault(simulator.Fault{Path: "/identity/", Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "600000"}})
	r.sim.AddFault(simulator.Fault{Path: "/error", Status: http.StatusInternalServerError})
	r.sample(10, r.ok)
	r.sim.RevokeTokens()
	r.sample(10, r.ok)
	r.get("/error")
	r.sample(10, r.ok)
	r.get("/there/is/no/such/path")
	r.sample(10, r.ok)
	return r
}

func runUnreachable(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	r.program.Kill()
	r.sample(8, func() {})
	r.program = program.Serve(t, r.sim)
	r.sampleUntilOK(r.ok)
	return r
}

func runAbsent(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	r.program.Kill()
	r.program = nil
	r.sample(25, func() {})
	r.program = program.Serve(t, r.sim)
	r.sampleUntilOK(r.ok)
	return r
}

func runTokenDead(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	fault, err := simulator.NamedFault("token-dead")
	if err != nil {
		t.Fatal(err)
	}
	r.sim.AddFault(fault)
	r.sim.RevokeTokens()
	r.sampleUntil(`health{state="down"}`, 6, r.ok)
	r.sim.ClearFaults()
	r.sampleUntilOK(r.ok)
	return r
}

func runRefused(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	r.sim.SetCredentials(simulator.DefaultClientID, "another-secret")
	r.sim.RevokeTokens()
	r.sampleUntil(`health{state="down"}`, 6, r.ok)
	r.sim.SetCredentials(simulator.DefaultClientID, simulator.DefaultClientSecret)
	r.sampleUntilOK(r.ok)
	return r
}

func runReset(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	r.sim.AddFault(simulator.Fault{Cut: simulator.CutRequest})
	r.sampleUntil(`health{state="down"}`, 6, r.ok)
	r.sim.ClearFaults()
	r.sampleUntilOK(r.ok)
	return r
}

func runDegraded(t *testing.T) *recording {
	r := recordSimple(t)
	r.sim.AddFault(simulator.Fault{Path: "/error", Status: http.StatusInternalServerError})
	r.sample(5, r.ok)
	r.sampleUntil(`health{state="degraded"}`, 24, func() { r.get("/error"); r.ok() })
	r.sampleUntilOK(r.ok)
	return r
}

// recordTeams records two clients with an account each. ask sends requests as one of them.
func recordTeams(t *testing.T) (r *recording, ask func(team int, path string)) {
	s := newTeams(t, 2, simulator.Options{})
	r = record(t, s.sim, s.environ())
	return r, func(team int, path string) {
		t.Helper()
		for range 3 {
			if _, _, err := s.ask(r.program, team, "GET", path, ""); err != nil {
				t.Error(err)
			}
		}
	}
}

func runAccountDown(t *testing.T) *recording {
	r, ask := recordTeams(t)
	both := func() { // most of them by the other account
		for _, team := range []int{0, 0, 0, 1} {
			ask(team, "/identity/whoami")
		}
	}
	r.sample(5, both)
	r.sim.AddFault(simulator.Fault{Application: "app-01", Status: http.StatusInternalServerError})
	r.sampleUntil(`account_health{account="team-01",state="down"}`, 8, both)
	r.sim.ClearFaults()
	r.sampleUntilOK(both)
	return r
}

func runClientErrors(t *testing.T) *recording {
	r, ask := recordTeams(t)
	well := func() { ask(0, "/identity/whoami"); ask(1, "/identity/whoami"); ask(1, "/identity/whoami") }
	r.sample(5, well)
	wrong := func() { ask(0, "/no/such/path"); ask(1, "/identity/whoami"); ask(1, "/identity/whoami") }
	r.sampleUntil(`client_health{client="team-00",state="degraded"}`, 34, wrong)
	r.sampleUntilOK(well)
	return r
}

func runAllClientErrors(t *testing.T) *recording {
	r := recordSimple(t)
	r.sample(5, r.ok)
	wrong := func() { r.get("/no/such/path", "/no/such/path", "/no/such/path") }
	r.sampleUntil(`health{component="client",state="degraded"}`, 34, wrong)
	r.sampleUntilOK(r.ok)
	return r
}

func runClientRejected(t *testing.T) *recording {
	sim := program.Simulate(t, simulator.Options{})
	r := record(t, sim, program.Environ(t, sim, "PROXY_CLIENTS_FILE="+clientsFile(t)))
	as := func(path string) { r.program.Must("GET", path, "", "X-Proxy-Key", clientKey) }
	r.sample(5, func() { as("/identity/whoami") })
	r.sample(20, func() {
		as("/identity/whoami")
		as("/siem/v1/events/cg")
		as("/siem/v1/events/cg")
		as("/siem/v1/events/cg")
	})
	r.sampleUntilOK(func() { as("/identity/whoami"); as("/identity/whoami"); as("/identity/whoami"); as("/identity/whoami") })
	return r
}

func runQuota(t *testing.T) *recording {
	r := recordSimple(t)
	left := func(calls string) {
		r.sim.ClearFaults()
		r.sim.AddFault(simulator.Fault{Path: "/identity/", Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": calls, "X-RateLimit-Reset": "600000"}})
	}
	left("40")
	r.sample(5, r.ok)
	left("4")
	r.sample(10, r.ok)
	left("40")
	r.sampleUntilOK(r.ok)
	return r
}

func runRateLimited(t *testing.T) *recording {
	r := recordSimple(t)
	r.sim.AddFault(simulator.Fault{Path: "/limited", Status: http.StatusTooManyRequests})
	many := func() {
		for range 8 {
			r.ok()
		}
	}
	r.sample(5, many)
	r.sample(30, func() { r.get("/limited"); many() })
	r.sampleUntilOK(many)
	return r
}

func runTooBusy(t *testing.T) *recording {
	r := recordSimple(t, "PROXY_MAX_REQUESTS=2")
	many := func() {
		for range 8 {
			r.ok()
		}
	}
	r.sample(5, many)
	r.sample(14, func() { // a peak that exceeds the limit by one request
		r.sim.ClearFaults()
		release := r.hold(2, "")
		r.get("/identity/whoami")
		release()
		many()
	})
	r.sampleUntilOK(many)
	return r
}

func runReplayMemory(t *testing.T) *recording {
	r := recordSimple(t, "PROXY_REPLAY_MEMORY=1MiB", "PROXY_REPLAY_LIMIT=1MiB")
	r.sample(5, r.ok)
	release := r.hold(1, strings.Repeat("x", 1<<20))
	r.sample(14, r.ok)
	release()
	r.sampleUntilOK(r.ok)
	return r
}

func runClockWrong(t *testing.T) *recording {
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Header: map[string]string{"Date": time.Now().Add(-2 * time.Minute).UTC().Format(http.TimeFormat)}})
	r := record(t, sim, program.Environ(t, sim))
	r.sample(14, r.ok)
	sim.ClearFaults()
	sim.RevokeTokens()
	r.sampleUntilOK(r.ok)
	return r
}

// testCronJob replays a healthy run as a CronJob, whose pods have a sidecar for some
// minutes of each hour. Each pod has a separate name, and its last scrape finds nothing.
func testCronJob(t *testing.T, run replay) {
	const perHour, runsOfDay = 120, 24
	pod := regexp.MustCompile(`pod="[^"]*", mimecast_proxy="gateway", instance="[^"]*"`)
	day := replay{name: "a day of a CronJob", series: map[string]string{}, length: runsOfDay * time.Hour}
	for hour := range runsOfDay {
		labels := fmt.Sprintf(`pod="report-%d", mimecast_proxy="sidecar", instance="10.0.1.%d:19090"`, hour, hour)
		for name, values := range run.series {
			if hour > 0 {
				values = fmt.Sprintf("_x%d %s", hour*perHour, values)
			}
			last := " stale"
			if strings.HasPrefix(name, "up{") {
				last = " 0 stale"
			}
			day.series[pod.ReplaceAllString(name, labels)] = values + last
		}
	}
	testReplays(t, day)
}

// testTenNamespaces replays an outage in ten namespaces at once. The rules are loaded once.
func testTenNamespaces(t *testing.T, run replay) {
	ten := replay{name: "ten namespaces", series: map[string]string{}, length: run.length}
	for i := range 10 {
		own := strings.NewReplacer("mimecast/mimecast-proxy", fmt.Sprintf("team-%d/mimecast-proxy", i),
			`namespace="mimecast"`, fmt.Sprintf(`namespace="team-%d"`, i), "10.0.0.7", fmt.Sprintf("10.0.0.%d", i))
		for name, values := range run.series {
			ten.series[own.Replace(name)] = values
		}
		for _, alert := range run.fires {
			ten.fires = append(ten.fires, own.Replace(alert))
		}
	}
	testReplays(t, ten)
}
