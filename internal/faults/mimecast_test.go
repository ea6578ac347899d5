package faults_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/http2"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/relay"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

const (
	accessLine  = "the request line with `error`"
	nextRequest = "with the next request"
	untouched   = "the response, unchanged"
	unknownEnd  = "502 `upstream_reset`: Mimecast may have carried it out"
)

var mimecastRows = []row{
	{"refuses connections", "502 `upstream_unreachable`", accessLine, nextRequest, refusesConnections, ""},
	{"its name cannot be resolved", "502 `upstream_unreachable`, which names DNS", accessLine, nextRequest, noName, ""},
	{"certificate expired", "502 `upstream_tls`, which names the clock", accessLine, "after its renewal", badCertificate(simulator.CertificateExpired, "expired"), ""},
	{"certificate for another host", "502 `upstream_tls`, which names the mismatch", accessLine, "after its correction", badCertificate(simulator.CertificateOtherHost, "another name"), ""},
	{"certificate of an unknown authority", "502 `upstream_tls`, which names `MIMECAST_CA_FILE`", accessLine, "within 2 s after the file has the right roots", unknownAuthority, ""},
	{"reset before the response", "a GET is resent: 200; a write: " + unknownEnd, accessLine, nextRequest, lostBefore(relay.Reset, 0), ""},
	{"reset within the headers", "a GET is resent: 200; a write: " + unknownEnd, accessLine, nextRequest, lostBefore(relay.Reset, 20), ""},
	{"reset within the body", "a body that ends with an error and never looks complete", "`aborted` is `upstream`; `requests_aborted_total{by=\"upstream\"}`", nextRequest, cutBody(relay.Reset), ""},
	{"closed within the body", "a body that ends with an error and never looks complete", "`aborted` is `upstream`; `requests_aborted_total{by=\"upstream\"}`", nextRequest, cutBody(relay.Close), ""},
	{"slow headers", "504 `upstream_timeout` after `PROXY_RESPONSE_TIMEOUT`", accessLine, nextRequest, slowHeader, ""},
	{"slow body", "the whole response, however long it takes", "`duration_ms`", nextRequest, slowBody, ""},
	{"responds before it has read the body", untouched + "; the connection is closed. Over HTTP/1.1 Mimecast's reset may arrive before its response: 502 `upstream_reset`", "the request line", nextRequest, earlyAnswer, ""},
	{"401 once", "200: the proxy renews the token and resends", "`retried` is true; `unauthorized_retries_total{outcome=\"recovered\"}`", "at once", once401("401-expired"), ""},
	{"401 once, with HTML", "200: the proxy renews the token and resends", "`retried` is true; `unauthorized_total{reason=\"other\"}`", "at once", once401("401-html"), ""},
	{"401 with every token", untouched, "`unauthorized_retries_total{outcome=\"still_unauthorized\"}`; one token request in 10 s", "when Mimecast recovers", nil, "main.Test401ThatAFreshTokenDoesNotCureCostsLittle"},
	{"401 before a large body was sent", "200: `Expect: 100-continue` lets the 401 arrive in time", "`unauthorized_retries_total{outcome=\"recovered\"}`", "at once", nil, "main.TestUploadsUnderAtAndOverTheLimitSurviveARevocation"},
	{"401 at the end of a 1 GiB upload", untouched + ": the body was not kept", "`unauthorized_retries_total{outcome=\"not_replayable\"}`", "with the next request, which has a new token", lateRefusal, ""},
	{"403, 404, 418", untouched + "; no renewal", "the request line", "when Mimecast recovers", passed(403, 404, 418), ""},
	{"500, 502, 503, 504", untouched + "; no renewal, no resend", "the request line", "when Mimecast recovers", passed(500, 502, 503, 504), ""},
	{"HTTP/1.1: idle connection reset as a request is sent", "a GET: 200; a write: " + unknownEnd, accessLine, nextRequest, staleConnection(true, relay.Reset), ""},
	{"HTTP/1.1: idle connection closed as a request is sent", "a GET: 200; a write: " + unknownEnd, accessLine, nextRequest, staleConnection(true, relay.Close), ""},
	{"HTTP/2: idle connection reset as a request is sent", "a GET: 200; a write: " + unknownEnd, accessLine, nextRequest, staleConnection(false, relay.Reset), ""},
	{"HTTP/2: idle connection closed as a request is sent", "a GET: 200; a write: " + unknownEnd, accessLine, nextRequest, staleConnection(false, relay.Close), ""},
	{"HTTP/2: GOAWAY", "200: the proxy resends unprocessed requests", "nothing", "at once", goAway, ""},
	{"HTTP/2: GOAWAY, REFUSED_STREAM and PROTOCOL_ERROR under a write", "200 if Mimecast reports it as unprocessed, else " + unknownEnd, accessLine, nextRequest, unprocessed, ""},
	{"HTTP/2: closes each new connection with GOAWAY and no error", "502 `upstream_reset` or `upstream_unreachable`", accessLine + "; at most 10 dials a second", nextRequest, turnsAway, ""},
	{"HTTP/2: a burst of 1,000 requests", "200 for all, over at most 150 connections", "`requests_in_flight`", "at once", burst, ""},
	{"HTTP/2: connection goes silent", "after 25 s a GET is resent: 200; a write: " + unknownEnd, accessLine, "after 25 s", silent, ""},
}

