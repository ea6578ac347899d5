package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a log output that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a handler wrapped by a Telemetry, on a real listener.
type rig struct {
	*testing.T
	*telemetry.Telemetry
	log    *buffer
	server *httptest.Server
	client *http.Client
}

func newTelemetry(t testing.TB, o telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	tel.AddAccount("default")
	return tel
}

// newRig serves the handler that h returns. The handler may call the Telemetry's hooks.
func newRig(t *testing.T, o telemetry.Options, h func(*telemetry.Telemetry) http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{T: t, log: &buffer{}}
	o.Output = r.log
	r.Telemetry = newTelemetry(t, o)
	r.server = httptest.NewUnstartedServer(r.Wrap(h(r.Telemetry)))
	r.server.Config.ErrorLog = r.StdLog("error")
	r.server.Start()
	r.client = r.server.Client()
	t.Cleanup(r.end)
	return r
}

// end waits until every request was recorded. The client may have its response a moment
// earlier.
func (r *rig) end() {
	r.client.CloseIdleConnections()
	r.server.Close()
}

func (r *rig) get(path string, header ...string) (*http.Response, error) {
	return r.do("GET", path, nil, header...)
}

// do sends a request and reads the response. The error is the client's.
func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.Context(), method, r.server.URL+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	res.Body = io.NopCloser(bytes.NewReader(read))
	return res, err
}

// raw sends bytes that no HTTP client would send, and returns everything received.
func (r *rig) raw(request string) string {
	r.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		r.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		r.Fatal(err)
	}
	return string(got)
}

// lines returns the log lines with a message, after all requests have ended.
func (r *rig) lines(msg string) []map[string]any {
	r.Helper()
	r.end()
	var lines []map[string]any
	for text := range strings.Lines(r.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.Fatalf("%v in %q", err, text)
		}
		if line["msg"] == msg {
			lines = append(lines, line)
		}
	}
	return lines
}

// line returns the only access log line.
func (r *rig) line() map[string]any {
	r.Helper()
	lines := r.lines("request")
	if len(lines) != 1 {
		r.Fatalf("%d access lines, want 1: %s", len(lines), r.log)
	}
	return lines[0]
}

// scrape returns the metrics as text.
func scrape(t testing.TB, tel *telemetry.Telemetry) string {
	t.Helper()
	s := httptest.NewServer(tel.Metrics())
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %v %s", res.StatusCode, err, text)
	}
	return string(text)
}

// hasSeries fails the test for each line that the metrics lack. Lines omit the prefix
// mimecast_proxy_.
func hasSeries(t testing.TB, metrics string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains(metrics, "\nmimecast_proxy_"+line+"\n") {
			t.Errorf("no %s in\n%s", line, ours(metrics))
		}
	}
}

func ours(metrics string) string {
	var b strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "mimecast_proxy_") && !strings.Contains(line, "_bucket") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func just(h http.HandlerFunc) func(*telemetry.Telemetry) http.HandlerFunc {
	return func(*telemetry.Telemetry) http.HandlerFunc { return h }
}

func TestNothingOfTheClientsShows(t *testing.T) {
	const mark = "MARKED"
	r := newRig(t, telemetry.Options{Level: "debug"}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			ctx := req.Context()
			tel.Answered(ctx, 200, http.Header{"X-Request-Id": {"MARKED MARKED"}, "X-Ratelimit-Limit": {mark}, "X-Secret": {mark}}, time.Millisecond)
			tel.Unauthorized(ctx, event.UnauthorizedReasonOf(mark))
			tel.Failed(ctx, problem.New(event.UpstreamReset, "x").Because(errors.New("Get \"https://user:MARKED@h/p?q=MARKED\": Authorization: Bearer MARKED")))
			tel.TokenStart("default")
			tel.TokenDone("default", event.TriggerExpiry, event.TokenFailed, time.Second, time.Time{}, errors.New("sent bearer MARKED to http://h/?client_secret=MARKED"))
			tel.StdLog("warn").Printf("malformed HTTP response \"MARKED\"")
			tel.Logger().Error("x", "error", errors.New("Bearer MARKED"))
			w.Header().Set("X-Secret", mark)
			io.WriteString(w, mark)
		}
	})
	if _, err := r.do("POST", "/p?q=MARKED", strings.NewReader(mark), "Authorization", "Bearer MARKED", "X-Api", mark,
		"X-Request-Id", "MARKED 1", "Traceparent", mark, "Cookie", "a=MARKED"); err != nil {
		t.Fatal(err)
	}
	r.do(mark, "/", nil)
	r.end()
	snap, err := json.Marshal(r.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	// The client chooses the method. It appears in the log and the snapshot, but not in
	// the metrics.
	log := strings.ReplaceAll(r.log.String(), `"method":"MARKED"`, "")
	shown := strings.NewReplacer(`"method":"MARKED"`, "", `"last_method":"MARKED"`, "").Replace(string(snap))
	for name, text := range map[string]string{"log": log, "metrics": scrape(t, r.Telemetry), "snapshot": shown} {
		if i := strings.Index(text, mark); i >= 0 {
			t.Errorf("%s shows it: …%s…", name, text[max(0, i-80):min(len(text), i+20)])
		}
	}
}
