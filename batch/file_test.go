package batch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/batch"
	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
	"mimecast-proxy/simulator"
)

// signed is the query of a presigned URL, which must not appear anywhere.
const signed = "?X-Amz-Signature=5161c7d3&a=%2F+b&c"

// contentHeaders sets a file's headers, and others that a client must not get.
func contentHeaders(h http.Header) {
	for name, value := range map[string]string{
		"Content-Type": "application/x-gzip", "Content-Encoding": "gzip", "Last-Modified": "Wed, 04 Mar 2026 15:06:30 GMT", "Etag": `"abc"`,
		"Set-Cookie": "a=b", "Access-Control-Allow-Origin": "*", "Location": "https://other.example/", "Server": "S3", "X-Amz-Request-Id": "1", "Alt-Svc": "h3",
		"Www-Authenticate": "Basic", "Strict-Transport-Security": "max-age=1", "Content-Disposition": "attachment", "Refresh": "0", "X-Mimecast-Proxy-Error": "x",
		"Content-Security-Policy": "x", "Link": "</x>", "Cache-Control": "public", "Proxy-Status": "x", "Retry-After": "9", "X-Request-Id": "theirs",
	} {
		h.Set(name, value)
	}
}

// gotHeaders returns the names of the headers that the client gets, except those from
// net/http.
func gotHeaders(h http.Header) []string {
	h = h.Clone()
	h.Del("Date")
	return slices.Sorted(maps.Keys(h))
}

func TestFileHasTheHostsContentAndNoMore(t *testing.T) {
	content := strings.Repeat("event\n", 100_000)
	files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		contentHeaders(w.Header())
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = io.WriteString(w, content)
	})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL + "/log%20a.json.gz" + signed)[0]
	want := []string{"Cache-Control", "Content-Encoding", "Content-Length", "Content-Type", "Etag", "Last-Modified", "X-Content-Type-Options"}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		res, body := r.do(method, address, "Authorization", "Bearer x", "Cookie", "a=b", "X-Mc-Accountcode", "C1", "User-Agent", clientID,
			"If-None-Match", `"abc"`, "If-Modified-Since", "Wed, 04 Mar 2099 15:06:30 GMT", "Accept-Encoding", "br", "X-Forwarded-For", "1.2.3.4", "Referer", "x", "Accept", "y", "Traceparent", "z")
		if wantBody := map[bool]string{true: content}[method == http.MethodGet]; body != wantBody || res.StatusCode != 200 || res.ContentLength != int64(len(content)) {
			t.Errorf("%s: %d, %d bytes", method, res.StatusCode, len(body))
		}
		if got := gotHeaders(res.Header); !slices.Equal(got, want) || res.Header.Get("Etag") != `"abc"` || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the client got %v", method, res.Header)
		}
		for _, q := range files.taken() {
			if q.Method != http.MethodGet || q.RequestURI != "/log%20a.json.gz"+signed || len(q.Header) != 1 || q.Header.Get("User-Agent") != "mimecast-proxy" {
				t.Errorf("%s: the host got %s %s %v", method, q.Method, q.RequestURI, q.Header)
			}
		}
	}
}

func TestNoTypeIsMadeUp(t *testing.T) {
	files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	})
	r := newRig(t, simulator.Options{}).serve()
	if res, body := r.get(r.list(files.URL)[0]); res.Header.Get("Content-Type") != "" || body != "<html>" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v %s", res.Header, body)
	}
}

func TestOnlyASingleRangeReachesTheHost(t *testing.T) {
	files := serveFiles(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL)[0]
	for _, c := range []struct {
		header         []string
		body, sent, cr string
	}{
		{[]string{"Range", "bytes=2-4"}, "234", "bytes=2-4", "bytes 2-4/10"},
		{[]string{"Range", "bytes=7-"}, "789", "bytes=7-", "bytes 7-9/10"},
		{[]string{"Range", "bytes=-2"}, "89", "bytes=-2", "bytes 8-9/10"},
		{[]string{"Range", "bytes=20-"}, "invalid range: failed to overlap\n", "bytes=20-", "bytes */10"},
		{[]string{"Range", "bytes=2-4", "If-Range", `"x"`}, "0123456789", "", ""},
		{[]string{"Range", "bytes=2-4,6-7"}, "0123456789", "", ""},
		{[]string{"Range", "bytes=2-4", "Range", "bytes=5-6"}, "0123456789", "", ""},
		{[]string{"Range", "bytes=-"}, "0123456789", "", ""},
		{[]string{"Range", "bytes= 1-2"}, "0123456789", "", ""},
		{[]string{"Range", "items=1-2"}, "0123456789", "", ""},
		{[]string{"Range", "bytes=1-2\tx"}, "0123456789", "", ""},
		{[]string{"Range", "bytes=1-2222222222222222222222"}, "0123456789", "", ""},
		{[]string{"Range", ""}, "0123456789", "", ""},
	} {
		res, body := r.get(address, c.header...)
		got := files.taken()
		if body != c.body || len(got) != 1 || got[0].Header.Get("Range") != c.sent || got[0].Header.Get("If-Range") != "" || res.Header.Get("Content-Range") != c.cr {
			t.Errorf("%q: %d %q %v, the host got %v", c.header, res.StatusCode, body, res.Header, got[0].Header)
		}
	}
}