// closedPort returns an address at which nothing listens, and a function that starts a
// relay to a world there.
func closedPort(t *testing.T) (address string, relayTo func(*world)) {
	t.Helper()
	// Choose a port below the ephemeral range, which concurrent tests use.
	for address == "" {
		at := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", at); err == nil {
			l.Close()
			address = at
		}
	}
	return address, func(w *world) {
		r, err := relay.StartAt(address, strings.TrimPrefix(w.sim.URL, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
	}
}

func refusesConnections(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	address, relayTo := closedPort(t)
	p := w.serve(t, "MIMECAST_BASE_URL=https://"+address)
	p.says(p.whoami(), http.StatusBadGateway, event.UpstreamUnreachable)
	p.logs(`"msg":"request"`, `"status":502`, "upstream_unreachable", "refused")
	p.counts(`requests_total{code="502",method="GET"}`, 1)
	relayTo(w)
	p.fine()
}

// nowhere makes this process use a DNS server that knows no names.
func nowhere() (end func(), err error) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
			if answer, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return func() { c.Close(); <-done }, nil
}

func noName(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "MIMECAST_BASE_URL=https://nothing.example")
	a := p.whoami()
	p.says(a, http.StatusBadGateway, event.UpstreamUnreachable)
	if !strings.Contains(a.body, "DNS") {
		t.Errorf("%v", a)
	}
	p.logs(`"msg":"request"`, `"status":502`, "no such host")
}

// badCertificate has a Mimecast with a bad certificate; tokens come from another one.
func badCertificate(c simulator.Certificate, phrase string) func(*testing.T) {
	return func(t *testing.T) {
		tokens := newWorld(t, simulator.Options{})
		w := newWorld(t, simulator.Options{Certificate: c})
		w.sim.CA = append(w.sim.CA, tokens.sim.CA...)
		p := w.serve(t, "MIMECAST_TOKEN_URL="+tokens.sim.URL+"/oauth/token")
		a := p.whoami()
		p.says(a, http.StatusBadGateway, event.UpstreamTLS)
		if !strings.Contains(a.body, phrase) {
			t.Errorf("%v", a)
		}
		p.logs(`"msg":"request"`, `"status":502`, "upstream_tls")
	}
}

// unknownAuthority has a Mimecast whose certificate authority is not trusted until it is
// added to the file.
func unknownAuthority(t *testing.T) {
	w, other := newWorld(t, simulator.Options{}), newWorld(t, simulator.Options{})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	put(t, roots, string(w.sim.CA))
	// The other Mimecast responds with 401, because it did not issue the token.
	p := w.serve(t, "MIMECAST_BASE_URL="+other.sim.URL, "MIMECAST_CA_FILE="+roots)
	a := p.whoami()
	p.says(a, http.StatusBadGateway, event.UpstreamTLS)
	if !strings.Contains(a.body, "MIMECAST_CA_FILE") {
		t.Errorf("%v", a)
	}
	p.logs(`"msg":"request"`, `"status":502`, "upstream_tls")
	put(t, roots, string(w.sim.CA)+string(other.sim.CA))
	program.Await(t, "trust", func() bool { return p.whoami().code == "" })
}

