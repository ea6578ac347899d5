package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const (
	gone      = "no response: it has disconnected"
	goneSigns = "499 at info, `aborted` is `client`"
	atOnce    = "at once; the proxy cancels its request to Mimecast"
)

var clientRows = []row{
	{"disconnects while it waits for a token", gone, goneSigns, "at once; the token request continues for others", leavesWaiting, ""},
	{"disconnects during an upload that is kept", gone + "; nothing reaches Mimecast", goneSigns, "at once", leavesUploading(32<<10, false), ""},
	{"disconnects during an upload that streams", gone + "; Mimecast sees a cut upload", goneSigns, atOnce, leavesUploading(10<<20, true), ""},
	{"disconnects while Mimecast works", gone, goneSigns, atOnce, leavesWorking, ""},
	{"disconnects during a download", gone, "`aborted` is `client`; `requests_aborted_total{by=\"client\"}`", atOnce, leavesDownloading, ""},
	{"half-closes the connection and waits", "no response: a half-closed connection counts as disconnected", goneSigns, atOnce, halfClose, ""},
	{"half-closes the connection during its body, and waits", "400 `bad_request_body`", "the request line with `error`", "at once", halfCloseWithinBody, ""},
	{"disconnects while the proxy renews a rejected token", gone, goneSigns, "at once; the renewal continues for others", leavesRenewing, ""},
	{"pauses during an upload that streams, and Mimecast responds", untouched + ", at once; the connection is closed", "the request line", "at once", pausesMeanwhile(false), ""},
	{"pauses during an upload that streams, and Mimecast resets", unknownEnd + ", at once", accessLine, "at once", pausesMeanwhile(true), ""},
	{"reads slowly", "the whole response; others are not delayed", "`duration_ms`", "at once", slowReader, ""},
	{"sends the next request before the response", "each response, in order", "one request line each", "at once", pipelining, ""},
	{"waits for 100 Continue", "one 100 if the body is wanted, else none", "the request line", "at once", expecting, ""},
	{"sends trailers", "200; Mimecast gets the body without them", "the request line", "at once", clientTrailers, ""},
	{"gets trailers", "the body and the trailers", "the request line", "at once", upstreamTrailers, ""},
	{"sends a malformed body", "400 `bad_request_body`", "the request line with `error`", "at once", malformedBody, ""},
	{"does not finish its headers", "its connection is closed after 10 s, sooner if there are many", "`process_open_fds`, `go_goroutines`", "at once", nil, "internal/hostile.TestUnfinishedHeadersHoldNothingPastTheTimeForThem"},
	{"300 clients do not finish their headers; the proxy may open 256 files", "200 for others, once those connections are closed", "`process_open_fds`", "after at most 10 s each", nil, "internal/hostile.TestUnfinishedHeadersLeaveDescriptorsForOthers"},
	{"does not read its responses, at SIGTERM", "a cut connection", "`requests were cut`; exit 1", "after `PROXY_SHUTDOWN_TIMEOUT`, at once at a second signal", nil, "internal/hostile.TestUnreadResponsesDoNotHoldUpTheShutdown"},
	{"1,000 clients announce a body and send nothing", "no response: the proxy waits for the bodies", "`replay_buffer_bytes` is 0", "when they disconnect", nil, "internal/hostile.TestSilentUploadsTakeNoMemoryForBodies"},
}

func reader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// idle waits until no request is in flight in the proxy and at Mimecast.
func (w *world) idle(p *proxy) {
	p.t.Helper()
	program.Await(p.t, "the end of all requests", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 0 && w.quiet() })
	if n := p.Metric("mimecast_proxy_replay_buffer_bytes"); n != 0 {
		p.t.Errorf("%v bytes of bodies are kept", n)
	}
}

// leave sends a request and cancels it once so returns true.
func (p *proxy) leave(path string, so func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	left := make(chan answer, 1)
	go func() { left <- p.do(ctx, "GET", path, nil) }()
	program.Await(p.t, "the request's arrival", so)
	cancel()
	if a := <-left; a.err == nil {
		p.t.Errorf("answered: %v", a)
	}
}