// The simulator's host rejects any Authorization header, and expired URLs.
func TestExpiredURLGetsTheHostsOwn403(t *testing.T) {
	at := time.Date(2026, 3, 4, 15, 6, 30, 0, time.UTC)
	var r *rig
	r = newRig(t, simulator.Options{BlobTTL: time.Minute, Now: func() time.Time {
		if r == nil {
			return at
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return at
	}, TokenTTL: 1000 * time.Hour}).serve()
	_, body := r.get(listPath + "?type=receipt&pageSize=1")
	address := urls(t, body)[0]
	if res, _ := r.get(address); res.StatusCode != 200 {
		t.Fatalf("before: %d", res.StatusCode)
	}
	advance := func(d time.Duration) {
		r.mu.Lock()
		defer r.mu.Unlock()
		at = at.Add(d)
	}
	r.reported()
	advance(time.Minute)
	res, body := r.get(address)
	if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "Request has expired") || res.Header.Get("Content-Type") != "application/xml" || res.Header.Get(problem.Header) != "" {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
	if got := r.reported(); got != "[403] [] [request_refused]" {
		t.Errorf("reported was %s", got)
	}
	advance(8 * 24 * time.Hour)
	before := r.sim.Counts().BlobRequests
	if res, _ := r.get(address); res.Header.Get(problem.Header) != string(event.BatchURLInvalid) || r.sim.Counts().BlobRequests != before {
		t.Errorf("a week later: %d %v", res.StatusCode, res.Header)
	}
}

func TestStatusesOfTheHostPass(t *testing.T) {
	status := 0
	files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", "Basic")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "why")
	})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL)[0]
	for _, status = range []int{200, 206, 400, 401, 403, 404, 410, 416, 429, 500, 503} {
		res, body := r.get(address)
		if res.StatusCode != status || body != "why" || res.Header.Get("Www-Authenticate") != "" {
			t.Errorf("%d: %d %s", status, res.StatusCode, body)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	status, location := 0, ""
	files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "moved")
	})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL)[0]
	for _, location = range []string{files.URL + "/x", "/x", "http://169.254.169.254/latest/meta-data/", ""} {
		for _, status = range []int{300, 301, 302, 303, 307, 308, 304} {
			res, body := r.get(address)
			if res.StatusCode != http.StatusBadGateway || res.Header.Get("Location") != "" || strings.Contains(body, "moved") || res.Header.Get(problem.Header) != string(event.UpstreamUnreachable) {
				t.Errorf("%d: %d %v %s", status, res.StatusCode, res.Header, body)
			}
			if got := len(files.taken()); got != 1 {
				t.Fatalf("%d requests", got)
			}
		}
	}
}