// turnAway reports over HTTP/2 that no request on the connection was processed.
func turnAway(c *tls.Conn) {
	_ = c.SetDeadline(time.Now().Add(program.Patience))
	f := http2.NewFramer(c, c)
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil || f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if _, ok := frame.(*http2.HeadersFrame); ok {
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil) // the client may have disconnected
			return
		}
	}
}

func turnsAway(t *testing.T) {
	suite.Slow(t)
	for _, method := range []string{"GET", "POST"} {
		tokens, a := newWorld(t, simulator.Options{}), peer.ServeTLS(t, []string{"h2"}, turnAway)
		tokens.sim.CA = append(tokens.sim.CA, a.CA...)
		p := tokens.serve(t, "MIMECAST_BASE_URL="+a.URL.String())
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // the clients' timeout
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if got := p.do(ctx, method, "/identity/whoami", nil); got.err == nil && (got.status != 502 || got.code != string(event.UpstreamReset) && got.code != string(event.UpstreamUnreachable)) {
					t.Errorf("%s: %v", method, got)
				}
			})
		}
		all.Wait()
		cancel()
		took := time.Since(began)
		if n := a.Accepted.Load(); n == 0 || float64(n) > 10*(took.Seconds()+1) {
			t.Errorf("%s: %d dials in %v", method, n, took)
		}
	}
}

// unprocessed makes Mimecast end a write in each way.
func unprocessed(t *testing.T) {
	for name, end := range peer.Endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var strike atomic.Bool
			mimecast := peer.ServeFrames(t, func(f *peer.Frames, c *peer.FrameConn, stream uint32) {
				if strike.CompareAndSwap(true, false) {
					end.Write(f, c, stream)
				} else {
					c.Respond(f, stream)
				}
			})
			tokens := newWorld(t, simulator.Options{})
			tokens.sim.CA = append(tokens.sim.CA, mimecast.CA...)
			p := tokens.serve(t, "MIMECAST_BASE_URL="+mimecast.URL.String())
			p.says(p.get("/api"), 200, "") // opens the connection
			mimecast.Requests.Store(0)
			strike.Store(true)
			status, code := 200, event.Code("")
			if end.CarriedOut {
				status, code = http.StatusBadGateway, event.UpstreamReset
			}
			p.says(p.post("/api", "x"), status, code)
			if n := mimecast.Requests.Load(); n != 1 {
				t.Errorf("carried out %d times", n)
			}
			p.says(p.get("/api"), 200, "")
		})
	}
}

func burst(t *testing.T) {
	suite.Slow(t)
	const n = 1000
	w := newWorld(t, simulator.Options{RequestLog: -1})
	p := w.serve(t)
	w.sim.AddFault(simulator.Fault{Path: "/_simulator/", Delay: 300 * time.Millisecond})
	before := w.relay.Accepted()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if a := p.get(fmt.Sprintf("/_simulator/echo?n=%d", i)); a.status != 200 || a.err != nil {
				t.Errorf("%v", a)
			}
		})
	}
	all.Wait()
	if opened := w.relay.Accepted() - before; opened > 150 {
		t.Errorf("%d connections for a burst of %d requests", opened, n)
	}
}

// release releases a message from the hold queue.
func (w *world) release(p *proxy, i int) answer {
	return p.post("/api/gateway/hold-release", fmt.Sprintf(`{"data":[{"id":%q}]}`, w.sim.HeldID(i)))
}

func (w *world) released(i int) int { return w.sim.Executions("hold-release")[w.sim.HeldID(i)] }