func leavesWaiting(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	give := make(chan struct{})
	w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Until: give, Count: 1})
	p := begin(t, w.environ(t)).awaitServing()
	p.leave("/identity/whoami", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 1 })
	program.Await(t, "the end of the request", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 0 })
	p.logs(`"status":499`, `"level":"info"`)
	close(give)
	p.awaitReady().fine()
	if n := w.sim.TokenRequests(); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func leavesUploading(size int, arrives bool) func(*testing.T) {
	return func(t *testing.T) {
		for _, http1 := range []bool{true, false} {
			w := newWorld(t, simulator.Options{HTTP1Only: http1})
			p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB")
			before := w.sim.Counts().Requests
			c := p.raw(fmt.Sprintf("POST /api/user/import-users HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", size))
			if _, err := io.CopyN(c, zero{}, int64(size/2)); err != nil {
				t.Fatal(err)
			}
			p.counts("requests_in_flight", 1)
			if arrives {
				program.Await(t, "the upload's arrival", func() bool { return w.sim.Counts().Requests > before })
			}
			c.Close()
			w.idle(p)
			p.logs(`"status":499`, `"aborted":"client"`)
			if n := w.sim.Counts().Requests - before; !arrives && n != 0 {
				t.Errorf("%d requests reached Mimecast", n)
			}
			if n := len(w.sim.Executions("import-users")); n != 0 {
				t.Errorf("%d uploads were taken for whole", n)
			}
			p.fine()
		}
	}
}

func leavesWorking(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		w := newWorld(t, simulator.Options{HTTP1Only: http1})
		p := w.serve(t)
		w.fault(t, "hang", once)
		before := w.sim.Counts().Requests
		p.leave("/identity/whoami", func() bool { return w.sim.Counts().Requests > before })
		w.idle(p)
		p.logs(`"status":499`, `"aborted":"client"`)
		p.fine()
	}
}

func leavesDownloading(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		w := newWorld(t, simulator.Options{HTTP1Only: http1})
		p := w.serve(t)
		res, err := p.Client.Post(p.URL+"/api/archive/get-file?id=x&size=1TiB", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, res.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		res.Body.Close() // closes the connection, because almost 1 TiB is left
		w.idle(p)
		p.logs(`"aborted":"client"`)
		p.counts(`requests_aborted_total{by="client"}`, 1)
		p.fine()
	}
}

// halfClose is a client that half-closes its connection when it leaves.
func halfClose(t *testing.T) {
	const get = "GET /identity/whoami HTTP/1.%d\r\nHost: localhost\r\n\r\n"
	for _, request := range []string{
		fmt.Sprintf(get, 1), fmt.Sprintf(get, 0),
		"POST /api/account/get-account HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n{\"data\":[]}",
		"POST /api/account/get-account HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"data\":[]}\r\n0\r\n\r\n",
	} {
		w := newWorld(t, simulator.Options{})
		p := w.serve(t)
		w.fault(t, "hang", once)
		before := w.sim.Counts().Requests
		c := p.raw(request)
		program.Await(t, "the request's arrival", func() bool { return w.sim.Counts().Requests > before })
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if a := p.read(reader(c), "GET"); a.status == 200 {
			t.Errorf("%.30q: %v", request, a)
		}
		w.idle(p)
		p.logs(`"status":499`, `"level":"info"`, `"aborted":"client"`)
		p.fine()
	}
}

func halfCloseWithinBody(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	c := p.raw("POST /api/user/import-users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n5byte")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.says(p.read(reader(c), "POST"), 400, "bad_request_body")
	p.logs(`"status":400`, "bad_request_body")
	if n := len(w.sim.Executions("import-users")); n != 0 {
		t.Errorf("%d uploads were taken for whole", n)
	}
	p.fine()
}

func leavesRenewing(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	w.sim.RevokeTokens()
	give := make(chan struct{})
	w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Until: give, Count: 1})
	p.leave("/identity/whoami", func() bool { return w.sim.TokenRequests() == 2 })
	program.Await(t, "the end of the request", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 0 })
	p.logs(`"status":499`, `"level":"info"`, `"aborted":"client"`)
	if n := p.Metric(`mimecast_proxy_unauthorized_retries_total{outcome="renewal_failed"}`); n != 0 {
		t.Errorf("%v renewals count as failed", n)
	}
	close(give)
	program.Await(t, "the recovery", func() bool { return p.whoami().status == 200 })
	if n := w.sim.TokenRequests(); n != 2 {
		t.Errorf("%d token requests", n)
	}
}

