package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

var countingFor = flag.Duration("counting-for", 0, "how long TestCountersEqualWhatTheClientCounted asks, at 100 requests a second; 0: a fixed number as fast as it goes")

// kind is a kind of request, and how its sender expects it to end.
type kind struct {
	method, path, body string
	header             map[string]string
	// fault is the fault at Mimecast for the kind's path; nil means none.
	fault *simulator.Fault
	// status is the status that the client must get; aborted is who cuts the response off.
	status  int
	aborted string
	// do sends the request if http.Client cannot; nil means that it can.
	do func(t *testing.T, p *program.Program, k *kind) (status int, denied string, err error)
}

const (
	hint    = "</x>; rel=preload"
	refused = `{"fail":[{"code":"token_expired","message":"expired"}]}`
)

// kinds are all ways in which a request can end that a client can distinguish.
// PROXY_ALLOW has their paths, except the one that must be rejected.
var kinds = []*kind{
	{method: "GET", path: "/identity/whoami", status: 200},
	{method: "POST", path: "/api/audit/get-audit-events", body: `{"data":[{}]}`, status: 200},
	{method: "POST", path: "/oauth/token", body: "grant_type=client_credentials", status: 200}, // from the token stub
	{method: "HEAD", path: "/kind/head", fault: &simulator.Fault{Status: 200, Body: "unsent"}, status: 200},
	{method: "PATCH", path: "/kind/204", fault: &simulator.Fault{Status: 204}, status: 204},
	{method: "GET", path: "/kind/302", fault: &simulator.Fault{Status: 302, Header: map[string]string{"Location": "/"}}, status: 302},
	{method: "GET", path: "/kind/early403", fault: &simulator.Fault{Status: 403, Hints: map[string]string{"Link": hint}}, status: 403},
	{method: "GET", path: "/kind/early", fault: &simulator.Fault{Status: 200, Hints: map[string]string{"Link": hint}}, status: 200},
	{method: "PUT", path: "/kind/401", body: "x", fault: &simulator.Fault{Status: 401, Body: refused}, status: 401},
	{method: "GET", path: "/kind/404", fault: &simulator.Fault{Status: 404}, status: 404},
	{method: "BREW", path: "/kind/405", fault: &simulator.Fault{Status: 405}, status: 405},
	{method: "POST", path: "/kind/429", fault: &simulator.Fault{Status: 429}, status: 429},
	{method: "DELETE", path: "/kind/500", fault: &simulator.Fault{Status: 500}, status: 500},
	{method: "POST", path: "/kind/reset", fault: &simulator.Fault{Cut: simulator.CutRequest}, status: 502},
	{method: "GET", path: "/kind/short", fault: &simulator.Fault{Status: 200, Size: 9000, Body: "x", Cut: simulator.CutShort, CutAfter: 5000}, status: 200, aborted: "upstream"},
	{method: "GET", path: "/kind/cut", fault: &simulator.Fault{Status: 500, Size: 9000, Body: "x", Cut: simulator.CutBody, CutAfter: 5000}, status: 500, aborted: "upstream"},
	{method: "GET", path: "/elsewhere", status: 403},
	{method: "GET", path: "/kind/host", header: map[string]string{"Host": "evil.example"}, status: 403},
	{method: "GET", path: "/kind/origin", header: map[string]string{"Origin": "https://evil.example"}, status: 403},
	{method: "GET", path: "/kind/a/%2e%2e/b", status: 400},
	{method: "GET", path: "/kind/upgrade", header: map[string]string{"Upgrade": "websocket", "Connection": "Upgrade"}, status: 501},
	{method: "GET", path: "/kind/left", fault: &simulator.Fault{Hints: map[string]string{"Link": hint}, Delay: simulator.Forever}, status: 499, aborted: "client", do: leaveBeforeTheAnswer},
	{method: "GET", path: "/kind/leave", fault: &simulator.Fault{Status: 200, Body: "x", Size: simulator.Endless}, status: 200, aborted: "client", do: leaveAmidTheAnswer},
	{method: "POST", path: "/kind/half", body: "Content-Length: 10\r\n\r\nhalf", status: 400, do: sendBroken},
	{method: "POST", path: "/kind/chunks", body: "Transfer-Encoding: chunked\r\n\r\nno size\r\n", status: 400, do: sendBroken},
}

