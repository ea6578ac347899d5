package simulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func must(t *testing.T, name string) simulator.Fault {
	t.Helper()
	f, err := simulator.NamedFault(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFaultStrikesWhatItSaysAndNothingElse(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	status := func(method, target string) int {
		res, _ := r.do(r.request(method, target, nil))
		return res.StatusCode
	}
	id := r.AddFault(simulator.Fault{Path: "/identity/", Method: "GET", Skip: 1, Count: 2, Status: 503})
	var got []int
	for range 4 {
		got = append(got, status("GET", "/identity/whoami"), status("POST", "/identity/whoami"), status("GET", "/partner/v1/customers"))
	}
	if want := []int{200, 405, 200, 503, 405, 200, 503, 405, 200, 200, 405, 200}; !reflect.DeepEqual(got, want) {
		t.Errorf("statuses %v, not %v", got, want)
	}
	if n := len(r.Faults()); n != 0 {
		t.Errorf("%d faults wait after the count", n)
	}
	r.RemoveFault(id) // already removed

	id = r.AddFault(simulator.Fault{Status: 500})
	r.AddFault(simulator.Fault{Path: "/", Status: 502})
	if got := status("GET", "/identity/whoami"); got != 500 {
		t.Errorf("status %d: the first fault comes first", got)
	}
	if got, _ := r.fetch(form("a", "b")); got != 502 {
		t.Errorf("status %d: without a path the token endpoint is left alone, with / it is not", got)
	}
	if all := r.Faults(); len(all) != 2 || all[0].Hits != 1 {
		t.Errorf("faults %+v", all)
	}
	r.RemoveFault(id)
	if got := status("GET", "/identity/whoami"); got != 502 {
		t.Errorf("status %d after the first was removed", got)
	}
	r.ClearFaults()
	if got := status("GET", "/identity/whoami"); got != 200 {
		t.Errorf("status %d after all were removed", got)
	}
}

func TestFaultThatLetsPassLeavesTheNextItsTurn(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	r.AddFault(simulator.Fault{Skip: 1, Status: 500})
	r.AddFault(simulator.Fault{Status: 502})
	var got []int
	for range 3 {
		res, _ := r.get("/identity/whoami")
		got = append(got, res.StatusCode)
	}
	if want := []int{502, 500, 500}; !reflect.DeepEqual(got, want) {
		t.Errorf("statuses %v, not %v", got, want)
	}
}

func TestCountHoldsUnderConcurrency(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	r.AddFault(simulator.Fault{Count: 30, Status: 401})
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if res, _, err := r.try(r.request("GET", "/identity/whoami", nil)); err == nil && res.StatusCode == 401 {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if refused.Load() != 30 {
		t.Errorf("%d requests were refused, not 30", refused.Load())
	}
}

func TestTokenEndpointCanBeHostile(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		ask := func(name string) (*http.Response, string) {
			r.ClearFaults()
			r.AddFault(must(t, name))
			f := form(simulator.DefaultClientID, simulator.DefaultClientSecret)
			res, body := r.do(r.request("POST", "/oauth/token", strings.NewReader(f.Encode()), "Content-Type", "application/x-www-form-urlencoded"))
			return res, string(body)
		}
		for name, c := range map[string]struct {
			status int
			body   string
		}{
			"token-dead":            {503, `"code":"internal-error"`},
			"token-429":             {429, `"too_many_requests"`},
			"token-429-ms":          {429, `"too_many_requests"`},
			"token-slow":            {200, `"access_token"`},
			"token-refused":         {401, `"InvalidClientIdentifier"`},
			"token-refused-oauth":   {400, `"invalid_client"`},
			"token-fail":            {200, `{"fail":`},
			"token-html":            {200, "<html>"},
			"token-truncated":       {200, `{"access_token":"eyJhbGciOi`},
			"token-redirect":        {307, ""},
			"token-no-expiry":       {200, `"scope":"","token_type":"Bearer"}`},
			"token-string-expiry":   {200, `"expires_in":"1799"`},
			"token-zero-expiry":     {200, `"expires_in":0`},
			"token-negative-expiry": {200, `"expires_in":-1`},
			"token-huge-expiry":     {200, `"expires_in":1000000000000000`},
			"token-mac":             {200, `"token_type":"mac"`},
			"token-lowercase":       {200, `"token_type":"bearer"`},
			"token-crlf":            {200, `"access_token":"abc\r\nX-Injected: yes"`},
			"token-echo":            {400, "client_secret=" + simulator.DefaultClientSecret},
		} {
			res, body := ask(name)
			if res.StatusCode != c.status || !strings.Contains(body, c.body) {
				t.Errorf("%s: status %d, %s", name, res.StatusCode, body)
			}
		}
		if res, body := ask("token-no-expiry"); strings.Contains(body, "expires_in") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		if res, _ := ask("token-redirect"); res.Header.Get("Location") != r.URL+"/elsewhere/oauth/token" {
			t.Errorf("Location %q", res.Header.Get("Location"))
		}
		if res, _ := ask("token-429"); res.Header.Get("Retry-After") != "2" {
			t.Errorf("%v", res.Header)
		}
		if res, _ := ask("token-429-ms"); res.Header.Get("X-RateLimit-Reset") != "1500" {
			t.Errorf("%v", res.Header)
		}
		if n := r.TokenRequests(); n != 23 {
			t.Errorf("%d token requests were counted, not 23", n)
		}
	})
}

func TestTokenEndpointCanBeEndlessResetOrSilent(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ask := func(name string) (*http.Response, error) {
			r.ClearFaults()
			r.AddFault(must(t, name))
			return r.client.Do(r.request("POST", "/oauth/token", strings.NewReader("x"), "Content-Type", "text/plain").WithContext(ctx))
		}
		res, err := ask("token-endless")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, res.Body, 3<<20); err != nil {
			t.Errorf("the endless body ended after %d bytes: %v", n, err)
		}
		_ = res.Body.Close()
		if res, err := ask("token-reset"); err == nil {
			t.Errorf("status %d in place of a reset", res.StatusCode)
		}
		before := len(r.Requests())
		go func() {
			for len(r.Requests()) == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if res, err := ask("token-hang"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v in place of silence", res, err)
		}
	})
}