// lostBefore loses the connection before the response or after bytes of it. Mimecast has
// already executed the request.
func lostBefore(do relay.Action, after int64) func(*testing.T) {
	return func(t *testing.T) {
		for _, http1 := range []bool{true, false} {
			w := newWorld(t, simulator.Options{HTTP1Only: http1})
			p := w.serve(t)
			p.fine()
			w.relay.Set(relay.Fault{Direction: relay.Down, After: after, Do: do, Count: 1})
			p.fine()
			w.lose(p, relay.Fault{Direction: relay.Down, After: after, Do: do, Count: 1})
			p.logs(`"msg":"request"`, `"status":502`, "upstream_reset")
			w.relay.Clear()
			p.says(w.release(p, 0), 200, "")
			if w.released(0) != 1 {
				t.Error("not carried out")
			}
		}
	}
}

// lose makes writes until a network fault hits one. The fault may first hit HTTP/2 frames
// between two requests.
func (w *world) lose(p *proxy, f relay.Fault) {
	p.t.Helper()
	for i := 1; i < 100; i++ {
		w.relay.Set(f)
		a := w.release(p, i)
		if n := w.released(i); n > 1 || a.status == 200 && n != 1 {
			p.t.Errorf("%v, carried out %d times", a, n)
		}
		if a.status != 200 {
			p.says(a, http.StatusBadGateway, event.UpstreamReset)
			return
		}
	}
	p.t.Error("no write was struck")
}

func cutBody(do relay.Action) func(*testing.T) {
	return func(t *testing.T) {
		for _, http1 := range []bool{true, false} {
			w := newWorld(t, simulator.Options{HTTP1Only: http1})
			p := w.serve(t)
			p.fine()
			w.relay.Set(relay.Fault{Direction: relay.Down, After: 200_000, Do: do, Count: 1})
			a := p.post("/api/archive/get-file?id=x&size=1MiB", "")
			if a.status != 200 || a.err == nil || len(a.body) >= 1<<20 {
				t.Errorf("%d bytes, %v", len(a.body), a.err)
			}
			p.logs(`"msg":"request"`, `"aborted":"upstream"`)
			p.counts(`requests_aborted_total{by="upstream"}`, 1)
			p.fine()
		}
	}
}

func slowHeader(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RESPONSE_TIMEOUT=4s")
	w.fault(t, "hang", once)
	p.says(p.whoami(), http.StatusGatewayTimeout, event.UpstreamTimeout)
	p.logs(`"msg":"request"`, `"status":504`)
	p.fine()
}

func slowBody(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RESPONSE_TIMEOUT=4s")
	w.sim.AddFault(simulator.Fault{Path: "/api/archive/", Pace: 120 * time.Millisecond})
	a := p.post("/api/archive/get-file?id=slow&size=40KiB", "")
	if n, err := simulator.Content("slow").Check(strings.NewReader(a.body)); a.err != nil || err != nil || n != 40<<10 {
		t.Errorf("%d bytes, %v, %v", n, a.err, err)
	}
}

func earlyAnswer(t *testing.T) {
	suite.Slow(t)
	for _, http1 := range []bool{true, false} {
		w := newWorld(t, simulator.Options{HTTP1Only: http1})
		p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB")
		w.fault(t, "413-early", at("/api/file/file-upload"))
		answered := 0
		for range 20 { // the rest of the body is still being sent
			c := p.raw("POST /api/file/file-upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
			sent := make(chan struct{})
			go func() { defer close(sent); _, _ = io.Copy(c, zeros(10_000_000)) }()
			a := p.read(reader(c), "POST")
			switch {
			case a.status == 413 && a.err == nil && strings.Contains(a.body, "request_too_large"):
				answered++
			case !http1 || a.code != string(event.UpstreamReset):
				t.Errorf("%v", a)
			}
			c.Close()
			<-sent
		}
		if answered == 0 {
			t.Error("no answer came through")
		}
		p.fine()
	}
}

func once401(name string) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, simulator.Options{})
		p := w.serve(t)
		w.fault(t, name, once)
		p.says(w.release(p, 1), 200, "")
		if w.released(1) != 1 || w.sim.TokenRequests() != 2 {
			t.Errorf("carried out %d times, %d token requests", w.released(1), w.sim.TokenRequests())
		}
		p.logs(`"msg":"request"`, `"retried":true`)
		p.counts(`unauthorized_retries_total{outcome="recovered"}`, 1)
	}
}