func TestOnlyGETAndHEADDownload(t *testing.T) {
	files := serveFiles(t, func(http.ResponseWriter, *http.Request) {})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL)[0]
	r.reported()
	before := r.sim.Counts().Requests
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "PROPFIND"} {
		res, _ := r.do(method, address)
		if res.StatusCode != http.StatusForbidden || res.Header.Get(problem.Header) != string(event.RouteNotAllowed) {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	if n := len(files.taken()) + r.sim.Counts().Requests - before; n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if got := r.reported(); !strings.HasPrefix(got, "[] [route_not_allowed ") {
		t.Errorf("reported was %s", got)
	}
}

// Requests for URLs that the proxy did not seal reach neither a file's host nor Mimecast.
func TestOnlySealsOfTheAccountDownload(t *testing.T) {
	files := serveFiles(t, func(http.ResponseWriter, *http.Request) {})
	r := newRig(t, simulator.Options{}).serve()
	good := strings.TrimPrefix(r.list(files.URL)[0], r.proxy.URL)
	const ofList = batch.Path + "events/cg/"
	seal := strings.TrimPrefix(good, ofList)
	now := time.Now()
	before := r.sim.Counts().Requests
	for name, path := range map[string]string{
		"of another account": ofList + batch.Seal(t, "another account's secret", "events/cg", files.URL, time.Time{}, now),
		"expired":            ofList + batch.Seal(t, simulator.DefaultClientSecret, "events/cg", files.URL, time.Time{}, now.Add(-8*24*time.Hour)),
		"cut":                good[:len(good)-1],
		"longer":             good + "A",
		"padded":             good + "=",
		"escaped slash":      good + "%2F",
		"with a line end":    good + "%0A",
		"a segment more":     good + "/x",
		"a segment before":   batch.Path + "x/events/cg/" + seal,
		"another list name":  ofList + "x/" + seal,
		"of another list":    batch.Path + "events/ci/" + seal,
		"of no list":         batch.Path + seal,
		"none":               batch.Path,
		"the URL itself":     ofList + files.URL,
		"escaped URL":        ofList + url.PathEscape(files.URL),
		"in another case":    ofList + strings.ToLower(seal),
	} {
		res, body := r.get(path)
		if res.StatusCode != http.StatusForbidden || res.Header.Get(problem.Header) != string(event.BatchURLInvalid) || strings.Contains(body, "retryable\":true") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		if got := r.reported(); got != "[] [batch_url_invalid] []" {
			t.Errorf("%s: reported was %s", name, got)
		}
	}
	if n := len(files.taken()) + r.sim.Counts().Requests - before; n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if res, _ := r.get(good); res.StatusCode != 200 {
		t.Errorf("the good one: %d", res.StatusCode)
	}
}

func TestURLsSurviveARotationOfTheSecret(t *testing.T) {
	files := serveFiles(t, func(http.ResponseWriter, *http.Request) {})
	r := newRig(t, simulator.Options{}).serve()
	rotate := func(texts ...string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.secrets = nil
		for _, text := range texts {
			r.secrets = append(r.secrets, secret.New(text))
		}
	}
	first := r.list(files.URL)[0]
	rotate("the second secret", simulator.DefaultClientSecret)
	second := r.list(files.URL)[0]
	for _, address := range []string{first, second} {
		if res, _ := r.get(address); res.StatusCode != 200 {
			t.Errorf("after a rotation: %d", res.StatusCode)
		}
	}
	rotate("the third secret", "the second secret")
	if res, _ := r.get(first); res.StatusCode != http.StatusForbidden {
		t.Errorf("after two rotations: %d", res.StatusCode)
	}
	if res, _ := r.get(second); res.StatusCode != 200 {
		t.Errorf("the second: %d", res.StatusCode)
	}
}

// A truncated file must not look complete.
func TestFileThatIsCutIsCutForTheClient(t *testing.T) {
	for _, length := range []string{"1000", ""} {
		files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		r := newRig(t, simulator.Options{}).serve()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.list(files.URL)[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.proxy.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err == nil || string(body) != "begun" {
			t.Errorf("%q, %v", body, err)
		}
		res.Body.Close()
	}
}

// The limit is for hosts that send nothing, not for clients that read nothing.
func TestStalledFileEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, w := io.Pipe()
		body := batch.NewBody(t.Context(), host)
		go func() {
			for range 3 {
				time.Sleep(batch.StallTimeout - time.Second)
				_, _ = io.WriteString(w, "x")
			}
		}()
		b := make([]byte, 10)
		for range 3 {
			if n, err := body.Read(b); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			time.Sleep(2 * batch.StallTimeout) // the client reads slowly
		}
		began := time.Now()
		if n, err := body.Read(b); n != 0 || err == nil || !strings.Contains(err.Error(), "2m0s") {
			t.Error(n, err)
		}
		if took := time.Since(began); took != batch.StallTimeout {
			t.Errorf("it took %v", took)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestClientThatLeavesEndsTheDownload(t *testing.T) {
	gone := make(chan struct{})
	files := serveFiles(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	r := newRig(t, simulator.Options{}).serve()
	address := r.list(files.URL)[0]
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.proxy.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	res.Body.Close()
	<-gone
}

// A HEAD request does not download the rest of the file.
func TestHEADDownloadsNoFile(t *testing.T) {
	gone := make(chan struct{})
	files := serveFiles(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000000")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	r := newRig(t, simulator.Options{}).serve()
	if res, _ := r.do(http.MethodHead, r.list(files.URL)[0]); res.ContentLength != 1e9 {
		t.Errorf("%v", res.Header)
	}
	<-gone
}

func TestFailedDownloadsSayWhatToDo(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	untrusted := peer.ServeTLS(t, nil, func(c *tls.Conn) { _ = c.Handshake() })
	silent := serveFiles(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	garbage := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "SMTP 220 hello\r\n")
		_ = c.Close()
	})
	large := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Large", strings.Repeat("x", 1<<20)) })
	r := newRig(t, simulator.Options{})
	patient, hasty := r.options.Download, r.transport(batch.TransportOptions{AllowLoopback: always, ResponseTimeout: time.Millisecond})
	r.options.Download = roundTripper(func(q *http.Request) (*http.Response, error) {
		if "http://"+q.URL.Host == silent.URL {
			return hasty.RoundTrip(q)
		}
		return patient.RoundTrip(q)
	})
	r.serve()
	for name, c := range map[string]struct {
		url    string
		code   event.Code
		detail string
	}{
		"nobody listens":   {"http://" + closed.Addr().String(), event.UpstreamUnreachable, "firewall"},
		"not trusted":      {untrusted.URL.String(), event.UpstreamTLS, "MIMECAST_CA_FILE"},
		"no response":      {silent.URL, event.UpstreamTimeout, "in time"},
		"not HTTP":         {garbage.URL, event.UpstreamUnreachable, ""},
		"too large a head": {large.URL, event.UpstreamUnreachable, ""},
		"no URL":           {"http://a b/", event.UpstreamUnreachable, "rejected Mimecast's batch URL"},
		"no host":          {"x", event.UpstreamUnreachable, "rejected Mimecast's batch URL"},
	} {
		r.reported()
		res, body := r.get(r.list(c.url + signed)[0])
		if res.Header.Get(problem.Header) != string(c.code) || !strings.Contains(body, c.detail) || strings.Contains(body, "Amz") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		if got := r.reported(); got != fmt.Sprintf("[] [] [%s]", c.code) {
			t.Errorf("%s: reported was %s", name, got)
		}
	}
	if strings.Contains(r.errors.String(), "Amz") {
		t.Errorf("the log would have %s", r.errors.String())
	}
}

// If the proxy's shutdown causes an error response, its code says so.
func TestShutdownDuringADownloadIsToldApart(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  string
	}{
		{problem.New(event.ShuttingDown, "ending"), "[] [] [shutting_down]"},
		{errors.New("left"), "[] [] [client_gone]"},
	} {
		r := newRig(t, simulator.Options{}).serve()
		files := serveFiles(t, func(http.ResponseWriter, *http.Request) {})
		address := strings.TrimPrefix(r.list(files.URL)[0], r.proxy.URL)
		ctx, end := context.WithCancelCause(t.Context())
		r.options.Download = roundTripper(func(q *http.Request) (*http.Response, error) {
			end(c.cause)
			<-q.Context().Done()
			return nil, q.Context().Err()
		})
		r.reported()
		w := discardingWriter{http.Header{}}
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.handler().ServeHTTP(w, q)
		if got := r.reported(); got != c.want {
			t.Errorf("reported was %s, not %s", got, c.want)
		}
	}
}

type discardingWriter struct{ header http.Header }

func (w discardingWriter) Header() http.Header         { return w.header }
func (w discardingWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w discardingWriter) WriteHeader(int)             {}

func TestLargeFilesAreStreamedWhole(t *testing.T) {
	const size, at = 16 << 20, 4
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	files := serveFiles(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	want := sha256.New()
	for range size / len(block) {
		_, _ = want.Write(block)
	}
	r := newRig(t, simulator.Options{}).serve()
	addresses := r.list(slices.Repeat([]string{files.URL}, at)...)
	done := make(chan error)
	for _, address := range addresses {
		go func() {
			res, err := r.proxy.Client().Get(address)
			if err != nil {
				done <- err
				return
			}
			defer res.Body.Close()
			got := sha256.New()
			if _, err = io.Copy(got, res.Body); err == nil && !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				err = errors.New("another content")
			}
			done <- err
		}()
	}
	for range at {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
