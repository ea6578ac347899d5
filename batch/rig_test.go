package batch_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/account"
	"mimecast-proxy/batch"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
	"mimecast-proxy/secret"
	"mimecast-proxy/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	listPath = "/siem/v1/batch/events/cg"
	clientID = "the client's own"
)

// bearer is a token and its source.
type bearer string

func (b bearer) Authorization() string                                         { return "Bearer " + string(b) }
func (bearer) Expiry() time.Time                                               { return time.Time{} }
func (b bearer) Token(context.Context) (account.Token, error)                  { return b, nil }
func (bearer) Renew(_ context.Context, t account.Token) (account.Token, error) { return t, nil }
func (bearer) Expire(account.Token)                                            {}

// always is an AllowLoopback for tests in which every account uses a simulator.
func always(context.Context) bool { return true }

// rig is a simulator and a proxy with the batch layer in front of it.
type rig struct {
	t     *testing.T
	sim   *simulator.Server
	acc   *account.Account
	proxy *httptest.Server
	// options can be changed before serve.
	options batch.Options

	mu       sync.Mutex
	secrets  []secret.Text   // guarded by mu, like all below
	answered []int           // statuses from the files' hosts
	denied   []event.Code    // codes of rejections
	failed   []event.Code    // codes of failures
	errors   strings.Builder // details of the failures, as logged
}

func newRig(t *testing.T, o simulator.Options) *rig {
	t.Helper()
	o.Quotas = map[string]simulator.Quota{}
	sim, err := simulator.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	toAPI := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: sim.Roots}, DisableCompression: true}
	t.Cleanup(func() {
		toAPI.CloseIdleConnections()
		_ = sim.Close()
	})
	base, err := url.Parse(sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, sim: sim, secrets: []secret.Text{secret.New(simulator.DefaultClientSecret)}}
	r.acc = &account.Account{BaseURL: base, Tokens: bearer(login(t, toAPI, sim.URL)), Transport: toAPI, SealKeys: func() []secret.Text {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.secrets
	}}
	r.options = batch.Options{
		Download: r.transport(batch.TransportOptions{AllowLoopback: always}), Now: o.Now, Trace: r.trace(),
		BaseURL: func(q *http.Request) string {
			if q.TLS != nil {
				return "https://" + q.Host
			}
			return "http://" + q.Host
		},
	}
	return r
}

func login(t *testing.T, transport *http.Transport, base string) string {
	t.Helper()
	client := &http.Client{Transport: transport}
	res, err := client.PostForm(base+"/oauth/token", url.Values{
		"client_id": {simulator.DefaultClientID}, "client_secret": {simulator.DefaultClientSecret}, "grant_type": {"client_credentials"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatal("no token: ", err)
	}
	return answer.Token
}

func (r *rig) trace() batch.Trace {
	return batch.Trace{
		Answered: func(_ context.Context, status int, took time.Duration) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.answered = append(r.answered, status); took < 0 {
				r.t.Errorf("it took %v", took)
			}
		},
		Denied: func(_ context.Context, code event.Code) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.denied = append(r.denied, code)
		},
		Failed: func(_ context.Context, p *problem.Problem) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.failed = append(r.failed, p.Code)
			_, _ = fmt.Fprintln(&r.errors, p)
		},
	}
}

// transport returns a transport whose connections close with the test.
func (r *rig) transport(o batch.TransportOptions) *batch.Transport {
	transport := batch.NewTransport(o)
	r.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// handler returns the layers below the guard.
func (r *rig) handler() http.Handler {
	send := proxy.New(proxy.Options{Transport: proxy.Replay(1<<20, proxy.NewBudget(1<<20, nil))(proxy.Authenticate(proxy.Trace{}))})
	layer := batch.Wrap(r.options)(send)
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		layer.ServeHTTP(w, q.WithContext(account.NewContext(q.Context(), r.acc, "")))
	})
}

// serve starts the proxy.
func (r *rig) serve() *rig {
	r.proxy = httptest.NewServer(r.handler())
	r.proxy.Client().Transport.(*http.Transport).DisableCompression = true
	r.t.Cleanup(r.proxy.Close)
	return r
}

// get requests a URL or a path of the proxy, with header fields in pairs.
func (r *rig) get(address string, header ...string) (*http.Response, string) {
	r.t.Helper()
	return r.do(http.MethodGet, address, header...)
}

func (r *rig) do(method, address string, header ...string) (*http.Response, string) {
	r.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = r.proxy.URL + address
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := *r.proxy.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(body)
}

// list makes Mimecast's next list contain the URLs, and returns those that the client gets.
func (r *rig) list(addresses ...string) []string {
	r.t.Helper()
	items := []string{}
	for _, address := range addresses {
		item, err := json.Marshal(map[string]any{"url": address, "size": 1, "expiry": "2100-01-01T00:00:00.000Z"})
		if err != nil {
			r.t.Fatal(err)
		}
		items = append(items, string(item))
	}
	r.answer(simulator.Fault{Body: `{"value":[` + strings.Join(items, ",") + `],"isCaughtUp":true}`})
	res, body := r.get(listPath)
	if res.StatusCode != http.StatusOK {
		r.t.Fatalf("%d %s", res.StatusCode, body)
	}
	return urls(r.t, body)
}

// answer makes Mimecast respond to the next list request with f.
func (r *rig) answer(f simulator.Fault) {
	f.Path, f.Count = "/siem/v1/batch/", 1
	if f.Status == 0 {
		f.Status = http.StatusOK
	}
	r.sim.AddFault(f)
}

// urls returns the URLs in a list.
func urls(t *testing.T, body string) (all []string) {
	t.Helper()
	var list struct {
		Value []struct{ URL string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%v: %.500s", err, body)
	}
	for _, item := range list.Value {
		all = append(all, item.URL)
	}
	return all
}

// reported returns what was reported since its last call, as text.
func (r *rig) reported() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprint(r.answered, r.denied, r.failed)
	r.answered, r.denied, r.failed = nil, nil, nil
	return text
}

// host is a files' host that records its requests.
type host struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request // guarded by mu
}

func serveFiles(t *testing.T, h http.HandlerFunc) *host {
	t.Helper()
	files := &host{}
	files.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.mu.Lock()
		files.requests = append(files.requests, r)
		files.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(files.Close)
	return files
}

// taken returns the requests since its last call.
func (h *host) taken() []*http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.requests
	h.requests = nil
	return all
}