// zeros returns a stream of n zeros.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func lateRefusal(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{RequestLog: -1})
	p := spawn(t, w.environ(t), "").awaitServing().awaitReady()
	w.fault(t, "401", once)
	size := int64(share(1 << 30))
	req, err := http.NewRequest("POST", p.URL+"/api/file/file-upload", zeros(size))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	res, err := p.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 401 || !strings.Contains(string(body), "token_verification_failed") || res.Header.Get(problem.Header) != "" {
		t.Errorf("%d %s %v", res.StatusCode, body, err)
	}
	p.counts(`unauthorized_retries_total{outcome="not_replayable"}`, 1)
	if w.sim.TokenRequests() != 2 {
		t.Errorf("%d token requests", w.sim.TokenRequests())
	}
	p.fine()
	p.isOKSoon(p.Watcher())
}

func passed(statuses ...int) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, simulator.Options{})
		p := w.serve(t)
		for _, status := range statuses {
			before := w.sim.Counts().Requests
			w.sim.AddFault(simulator.Fault{Status: status, Code: "some_code", Message: "as it came", Header: map[string]string{"X-Request-Id": "theirs"}, Count: 1})
			a := w.release(p, status)
			if a.status != status || a.code != "" || !strings.Contains(a.body, "as it came") || a.header.Get("X-Request-Id") != "theirs" {
				t.Errorf("%v", a)
			}
			if n := w.sim.Counts().Requests - before; n != 1 || w.sim.TokenRequests() != 1 {
				t.Errorf("%d requests for one, %d token requests", n, w.sim.TokenRequests())
			}
		}
	}
}

// staleConnection loses the connection just as a request is sent on it. The request never
// arrives, but the proxy cannot know that.
func staleConnection(http1 bool, do relay.Action) func(*testing.T) {
	return func(t *testing.T) {
		suite.Slow(t)
		w := newWorld(t, simulator.Options{HTTP1Only: http1})
		p := w.serve(t)
		p.fine()
		w.relay.Set(relay.Fault{Direction: relay.Up, Do: do, Count: 1})
		p.fine() // only this GET is hit
		if w.relay.Hits() != 1 {
			t.Fatal("nothing was struck")
		}
		w.lose(p, relay.Fault{Direction: relay.Up, Do: do, Count: 1})
		w.relay.Clear()
		// Now lose idle connections. Whether or not the proxy notices in time, it must
		// not send a write twice.
		for i := 100; i < 140; i++ {
			p.fine()
			w.relay.Inject(do)
			a := w.release(p, i)
			if n := w.released(i); n > 1 || a.status == 200 && n != 1 || a.status != 200 && a.code != string(event.UpstreamReset) {
				t.Errorf("%v, carried out %d times", a, n)
			}
		}
		p.fine()
	}
}

func goAway(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	w.sim.AddFault(simulator.Fault{Header: map[string]string{"Connection": "close"}, Skip: 3})
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			if a := w.release(p, i); a.status != 200 || a.err != nil {
				t.Errorf("%v", a)
			}
		})
	}
	all.Wait()
	for i := range 60 {
		if n := w.released(i); n != 1 {
			t.Errorf("carried out %d times", n)
		}
	}
}

func silent(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	p.fine()
	w.relay.Set(relay.Fault{Direction: relay.Down, Do: relay.Stall, Count: 1})
	var both sync.WaitGroup
	both.Go(func() { p.fine() })
	both.Go(func() { p.says(w.release(p, 1), http.StatusBadGateway, event.UpstreamReset) })
	both.Wait()
	if n := w.released(1); n > 1 {
		t.Errorf("carried out %d times", n)
	}
	p.fine()
}

// sum returns the hash of content in the form that file-upload expects.
func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}