// release makes a write whose executions are counted.
func (r *rig) release(i int) *http.Request {
	return r.request("POST", "/api/gateway/hold-release", strings.NewReader(`{"data":[{"id":"`+r.HeldID(i)+`"}]}`))
}

func TestCutsBreakOffWhereTheySay(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		for i, c := range []struct {
			fault    simulator.Fault
			answered bool // a header arrived
			body     int  // bytes of the body
			executed int
		}{
			{simulator.Fault{Cut: simulator.CutRequest}, false, 0, 0},
			{simulator.Fault{Cut: simulator.CutAnswer}, false, 0, 1},
			{simulator.Fault{Cut: simulator.CutHeader}, true, 0, 1},
			{simulator.Fault{Cut: simulator.CutBody, CutAfter: 5}, true, 5, 1},
			{simulator.Fault{Cut: simulator.CutBody, CutAfter: 1 << 20}, true, -1, 1},
			{simulator.Fault{Cut: simulator.CutShort, CutAfter: 7}, true, 7, 1},
			{simulator.Fault{Cut: simulator.CutShort, CutAfter: 1 << 20}, true, -1, 1},
			{simulator.Fault{Cut: simulator.CutAnswer, Status: 500}, false, 0, 0},
			{simulator.Fault{Cut: simulator.CutBody, Status: 500, CutAfter: 3}, true, 3, 0},
		} {
			c.fault.Count = 1
			r.AddFault(c.fault)
			res, body, err := r.try(r.release(i))
			if err == nil {
				t.Errorf("%+v: the answer came whole: %d %s", c.fault, res.StatusCode, body)
			}
			if (res != nil) != c.answered || c.body >= 0 && len(body) != c.body {
				t.Errorf("%+v: answer %v, body %q, %v", c.fault, res, body, err)
			}
			if n := r.Executions("hold-release")[r.HeldID(i)]; n != c.executed {
				t.Errorf("%+v: executed %d times", c.fault, n)
			}
			if c.fault.Cut == simulator.CutShort && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v: %v", c.fault, err)
			}
		}
	})
}

