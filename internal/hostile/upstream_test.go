//go:build linux

package hostile_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// secretText is the client secret: it has characters that every encoding changes, and
// occurs in no other text.
const secretText = `hostile"Secret/0123456789+abc def\%`

// forms returns the text in the encodings in which programs may repeat it.
func forms(text string) []string {
	once := strings.Trim(strconv.Quote(text), `"`)
	forms := []string{
		text, once, strings.Trim(strconv.Quote(once), `"`), url.QueryEscape(text), url.PathEscape(text), hex.EncodeToString([]byte(text)),
		base64.RawURLEncoding.EncodeToString([]byte(text)), strings.ToUpper(text),
	}
	// The base64 encoding depends on the text's offset.
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		forms = append(forms, encoded[4:len(encoded)-4])
	}
	return forms
}

// echo returns the text in which a device repeats what it was sent.
type echo func(secret, token string) string

var echoes = map[string]echo{
	"plain":    func(s, t string) string { return "client_secret=" + s + " Authorization: Bearer " + t },
	"alone":    func(s, t string) string { return t + "\n" + s },
	"quoted":   func(s, t string) string { return fmt.Sprintf("%q %q", s, "Bearer "+t) },
	"quoted 2": func(s, t string) string { return fmt.Sprintf("%q", fmt.Sprintf("%q %q", s, t)) },
	"form":     func(s, t string) string { return url.Values{"client_secret": {s}, "token": {t}}.Encode() },
	"base64":   func(s, t string) string { return base64.StdEncoding.EncodeToString([]byte("x:" + s + t)) },
	"base64 url": func(s, t string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(s)) + "." + base64.RawURLEncoding.EncodeToString([]byte(t))
	},
	"within": func(s, t string) string { return strings.Repeat("x", 900) + s + strings.Repeat("y", 90) + t + "zzz" },
}

// device is a TLS-inspecting device between the proxy and Mimecast. All its responses
// repeat what it was sent.
type device struct {
	*peer.TLS

	mu     sync.Mutex
	echo   echo
	how    string
	secret string
	tokens map[string]bool
	struck int
}

func newDevice(t *testing.T, secret string) *device {
	t.Helper()
	d := &device{secret: secret, tokens: map[string]bool{}}
	d.TLS = peer.ServeTLS(t, []string{"h2", "http/1.1"}, func(c *tls.Conn) { d.serve(c) })
	return d
}

// set sets how the device responds from now on.
func (d *device) set(how string, e echo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.how, d.echo, d.struck = how, e, 0
}

// text returns the response to a request with a token.
func (d *device) text(authorization string) (how, text string) {
	token := strings.TrimPrefix(authorization, "Bearer ")
	d.mu.Lock()
	defer d.mu.Unlock()
	if token != "" {
		d.tokens[token] = true
	}
	d.struck++
	return d.how, d.echo(d.secret, token)
}

func (d *device) serve(c *tls.Conn) {
	if c.Handshake() != nil {
		return
	}
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		d.serve1(c)
		return
	}
	from := bufio.NewReader(c)
	if _, err := io.CopyN(io.Discard, from, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, from)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck() // on failure, the next read fails
			}
		case *http2.MetaHeadersFrame:
			var authorization string
			for _, h := range frame.RegularFields() {
				if h.Name == "authorization" {
					authorization = h.Value
				}
			}
			how, text := d.text(authorization)
			if !d.answer2(f, frame.StreamID, how, text) {
				return
			}
		}
	}
}

// answer2 responds over HTTP/2 and reports whether the connection continues.
func (d *device) answer2(f *http2.Framer, stream uint32, how, text string) bool {
	switch how {
	case "GOAWAY, not begun":
		_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(text))
		return false
	case "GOAWAY":
		_ = f.WriteGoAway(stream, http2.ErrCodeInternal, []byte(text))
		return false
	case "GOAWAY, unknown code":
		_ = f.WriteGoAway(stream, 0xdeadbeef, []byte(text))
		return false
	case "GOAWAY in the body":
		d.header2(f, stream, false, "content-type", "text/plain")
		_ = f.WriteData(stream, false, []byte("half of "))
		_ = f.WriteGoAway(stream, http2.ErrCodeProtocol, []byte(text))
		return false
	case "malformed header":
		d.header2(f, stream, true, "X-Upper "+text, text)
		return true
	case "X-Request-Id":
		d.header2(f, stream, true, "x-request-id", printable(text), "x-mc-req-id", printable(text), "x-ratelimit-reset", printable(text), "retry-after", printable(text))
		return true
	default: // an unknown frame, then invalid HTTP/2
		_ = f.WriteRawFrame(http2.FrameType(0x7f), 0, stream, []byte(text))
		_ = f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, stream, []byte(text))
		return false
	}
}

func (d *device) header2(f *http2.Framer, stream uint32, end bool, fields ...string) {
	var block strings.Builder
	e := hpack.NewEncoder(&block)
	_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"}) // a strings.Builder never fails
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: end})
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return '_'
		}
		return r
	}, text)
}

// serve1 answers one HTTP/1.1 request with text that is not HTTP.
func (d *device) serve1(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_, text := d.text(r.Header.Get("Authorization"))
	fmt.Fprintf(c, "%s\r\n", text)
}

// clean checks that a text contains no form of the secret or of a token.
func (d *device) clean(t *testing.T, where, text string) {
	t.Helper()
	d.mu.Lock()
	secrets := []string{d.secret}
	for token := range d.tokens {
		secrets = append(secrets, token)
	}
	d.mu.Unlock()
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("%s has %q in it: …%.400s", where, form, text[max(0, i-200):])
				return
			}
		}
	}
}