// armKinds injects the fault of each kind.
func armKinds(sim *simulator.Server) {
	for _, k := range kinds {
		if k.fault != nil {
			f := *k.fault
			f.Path = k.path
			sim.AddFault(f)
		}
	}
}

// tally counts by sample of /metrics.
type tally struct {
	mu sync.Mutex
	of map[string]float64
}

func (c *tally) add(name string, labels ...string) {
	var b strings.Builder
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(&b, ",%s=%q", labels[i], labels[i+1])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of["mimecast_proxy_"+name+"{"+strings.TrimPrefix(b.String(), ",")+"}"]++
}

// count records what the sender of a request saw.
func (c *tally) count(k *kind, status int, denied string) {
	method, code := k.method, strconv.Itoa(status)
	if method == "BREW" {
		method = "other"
	}
	c.add("requests_total", "code", code, "method", method)
	if k.aborted != "" {
		c.add("requests_aborted_total", "by", k.aborted)
	}
	// Requests that the guard rejects do not reach Mimecast and have no route.
	refused := denied != "" && !slices.Contains([]event.Code{event.UpstreamReset, event.BadRequestBody, event.ClientGone}, event.Code(denied))
	if refused {
		c.add("requests_denied_total", "reason", denied)
	}
	route := "other"
	for _, r := range []string{"/kind/", "/identity/", "POST /api/"} {
		if !refused && strings.Contains(k.method+" "+k.path, r) {
			route = r
		}
	}
	c.add("route_requests_total", "code", code, "route", route)
}

// families are the metrics whose samples must all equal the clients' counts.
var families = []string{"requests_total{", "requests_aborted_total{", "requests_denied_total{", "route_requests_total{"}

// counted returns the proxy's counts without zeros.
func counted(t *testing.T, p *program.Program) map[string]float64 {
	got := map[string]float64{}
	for sample, v := range p.Metrics() {
		for _, family := range families {
			if v != 0 && strings.HasPrefix(sample, "mimecast_proxy_"+family) {
				got[sample] = v
			}
		}
	}
	return got
}

// logged returns the number of requests that the lines of a log stand for.
func logged(text string) (requests int) {
	for raw := range strings.Lines(text) {
		var line struct {
			Msg        string
			Suppressed int
		}
		if json.Unmarshal([]byte(raw), &line) == nil && line.Msg == "request" {
			requests += 1 + line.Suppressed
		}
	}
	return requests
}

// send sends one request of the kind and reads the response to its end. The response must
// be complete unless the kind is aborted.
func send(t *testing.T, p *program.Program, k *kind) (status int, denied string, err error) {
	if k.do != nil {
		return k.do(t, p, k)
	}
	req, err := http.NewRequestWithContext(t.Context(), k.method, p.URL+k.path, strings.NewReader(k.body))
	if err != nil {
		return 0, "", err
	}
	for name, v := range k.header {
		req.Header.Set(name, v)
	}
	if host := k.header["Host"]; host != "" {
		req.Host = host
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	if (err != nil) != (k.aborted != "") {
		return 0, "", fmt.Errorf("%d, and then: %w", res.StatusCode, err)
	}
	return res.StatusCode, res.Header.Get(problem.Header), nil
}

// leaveBeforeTheAnswer cancels the request at the early hints, which show that it has
// reached Mimecast.
func leaveBeforeTheAnswer(t *testing.T, p *program.Program, k *kind) (int, string, error) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		leave()
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, k.method, p.URL+k.path, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := p.Client.Do(req)
	if err == nil {
		res.Body.Close()
		return 0, "", fmt.Errorf("answered with %d", res.StatusCode)
	}
	if !errors.Is(err, context.Canceled) {
		return 0, "", err
	}
	return k.status, "", nil // nobody receives the 499
}

// leaveAmidTheAnswer closes the connection after the first bytes of an endless response.
func leaveAmidTheAnswer(t *testing.T, p *program.Program, k *kind) (int, string, error) {
	req, err := http.NewRequestWithContext(t.Context(), k.method, p.URL+k.path, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return 0, "", err
	}
	_, err = io.ReadFull(res.Body, make([]byte, 100))
	return res.StatusCode, "", errors.Join(err, res.Body.Close())
}