func TestResetOverHTTP1IsOne(t *testing.T) {
	r := start(t, simulator.Options{HTTP1Only: true}).login()
	r.AddFault(must(t, "reset-request"))
	// The client does not retry a request with a body.
	_, _, err := r.try(r.release(0))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
}

func TestResponseCanComeBeforeTheBodyWasRead(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		for _, name := range []string{"401-early", "413-early"} {
			f := must(t, name)
			f.Count = 1
			r.AddFault(f)
			body, w := io.Pipe()
			go func() { _, _ = w.Write([]byte("the beginning")) }()
			res, _, err := r.try(r.request("POST", "/api/user/import-users", body))
			if err != nil || res.StatusCode != f.Status {
				t.Errorf("%s: %v, %v", name, res, err)
			}
			_ = w.Close()
			_ = body.Close()
		}
		if n := r.Executions("import-users"); len(n) != 0 {
			t.Errorf("executions %v", n)
		}
	})
}

func TestResponseCanComeAtTheEndOfAnUpload(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		const size = 3 << 20
		for _, refuse := range []func(){func() { r.AddFault(simulator.Fault{Status: 401, Count: 1}) }, func() { r.AddFault(simulator.Fault{Status: 401, Count: 1, Body: "<html>no</html>"}) }} {
			refuse()
			res, _ := r.do(r.request("POST", "/api/user/import-users", io.NewSectionReader(simulator.Content("x"), 0, size)))
			all := r.Requests()
			if got := all[len(all)-1]; res.StatusCode != 401 || got.BodyLength != size || got.BodySHA256 == "" {
				t.Errorf("status %d after %d bytes", res.StatusCode, got.BodyLength)
			}
		}
	})
}

func TestRejectionNeedsNoBodyFromWhoeverWaitsToSendIt(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
		body, w := io.Pipe() // never written to
		res, answer, err := r.try(r.request("POST", "/api/user/import-users", body, "Authorization", "Bearer x", "Expect", "100-continue"))
		if err != nil || res.StatusCode != 401 || code(decode(t, answer)) != "token_verification_failed" {
			t.Errorf("%v %v: %s", res, err, answer)
		}
		_ = w.Close()
	})
}

func TestDelayComesAfterTheFunctionWasCarriedOut(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		gate := make(chan struct{})
		r.AddFault(simulator.Fault{Until: gate, Count: 1})
		done := make(chan error, 1)
		go func() {
			_, _, err := r.try(r.release(0))
			done <- err
		}()
		eventually(t, "the message is released", func() bool { return r.Executions("hold-release")[r.HeldID(0)] == 1 })
		select {
		case err := <-done:
			t.Fatalf("answered before its time: %v", err)
		default:
		}
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}

		r.AddFault(simulator.Fault{Delay: 30 * time.Millisecond, Count: 1})
		began := time.Now()
		if _, _, err := r.try(r.release(1)); err != nil || time.Since(began) < 30*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}

		r.AddFault(simulator.Fault{Delay: simulator.Forever, Count: 1})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _, err := r.try(r.release(2).WithContext(ctx))
			done <- err
		}()
		eventually(t, "the message is released", func() bool { return r.Executions("hold-release")[r.HeldID(2)] == 1 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		eventually(t, "the simulator has noticed", func() bool { all := r.Requests(); return all[len(all)-1].Done })
	})
}

func TestBodyCanBeSlow(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login().AddFault(simulator.Fault{Pace: 10 * time.Millisecond, Count: 1})
		began := time.Now()
		res, err := r.client.Do(r.request("POST", "/api/archive/get-file?id=a&size=5KiB", nil))
		if err != nil {
			t.Fatal(err)
		}
		n, err := simulator.Content("a").Check(res.Body)
		_ = res.Body.Close()
		if took := time.Since(began); err != nil || n != 5<<10 || took < 50*time.Millisecond {
			t.Errorf("%d bytes in %v, %v", n, took, err)
		}
	})
}

func TestEarlyHintsComeBeforeTheResponse(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login().AddFault(must(t, "early-hints"))
		var got []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h["Link"]))
			return nil
		}}
		req := r.request("GET", "/identity/whoami", nil)
		res, _ := r.do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		if len(got) != 1 || got[0] != "103 [</style.css>; rel=preload]" || res.StatusCode != 200 || res.Header.Get("Link") != "" {
			t.Errorf("%v, then %d with %q", got, res.StatusCode, res.Header.Get("Link"))
		}
	})
}