var devices = []string{"GOAWAY, not begun", "GOAWAY", "GOAWAY, unknown code", "GOAWAY in the body", "malformed header", "X-Request-Id", "garbage"}

// everywhere checks all text that the program makes available.
func (s *stand) everywhere(d *device) {
	s.Helper()
	d.clean(s.T, "the log", s.Stderr.String())
	d.clean(s.T, "stdout", s.Stdout.String())
	for _, path := range []string{"/", "/api/status", "/readyz", "/metrics"} {
		res, err := http.Get("http://" + s.Admin + path)
		if err != nil {
			s.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		d.clean(s.T, path, fmt.Sprint(res.Header)+string(body))
	}
}

func TestUpstreamThatRepeatsSecretsMakesNothingShowThem(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, level := range []string{"info", "trace"} {
		for _, format := range []string{"json", "console"} {
			t.Run(level+"/"+format, func(t *testing.T) {
				t.Parallel()
				sim := program.Simulate(t, simulator.Options{ClientSecret: secretText})
				d := newDevice(t, secretText)
				s := watched(t, sim, program.Serve(t, sim, d.environ(t, sim, "PROXY_LOG_LEVEL="+level, "PROXY_LOG_FORMAT="+format)...))
				for _, how := range devices {
					for name, e := range echoes {
						d.set(how, e)
						for _, method := range []string{"GET", "POST"} {
							s.repeats(d, how+"/"+name, method)
						}
					}
				}
				s.everywhere(d)
			})
		}
	}
}

// environ returns a configuration for the device, with tokens from sim.
func (d *device) environ(t *testing.T, sim *simulator.Server, more ...string) []string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(ca, append(d.CA, sim.CA...), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"MIMECAST_BASE_URL=" + d.URL.String(), "MIMECAST_TOKEN_URL=" + sim.URL + "/oauth/token", "MIMECAST_CA_FILE=" + ca,
		"MIMECAST_CLIENT_SECRET=" + secretText, "PROXY_RESPONSE_TIMEOUT=5s",
	}, more...)
}

// repeats makes a request to which the device repeats the secrets. It checks the proxy's
// own responses; Mimecast's pass unchanged.
func (s *stand) repeats(d *device, name, method string) {
	s.Helper()
	req, err := http.NewRequest(method, "http://localhost/identity/whoami", nil)
	if err != nil {
		s.Fatal(err)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return // the body was cut short
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.Header.Get(problem.Header) != "" {
		d.clean(s.T, "the response to "+name, fmt.Sprint(res.Header)+string(body))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.struck == 0 {
		s.Errorf("%s: the device was not asked", name)
	}
}

// The token endpoint receives the secret and may repeat it in every part of its response.
func TestTokenEndpointThatRepeatsSecretsMakesNothingShowThem(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, how := range append(devices, "error code") {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			sim := program.Simulate(t, simulator.Options{ClientSecret: secretText})
			d := newDevice(t, secretText)
			tokenURL := "MIMECAST_TOKEN_URL=" + d.URL.String() + "/oauth/token"
			if how == "error code" {
				tokenURL = "MIMECAST_TOKEN_URL=" + sim.URL + "/oauth/token"
				body := fmt.Sprintf(`{"error":%q,"error_description":%q,"fail":[{"code":%q,"message":%q}]}`, secretText, secretText, secretText, secretText)
				sim.AddFault(simulator.Fault{Path: "/oauth/token", Status: 400, Body: body, Header: map[string]string{"X-Request-Id": printable(secretText)}})
			}
			for name, e := range echoes {
				d.set(how, e)
				p := program.Start(t, program.Environ(t, sim, d.environ(t, sim, tokenURL, "PROXY_LOG_LEVEL=trace")...))
				p.AwaitServing()
				s := watched(t, sim, p)
				res, err := s.client.Get("http://localhost/identity/whoami")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				d.clean(t, "the response to "+name, fmt.Sprint(res.Header)+string(body))
				s.everywhere(d)
				p.Kill()
				if how == "error code" {
					break // every response is the same
				}
			}
		})
	}
}

// With GODEBUG, net/http prints frames including their headers.
func TestGODEBUGPrintsNoSecret(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"info", "debug", "trace"} {
		for _, setting := range []string{"http2debug=1", "http2debug=2"} {
			sim := program.Simulate(t, simulator.Options{ClientSecret: secretText})
			p := program.Start(t, program.Environ(t, sim, "MIMECAST_CLIENT_SECRET="+secretText, "GODEBUG="+setting, "PROXY_LOG_LEVEL="+level))
			s := watched(t, sim, p)
			program.Await(s.T, "it serves, or refuses to", func() bool { return p.Ended() || strings.Contains(p.Stderr.String(), "serving") })
			d := &device{secret: secretText, tokens: map[string]bool{}}
			if !p.Ended() {
				p.AwaitServing()
				p.AwaitReady()
				if err := s.whoami(); err != nil {
					t.Error(err)
				}
			}
			for _, r := range sim.Requests() {
				if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
					d.tokens[token] = true
				}
			}
			if len(d.tokens) == 0 && !p.Ended() {
				t.Error("no token was seen")
			}
			d.clean(t, setting+" at "+level, p.Stdout.String()+p.Stderr.String())
			p.Kill()
		}
	}
}
