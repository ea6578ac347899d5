package faults_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/simulator"
)

// These tests check the requirements of RFC 9110 and RFC 9112 for intermediaries, in the
// bytes on both sides.

// wire is an upstream that records the bytes of each request and responds with fixed bytes,
// over TLS and HTTP/1.1.
type wire struct {
	*peer.TLS
	answer string

	mu  sync.Mutex
	got []string // requests, header and body
}

func newWire(t *testing.T, answer string) *wire {
	t.Helper()
	u := &wire{answer: answer}
	u.TLS = peer.ServeTLS(t, nil, func(c *tls.Conn) { u.serve(c) })
	return u
}

func (u *wire) serve(c net.Conn) {
	var seen bytes.Buffer
	from := bufio.NewReaderSize(io.TeeReader(c, &seen), 16)
	for {
		r, err := http.ReadRequest(from)
		if err != nil {
			return
		}
		if r.Header.Get("Expect") != "" {
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		_, _ = io.Copy(io.Discard, r.Body)
		// The reader has no bytes of the next request yet, because the proxy sends it only
		// after the response.
		u.mu.Lock()
		u.got = append(u.got, seen.String())
		seen.Reset()
		u.mu.Unlock()
		if _, err := io.WriteString(c, u.answer); err != nil || strings.Contains(u.answer, "Connection: close") {
			return
		}
	}
}

func (u *wire) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got
}

// before serves a proxy in front of u, with tokens from a simulator.
func (u *wire) before(t *testing.T, tokens *world, more ...string) *proxy {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(ca, append(u.CA, tokens.sim.CA...), 0o600); err != nil {
		t.Fatal(err)
	}
	return tokens.serve(t, append([]string{"MIMECAST_BASE_URL=" + u.URL.String(), "MIMECAST_CA_FILE=" + ca}, more...)...)
}