func TestResponsesCanBearOddThings(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		ask := func(name string) (*http.Response, []byte) {
			r.ClearFaults()
			r.AddFault(must(t, name))
			return r.do(r.request("GET", "/identity/whoami", nil))
		}
		if res, _ := ask("trailers"); res.Trailer.Get("X-Checksum") != "0123abcd" {
			t.Errorf("trailers %v", res.Trailer)
		}
		if res, _ := ask("redirect"); res.StatusCode != 302 || res.Header.Get("Location") != r.URL+"/identity/whoami?moved=1" {
			t.Errorf("redirect %d %q", res.StatusCode, res.Header.Get("Location"))
		}
		if res, _ := ask("redirect-away"); !strings.HasPrefix(res.Header.Get("Location"), "https://elsewhere.example/") {
			t.Errorf("redirect %q", res.Header.Get("Location"))
		}
		if res, body := ask("cookie"); res.Header.Get("Set-Cookie") == "" || decode(t, body)["version"] == nil {
			t.Errorf("cookie %v %s", res.Header, body)
		}
		if res, _ := ask("huge-header"); len(res.Header.Get("X-Huge")) != 1<<20 {
			t.Errorf("a header of %d bytes", len(res.Header.Get("X-Huge")))
		}
		for name, status := range map[string]int{"502-html": 502, "401-html": 401} {
			if res, body := ask(name); res.StatusCode != status || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || !bytes.HasPrefix(body, []byte("<html>")) {
				t.Errorf("%s: %d %v %s", name, res.StatusCode, res.Header, body)
			}
		}
		if res, body := ask("429"); res.Header.Get("X-RateLimit-Reset") != "1500" || code(decode(t, body)) != "too_many_requests" {
			t.Errorf("429: %v %s", res.Header, body)
		}
		if _, body := ask("401-expired"); code(decode(t, body)) != "token_expired" {
			t.Errorf("401-expired: %s", body)
		}
		r.ClearFaults()
		r.AddFault(simulator.Fault{Status: 500, Size: 100_000})
		if _, body := r.do(r.request("GET", "/identity/whoami", nil)); len(body) != 100_000 || !json.Valid(body) {
			t.Errorf("a body of %d bytes", len(body))
		}
	})
}

func TestGoAwayEndsTheConnectionInPeace(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	r.AddFault(must(t, "goaway"))
	reused := func() bool {
		var again bool
		req := r.request("GET", "/identity/whoami", nil)
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { again = i.Reused }}
		res, _ := r.do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		if res.StatusCode != 200 || res.ProtoMajor != 2 {
			t.Errorf("status %d over %s", res.StatusCode, res.Proto)
		}
		return again
	}
	if !reused() {
		t.Error("the first request did not use the connection of the token request")
	}
	eventually(t, "the client takes another connection", func() bool { return !reused() })
}

func TestEveryNamedFaultSurvivesJSON(t *testing.T) {
	for _, name := range simulator.FaultNames() {
		f := must(t, name)
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(reparse(t, text)); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s became %s (%v)", text, again, err)
		}
	}
	if _, err := simulator.NamedFault("nonsense"); err == nil || !strings.Contains(err.Error(), "token-dead") {
		t.Errorf("%v", err)
	}
}

func reparse(t *testing.T, text []byte) simulator.Fault {
	t.Helper()
	f, err := simulator.ParseFault(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

func TestImpossibleFaultsAreRejected(t *testing.T) {
	for _, text := range []string{`{"status":42}`, `{"cut":"nowhere"}`, `{"early":true}`, `{"body":"x"}`, `{"delay":"soon"}`, `{"count":-1}`,
		`{"size":-2,"status":200}`, `{"nonsense":1}`, `{"name":"nonsense"}`, `[]`, `{`, `{"delay":"-1s"}`} {
		if f, err := simulator.ParseFault([]byte(text)); err == nil {
			t.Errorf("%s was taken as %+v", text, f)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("AddFault took a cut that there is not")
		}
	}()
	simulator.New(simulator.Options{}).AddFault(simulator.Fault{Cut: "nowhere"})
}