// pausesMeanwhile is a client that stops sending its body while Mimecast responds or breaks
// off. Mimecast has already begun to read the body.
func pausesMeanwhile(breaksOff bool) func(*testing.T) {
	return func(t *testing.T) {
		suite.Slow(t)
		for _, http1 := range []bool{true, false} {
			w := newWorld(t, simulator.Options{HTTP1Only: http1})
			p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB")
			answer := make(chan struct{})
			f := simulator.Fault{Path: "/api/file/file-upload", Status: 413, Code: "request_too_large", Early: true, Until: answer}
			if breaksOff {
				f.Cut = simulator.CutAnswer
			}
			w.sim.AddFault(f)
			before := w.sim.Counts().Requests
			c := p.raw("POST /api/file/file-upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
			if _, err := io.CopyN(c, zero{}, 100_000); err != nil {
				t.Fatal(err)
			}
			program.Await(t, "the upload's arrival", func() bool { return w.sim.Counts().Requests > before })
			time.Sleep(continueTimeout + time.Second/2) // by now the proxy forwards the body
			close(answer)
			a := p.read(reader(c), "POST")
			switch {
			case breaksOff:
				p.says(a, http.StatusBadGateway, event.UpstreamReset)
			case a.status == 413 && a.err == nil && strings.Contains(a.body, "request_too_large"):
			case !http1 || a.code != string(event.UpstreamReset):
				t.Errorf("%v", a)
			}
			c.Close()
			w.idle(p)
			p.fine()
		}
	}
}

// continueTimeout is how long the proxy waits for 100 Continue from Mimecast.
const continueTimeout = 2 * time.Second

func slowReader(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	res, err := p.Client.Post(fmt.Sprintf("%s/api/archive/get-file?id=slow&size=%d", p.URL, size), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a := p.post("/api/archive/get-file?id=quick&size=1MiB", "")
			if n, err := simulator.Content("quick").Check(strings.NewReader(a.body)); n != 1<<20 || err != nil {
				t.Errorf("%d bytes, %v, %v", n, err, a.err)
			}
		})
	}
	all.Wait()
	if n, err := simulator.Content("slow").Check(res.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func pipelining(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	var all strings.Builder
	for i := range 10 {
		body := strings.Repeat("x", i*1000)
		fmt.Fprintf(&all, "POST /_simulator/echo?n=%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
		fmt.Fprintf(&all, "GET /_simulator/echo?g=%d HTTP/1.1\r\nHost: localhost\r\n\r\n", i)
	}
	c := p.raw(all.String())
	from := reader(c)
	for i := range 10 {
		a, b := p.read(from, "POST"), p.read(from, "GET")
		if !strings.Contains(a.body, fmt.Sprintf("n=%d", i)) || !strings.Contains(a.body, sum([]byte(strings.Repeat("x", i*1000)))) || !strings.Contains(b.body, fmt.Sprintf("g=%d", i)) {
			t.Fatalf("answers %d: %v, %v", i, a, b)
		}
	}
}

func expecting(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB", "PROXY_ALLOW=POST /_simulator/")
	for _, size := range []int{10, 100_000} { // buffered, and streamed
		c := p.raw(fmt.Sprintf("POST /_simulator/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", size))
		from := reader(c)
		if a := p.read(from, "POST"); a.status != 100 {
			t.Fatalf("%d bytes: %v", size, a)
		}
		body := strings.Repeat("y", size)
		if _, err := io.WriteString(c, body); err != nil {
			t.Fatal(err)
		}
		if a := p.read(from, "POST"); a.status != 200 || !strings.Contains(a.body, sum([]byte(body))) {
			t.Errorf("%d bytes: %v", size, a)
		}
	}
	c := p.raw("POST /elsewhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
	p.says(p.read(reader(c), "POST"), 403, "route_not_allowed")
}

func clientTrailers(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	c := p.raw("POST /_simulator/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n3\r\nabc\r\n0\r\nX-Late: yes\r\nAuthorization: Bearer mine\r\n\r\n")
	a := p.read(reader(c), "POST")
	if a.status != 200 || !strings.Contains(a.body, sum([]byte("abc"))) || strings.Contains(a.body, "X-Late") || strings.Contains(a.body, "mine") {
		t.Errorf("%v", a)
	}
}

func upstreamTrailers(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		w := newWorld(t, simulator.Options{HTTP1Only: http1})
		p := w.serve(t)
		w.fault(t, "trailers")
		res, err := p.Client.Get(p.URL + "/identity/whoami")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !strings.Contains(string(body), "account-codes") || res.Trailer.Get("X-Checksum") != "0123abcd" {
			t.Errorf("%s %v %v", body, res.Trailer, err)
		}
	}
}

func malformedBody(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	before := w.sim.Counts().Requests
	c := p.raw("POST /api/user/import-users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n")
	p.says(p.read(reader(c), "POST"), 400, "bad_request_body")
	p.logs(`"status":400`, "bad_request_body")
	if n := w.sim.Counts().Requests - before; n != 0 {
		t.Errorf("%d requests reached Mimecast", n)
	}
}