// all sends bytes and returns everything until the connection is closed, as text. The last
// request sent must ask for the close.
func (p *proxy) all(text string) string {
	p.t.Helper()
	c := p.raw(text)
	got, err := io.ReadAll(c)
	if err != nil {
		p.t.Errorf("%v after %q", err, got)
	}
	return string(got)
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestRequestsAsRFC9112Wants(t *testing.T) {
	t.Parallel()
	tokens := newWorld(t, simulator.Options{})
	u := newWire(t, ok)
	p := u.before(t, tokens)
	const host, last = "Host: localhost\r\n", "Connection: close\r\n\r\n"
	for _, c := range []struct {
		name, send string
		status     int
		has, not   []string // in what Mimecast got, ignoring case
	}{
		{"a plain request", "GET /a?b=[c] HTTP/1.1\r\n" + host + last, 200, []string{"get /a?b=[c] http/1.1\r\n"}, []string{"connection:", "via:", "x-forwarded", "user-agent"}},
		{"hop-by-hop headers stay behind", "GET / HTTP/1.1\r\n" + host + "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTrailer: X\r\nUpgrade-Insecure-Requests: 1\r\n" + last, 200, []string{"upgrade-insecure-requests: 1"}, []string{"keep-alive", "proxy-connection", "trailer:"}},
		{"what Connection names stays behind", "GET / HTTP/1.1\r\n" + host + "X-Hop: secret\r\nX-End: kept\r\nConnection: x-hop, close\r\n\r\n", 200, []string{"x-end: kept"}, []string{"x-hop", "connection:"}},
		{"Connection may be empty, and come twice", "GET / HTTP/1.1\r\n" + host + "X-Hop: secret\r\nX-Two: secret\r\nConnection: \r\nConnection: X-Hop\r\nConnection: x-two, close\r\n\r\n", 200, nil, []string{"secret", "connection:"}},
		{"Connection cannot take away what the proxy adds", "GET / HTTP/1.1\r\n" + host + "Connection: Authorization, Host, close\r\n\r\n", 200, []string{"authorization: bearer ", "host: "}, nil},
		{"TE: trailers may pass and nothing else of TE", "GET / HTTP/1.1\r\n" + host + "TE: trailers, deflate;q=0.5\r\nConnection: TE, close\r\n\r\n", 200, nil, []string{"deflate"}},
		{"the client's Via passes, and none is added", "GET / HTTP/1.1\r\n" + host + "Via: 1.0 fred\r\n" + last, 200, []string{"via: 1.0 fred\r\n"}, []string{"mimecast-proxy"}},
		{"repeated headers keep their order", "GET / HTTP/1.1\r\n" + host + "X-A: 1\r\nX-A: 2\r\nX-A: 3\r\n" + last, 200, []string{"x-a: 1\r\nx-a: 2\r\nx-a: 3\r\n"}, nil},
		{"chunk extensions end here", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n" + last + "5;ext=\"a;b\"\r\nhello\r\n0;last\r\n\r\n", 200, []string{"content-length: 5\r\n", "\r\n\r\nhello"}, []string{"ext"}},
		{"a known length stays one", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n" + last + "hello", 200, []string{"content-length: 5\r\n", "\r\n\r\nhello"}, []string{"transfer-encoding"}},
		{"an empty POST has a length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n" + last, 200, []string{"content-length: 0\r\n"}, []string{"transfer-encoding"}},
		{"a GET may have a body", "GET / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n" + last + "{}", 200, []string{"content-length: 2\r\n", "\r\n\r\n{}"}, nil},
		{"a folded header becomes one line", "GET / HTTP/1.1\r\n" + host + "X-Fold: a\r\n b\r\n" + last, 200, []string{"x-fold: a b\r\n"}, []string{"\r\n b"}},
		{"two equal lengths are one", "POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 2\r\n" + last + "ok", 200, []string{"content-length: 2\r\n"}, []string{"content-length: 2\r\ncontent-length"}},
		{"two lengths are none", "POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 3\r\n" + last + "okk", 400, nil, nil},
		{"a list of lengths is none", "POST / HTTP/1.1\r\n" + host + "Content-Length: 2, 2\r\n" + last + "ok", 400, nil, nil},
		{"a length and chunks never go on together", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" + last + "2\r\nok\r\n0\r\n\r\n", 0, nil, []string{"content-length: 3", "transfer-encoding"}},
		{"an unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n" + last, 501, nil, nil},
		{"bare LF ends a line as CR LF does", "GET / HTTP/1.1\nHost: localhost\nConnection: close\n\n", 200, []string{"get / http/1.1\r\n"}, nil},
		{"a bare LF ends no chunk", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n" + last + "2\nok\n0\n\n", 400, nil, nil},
		{"no Host", "GET / HTTP/1.1\r\n" + last, 400, nil, nil},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + last, 400, nil, nil},
		{"a blank before the colon", "GET / HTTP/1.1\r\n" + host + "X-A : 1\r\n" + last, 400, nil, nil},
		{"a NUL in a value", "GET / HTTP/1.1\r\n" + host + "X-A: a\x00b\r\n" + last, 400, nil, nil},
		{"an expectation that nobody knows", "POST / HTTP/1.1\r\n" + host + "Expect: the-unexpected\r\nContent-Length: 1\r\n" + last + "x", 417, nil, nil},
		{"TRACE would show the token", "TRACE / HTTP/1.1\r\n" + host + last, 403, nil, nil},
		{"OPTIONS goes on", "OPTIONS /a HTTP/1.1\r\n" + host + last, 200, []string{"options /a "}, nil},
		{"OPTIONS with Max-Forwards goes on with one less", "OPTIONS /a HTTP/1.1\r\n" + host + "Max-Forwards: 3\r\n" + last, 200, []string{"max-forwards: 2\r\n"}, nil},
		{"OPTIONS with Max-Forwards: 0 ends here", "OPTIONS /a HTTP/1.1\r\n" + host + "Max-Forwards: 0\r\n" + last, 204, nil, nil},
		{"Max-Forwards of another method passes", "GET / HTTP/1.1\r\n" + host + "Max-Forwards: 0\r\n" + last, 200, []string{"max-forwards: 0\r\n"}, nil},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n" + host + "\r\n", 200, []string{"get / http/1.1\r\n"}, nil},
		{"a version that is none", "GET / HTTP/3.7\r\n" + host + last, 505, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(u.requests())
			text := p.all(c.send)
			var status int
			if _, err := fmt.Sscanf(text, "HTTP/1.1 %d ", &status); err != nil {
				if _, err := fmt.Sscanf(text, "HTTP/1.0 %d ", &status); err != nil {
					t.Fatalf("%q: %v", text, err)
				}
			}
			if c.status != 0 && status != c.status {
				t.Errorf("got %.300q, want %d", text, c.status)
			}
			if strings.Count(text, "HTTP/1.") != 1 {
				t.Errorf("more than one answer: %q", text)
			}
			sent := u.requests()[before:]
			if reached := len(sent) == 1; reached != (status == 200) || len(sent) > 1 {
				t.Fatalf("status %d, and Mimecast got %d requests: %q", status, len(sent), sent)
			}
			if status != 200 {
				return
			}
			got := strings.ToLower(sent[0])
			for _, text := range c.has {
				if !strings.Contains(got, text) {
					t.Errorf("Mimecast did not get %q:\n%s", text, sent[0])
				}
			}
			for _, text := range c.not {
				if strings.Contains(got, text) {
					t.Errorf("Mimecast got %q:\n%s", text, sent[0])
				}
			}
			if strings.Count(got, "authorization:") != 1 {
				t.Errorf("Mimecast got %q", sent[0])
			}
		})
	}
}

func TestAnswersAsRFC9112Wants(t *testing.T) {
	t.Parallel()
	tokens := newWorld(t, simulator.Options{})
	const get, last = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "Connection: close\r\n\r\n"
	for _, c := range []struct {
		name, send, answer string
		has                []string // in what the client got
		not                []string
		end                string // of what the client got
	}{
		{"Date is Mimecast's", get, "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nContent-Length: 2\r\n" + last + "ok", []string{"Date: Mon, 01 Jan 2001 00:00:00 GMT\r\n"}, nil, "\r\n\r\nok"},
		{"Date is added where there is none", get, ok, []string{"\r\nDate: "}, nil, "ok"},
		{"Via passes", get, "HTTP/1.1 200 OK\r\nVia: 1.1 google\r\nContent-Length: 2\r\n" + last + "ok", []string{"Via: 1.1 google\r\n"}, []string{"mimecast-proxy"}, "ok"},
		{"hop-by-hop headers stay behind", get, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=77\r\nX-Hop: 1\r\nX-End: 2\r\nConnection: x-hop\r\nContent-Length: 2\r\n\r\nok", []string{"X-End: 2\r\n"}, []string{"timeout=77", "X-Hop"}, "ok"},
		{"HEAD has a length and no body", "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n", []string{"Content-Length: 1234\r\n", "Etag: \"x\"\r\n"}, nil, "\r\n\r\n"},
		{"204 has no body and no length", get, "HTTP/1.1 204 No Content\r\n\r\n", []string{"HTTP/1.1 204 "}, []string{"Content-Length", "Transfer-Encoding"}, "\r\n\r\n"},
		{"304 has no body", get, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", []string{"HTTP/1.1 304 ", "Etag: \"x\"\r\n"}, []string{"Transfer-Encoding"}, "\r\n\r\n"},
		{"205 has no body", get, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", []string{"HTTP/1.1 205 ", "Content-Length: 0\r\n"}, nil, "\r\n\r\n"},
		{"103 passes, then the answer", get, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok, []string{"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 "}, nil, "ok"},
		{"102 passes, then the answer", get, "HTTP/1.1 102 Processing\r\n\r\n" + ok, []string{"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 "}, nil, "ok"},
		{"100 ends here", get, "HTTP/1.1 100 Continue\r\n\r\n" + ok, []string{"HTTP/1.1 200 "}, []string{"100 Continue"}, "ok"},
		{"HTTP/1.0 is sent nothing interim", "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok, []string{"200 OK"}, []string{"103", "Link"}, "ok"},
		{"HTTP/1.0 is sent no chunks", "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", []string{"200 OK"}, []string{"Transfer-Encoding"}, "\r\n\r\nok"},
		{"no Content-Type is made up", get, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>ok</html>", []string{"HTTP/1.1 200 "}, []string{"Content-Type"}, "<html>ok</html>"},
		{"no Content-Type is made up for HEAD", "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n", []string{"HTTP/1.1 200 "}, []string{"Content-Type"}, "\r\n\r\n"},
		{"an empty Content-Type stays empty", get, "HTTP/1.1 200 OK\r\nContent-Type: \r\nContent-Length: 2\r\n\r\nok", []string{"Content-Type: \r\n"}, nil, "ok"},
		{"two Location headers stay two", get, "HTTP/1.1 302 Found\r\nLocation: https://a.example/1\r\nLocation: https://b.example/2\r\nContent-Length: 0\r\n\r\n", []string{"Location: https://a.example/1\r\n", "Location: https://b.example/2\r\n"}, nil, "\r\n\r\n"},
		{"chunks pass, their extensions do not", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0;x\r\n\r\n", []string{"HTTP/1.1 200 "}, []string{"ext=", "0;x"}, "ok"},
		{"trailers pass", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 5\r\n\r\n", []string{"Trailer: X-Sum\r\n"}, nil, "\r\n0\r\nX-Sum: 5\r\n\r\n"},
		{"trailers that were not announced pass", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 5\r\n\r\n", nil, nil, "\r\n0\r\nX-Sum: 5\r\n\r\n"},
		{"a body that is shorter than its length is no whole answer", get, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n" + last + "ok", []string{"Content-Length: 9\r\n"}, nil, "ok"},
		{"chunks without an end are no whole answer", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + last + "2\r\nok\r\n", nil, []string{"\r\n0\r\n\r\n", "Content-Length"}, "2\r\nok\r\n"},
		{"an end by closing becomes chunks", get, "HTTP/1.1 200 OK\r\n" + last + "ok", []string{"HTTP/1.1 200 "}, []string{"502"}, "ok"},
		{"a folded header becomes one line", get, "HTTP/1.1 200 OK\r\nX-Fold: a\r\n b\r\nContent-Length: 2\r\n\r\nok", []string{"X-Fold: a b\r\n"}, nil, "ok"},
		{"repeated headers keep their order", get, "HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok", []string{"X-A: 1\r\nX-A: 2\r\n"}, nil, "ok"},
		{"an unknown status passes", get, "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", []string{"HTTP/1.1 299 "}, nil, "ok"},
		{"a length and chunks never go on together", get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", nil, []string{"Content-Length: 3"}, ""},
		{"two lengths are none", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", []string{"HTTP/1.1 502 ", "upstream_reset"}, nil, ""},
		{"two equal lengths are one", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", []string{"Content-Length: 2\r\n"}, []string{"Content-Length: 2\r\nContent-Length"}, "ok"},
		{"what is no HTTP", get, "220 mail.example ESMTP\r\n", []string{"HTTP/1.1 502 ", "upstream_reset"}, nil, ""},
		{"a negative length", get, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", []string{"HTTP/1.1 502 "}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := newWire(t, c.answer).before(t, tokens).all(c.send)
			for _, text := range c.has {
				if !strings.Contains(got, text) {
					t.Errorf("the client did not get %q: %q", text, got)
				}
			}
			for _, text := range c.not {
				if strings.Contains(got, text) {
					t.Errorf("the client got %q: %q", text, got)
				}
			}
			if finals := strings.Count(got, "HTTP/1.") - strings.Count(got, "HTTP/1.1 10"); !strings.HasSuffix(got, c.end) && !strings.HasSuffix(got, "\r\n"+c.end+"\r\n0\r\n\r\n") || finals != 1 {
				t.Errorf("the client got %q", got)
			}
		})
	}
}
