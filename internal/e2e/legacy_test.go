package e2e

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/api1"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const legacy = "docs/legacy.md"

func TestLegacyFieldTable(t *testing.T) {
	const begin, end = "<!-- fields: kept by a test -->\n\n", "\n<!-- end of fields -->"
	doc := program.ReadFile(t, legacy)
	before, rest, found := strings.Cut(doc, begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the fields", legacy)
	}
	if table == api1.FieldTable() {
		return
	}
	if !*update {
		t.Fatalf("%s has another table; run go test ./internal/e2e -run TestLegacyFieldTable -update", legacy)
	}
	doc = before + begin + api1.FieldTable() + end + after
	if err := os.WriteFile(filepath.Join(program.Root(), legacy), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
}

// collector is a typical public collector for API 1.0. It signs each call, sends a dict
// as Python prints it, unpacks files, and stores the token in a file. It prints a line
// per event.
const collector = `
import base64, datetime, hashlib, hmac, io, json, os, sys, urllib.request, uuid, zipfile
base, uri, state = "https://eu-api.mimecast.com", "/api/audit/get-siem-logs", sys.argv[1]
access_key, secret_key, app_id, app_key = "AccessKey", base64.b64encode(b"secret").decode(), "app-id", "app-key"

def post(uri, body):
    request_id = str(uuid.uuid4())
    date = datetime.datetime.utcnow().strftime("%a, %d %b %Y %H:%M:%S") + " UTC"
    text = ":".join([date, request_id, uri, app_key])
    signature = base64.b64encode(hmac.new(base64.b64decode(secret_key), text.encode(), hashlib.sha1).digest()).decode()
    headers = {"Authorization": "MC " + access_key + ":" + signature, "x-mc-app-id": app_id, "x-mc-date": date,
               "x-mc-req-id": request_id, "Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(base + uri, body.encode(), headers), timeout=60)

found = json.load(post("/api/login/discover-authentication", json.dumps({"data": [{"emailAddress": "a@b.test"}]})))
base = found["data"][0]["region"]["api"]
if base != "https://eu-api.mimecast.com":
    raise SystemExit("discovered " + base)
token = open(state).read() if os.path.exists(state) else ""
while True:
    data = {"type": "MTA", "compress": True, "fileFormat": "key_value"}
    if token:
        data["token"] = token
    r = post(uri, str({"data": [data]}))
    content, token = r.read(), r.headers["mc-siem-token"]
    if r.headers["Content-Type"] == "application/json":
        break
    if r.headers["Content-Type"] != "application/octet-stream":
        raise SystemExit(r.headers["Content-Type"])
    name = r.headers["Content-Disposition"].split('="')[1][:-1]
    archive = zipfile.ZipFile(io.BytesIO(content))
    for member in archive.namelist():
        for line in archive.read(member).decode().splitlines():
            fields = dict(field.split("=", 1) for field in line.split("|"))
            print("event", member.rsplit("_", 1)[0], fields["datetime"], fields["aCode"])
open(state, "w").write(token)
`

// collect runs the collector and returns its output lines, sorted.
func collect(t *testing.T, sim *simulator.Server, state string) []string {
	t.Helper()
	environ := program.Environ(t, sim, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	p := program.Start(t, environ, "run", "--intercept", "--", program.Python(), "-c", collector, state)
	if code := p.Exit(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	events := strings.Split(strings.TrimSpace(p.Stdout.String()), "\n")
	slices.Sort(events)
	return events
}

func TestCollectorOfAPI1GetsEachEventOnceThroughRun(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if why := missingPython(); why != "" {
		t.Skip(why)
	}
	const behind = 5 * time.Minute
	var late atomic.Int64 // how far the simulator's clock is behind
	late.Store(int64(behind))
	sim := program.Simulate(t, simulator.Options{Now: func() time.Time { return time.Now().Add(-time.Duration(late.Load())) }, RequestLog: 5000})
	began := time.Now()
	state := filepath.Join(t.TempDir(), "token")
	first := collect(t, sim, state)
	checkCount(t, first, 24*time.Hour-behind, time.Since(began))
	for _, r := range sim.Requests() {
		if h := r.Header; strings.HasPrefix(h.Get("Authorization"), "MC ") || h.Get("x-mc-app-id")+h.Get("x-mc-date")+h.Get("x-mc-req-id") != "" {
			t.Fatalf("Mimecast got %v", h)
		}
	}
	late.Store(0)
	forgetCaughtUp(t, state)
	second := collect(t, sim, state)
	checkCount(t, second, behind, time.Since(began))
	all := append(first, second...)
	slices.Sort(all)
	if n := len(all); len(slices.Compact(all)) != n {
		t.Error("an event came in both runs")
	}
}

// checkCount fails unless all events differ and their number is right for the period: one
// every ten seconds. A few more may have come during the test.
func checkCount(t *testing.T, events []string, in, elapsed time.Duration) {
	t.Helper()
	const every = 10 * time.Second
	least, most := int(in/every)-1, int((in+elapsed)/every)+2
	if n := len(events); n < least || n > most || len(slices.Compact(slices.Clone(events))) != n {
		t.Errorf("%d events, of which %d differ; want %d to %d", n, len(slices.Compact(slices.Clone(events))), least, most)
	}
}

// forgetCaughtUp changes the collector's token so that no type has caught up. Otherwise
// none is requested again for 150 s.
func forgetCaughtUp(t *testing.T, state string) {
	t.Helper()
	token, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := base64.RawURLEncoding.DecodeString(string(token))
	if err != nil || !strings.Contains(string(cursor), `,"c":true`) {
		t.Fatalf("the token is %s, %v", cursor, err)
	}
	cursor = []byte(strings.ReplaceAll(string(cursor), `,"c":true`, ""))
	if err := os.WriteFile(state, []byte(base64.RawURLEncoding.EncodeToString(cursor)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func missingPython() string {
	if _, err := exec.LookPath("python3"); err != nil {
		return "python3 is not on this machine"
	}
	return ""
}

// Without PROXY_API1, a call that only API 1.0 has gets Mimecast's 404 and one warning.
func TestCallThatExistsInAPI1OnlyDrawsOneWarning(t *testing.T) {
	t.Parallel()
	p := program.Serve(t, program.Simulate(t, simulator.Options{}))
	for range 3 {
		if res, _ := p.Must("POST", "/api/audit/get-siem-logs", `{"data":[{"type":"MTA"}]}`); res.StatusCode != 404 {
			t.Error(res.Status)
		}
	}
	const warning = `"msg":"unsupported API 1.0 call"`
	p.Stderr.Await(t, "the warning", func(text string) bool { return strings.Contains(text, warning) })
	if n := strings.Count(p.Stderr.String(), warning); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if _, status := p.AdminGet("/api/status"); strings.Count(status, "/api/audit/get-siem-logs, which exists in API 1.0 only") != 1 || !strings.Contains(status, "PROXY_API1=true") {
		t.Error("the page does not say so")
	}
}