// sendBroken sends a body that is shorter than announced or malformed.
func sendBroken(_ *testing.T, p *program.Program, k *kind) (int, string, error) {
	conn, err := net.Dial("tcp", p.Listen)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s", k.method, k.path, k.body)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header.Get(problem.Header), nil
}

func TestCountersEqualWhatTheClientCounted(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	armKinds(sim)
	p := program.Serve(t, sim, "PROXY_ALLOW=/kind/,/identity/,POST /api/", "PROXY_LOG_LEVEL=info")
	seen := &tally{of: map[string]float64{}}
	sent := sendAll(t, p, seen)
	program.Await(t, "counters that are equal", func() bool { return maps.Equal(seen.of, counted(t, p)) || t.Failed() })
	for _, all := range []map[string]float64{seen.of, counted(t, p)} {
		for sample := range all {
			if got := p.Metric(sample); got != seen.of[sample] {
				t.Errorf("%s is %v, the clients counted %v", sample, got, seen.of[sample])
			}
		}
	}
	countElsewhere(t, p, sim, sent)
	t.Logf("%d requests of %d kinds, %d token requests; each of %d counters equal", sent, len(kinds), sim.TokenRequests(), len(seen.of))
}

// sendAll sends requests of all kinds in turn and returns their number.
func sendAll(t *testing.T, p *program.Program, seen *tally) (sent int) {
	interval, n := time.Duration(0), 25*len(kinds)
	if *countingFor > 0 {
		interval, n = 10*time.Millisecond, int(*countingFor/(10*time.Millisecond))
	}
	slots := make(chan struct{}, 50)
	var clients sync.WaitGroup
	for began := time.Now(); sent < n; sent++ {
		time.Sleep(time.Until(began.Add(time.Duration(sent) * interval)))
		k := kinds[sent%len(kinds)]
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			status, denied, err := send(t, p, k)
			if err != nil || status != k.status {
				t.Errorf("%s %s: %d %v", k.method, k.path, status, err)
			}
			seen.count(k, status, denied)
		})
	}
	clients.Wait()
	return sent
}

// countElsewhere compares the number of requests with the histogram, the log, the status,
// and the outcomes of each 401.
func countElsewhere(t *testing.T, p *program.Program, sim *simulator.Server, sent int) {
	t.Helper()
	var refusals, ended float64
	for sample, v := range p.Metrics() {
		switch {
		case strings.HasPrefix(sample, `mimecast_proxy_requests_total{code="401"`):
			refusals += v
		case strings.HasPrefix(sample, "mimecast_proxy_unauthorized_retries_total{"):
			ended += v
		case strings.Contains(sample, `"other"`) && v != 0 && !strings.Contains(sample, `method="other"`) && !strings.Contains(sample, `route="other"`):
			t.Errorf("%s is %v: a label that telemetry does not know", sample, v)
		}
	}
	if refusals == 0 || refusals != ended {
		t.Errorf("%v answers were 401, of %v it is counted how they ended", refusals, ended)
	}
	if n := p.Metric("mimecast_proxy_request_duration_seconds_count"); int(n) != sent || p.Metric("mimecast_proxy_requests_in_flight") != 0 {
		t.Errorf("%v durations, %d requests, %v in flight", n, sent, p.Metric("mimecast_proxy_requests_in_flight"))
	}
	var status struct{ Total int }
	res, err := p.Client.Get(p.AdminURL + "/api/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil || status.Total != sent {
		t.Errorf("the status says %d, %v", status.Total, err)
	}
	p.Stderr.Await(t, "as many lines", func(text string) bool { return logged(text) == sent })
	if n := p.Metric(`mimecast_proxy_token_requests_total{outcome="ok",trigger="startup"}`) + p.Metric(`mimecast_proxy_token_requests_total{outcome="ok",trigger="unauthorized"}`); int(n) != sim.TokenRequests() {
		t.Errorf("%v token requests counted, Mimecast saw %d", n, sim.TokenRequests())
	}
}
