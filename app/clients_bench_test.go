//go:build unix

package app

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/guard"
	"mimecast-proxy/proxy"
	"mimecast-proxy/secret"
)

// crowd is the handler of a gateway with many clients and accounts, without sockets. requests
// has one request for each key and way to send it.
type crowd struct {
	handler  http.Handler
	requests []*http.Request
}

const crowdKeys = 2 // per client

func crowdKey(client, n int) string {
	return fmt.Sprintf("the-key-%d-of-client-%d-0123456789", n, client)
}

// clientsFile writes a clients file that assigns the accounts to the clients in turn.
func clientsFile(b *testing.B, clients, accounts int) string {
	b.Helper()
	dir := b.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	var file strings.Builder
	file.WriteString("clients:\n")
	for i := range clients {
		put(fmt.Sprintf("key%d", i), crowdKey(i, 0)+"\n"+crowdKey(i, 1)+"\n")
		_, _ = fmt.Fprintf(&file, "  client-%d: {keys: [{file: key%[1]d}], allow: [\"@read\"], max_requests: 32, account: account-%d}\n", i, i%accounts)
	}
	file.WriteString("accounts:\n")
	for i := range accounts {
		put(fmt.Sprintf("secret%d", i), fmt.Sprintf("the-secret-of-account-%d", i))
		_, _ = fmt.Fprintf(&file, "  account-%d: {region: uk, client_id: id-%[1]d, client_secret_file: secret%[1]d}\n", i)
	}
	put("clients.yaml", file.String())
	return filepath.Join(dir, "clients.yaml")
}

// newCrowd returns a handler with all layers except those that need a token or a connection.
// Mimecast's response is immediate.
func newCrowd(b *testing.B, clients, accounts int) *crowd {
	b.Helper()
	p := assembled(b, Env{Stderr: io.Discard}, "PROXY_LOG_FORMAT=json", "PROXY_CLIENTS_FILE="+clientsFile(b, clients, accounts))
	for _, a := range p.accounts.list() {
		p.redactor.Set("token of "+a.name, secret.New("the-token-of-"+a.name+"-0123456789"))
	}
	trace := proxy.Trace{Unauthorized: p.tel.Unauthorized, Retried: p.tel.Retried, Answered: p.tel.Answered, Failed: p.tel.Failed}
	c := &crowd{handler: stack(p.tel.Wrap, p.guard.Wrap)(proxy.New(proxy.Options{
		Transport: p.quota.Wrap(answering(trace)),
		Trace:     trace, ErrorLog: p.tel.StdLog("warn"),
	}))}
	for i := range 100 { // the same number for few clients, so that the CPU cache misses are the same
		c.requests = append(c.requests, requestsOf(i%clients)...)
	}
	return c
}

// answering returns a transport that stands for Mimecast.
func answering(trace proxy.Trace) http.RoundTripper {
	header := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"4f3a9c70-1f2e-4d5b-8c6a-9b8e7d6c5b4a"}}
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		trace.Answered(r.Context(), http.StatusOK, header, time.Millisecond)
		return &http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: maps.Clone(header), Request: r,
			Body: io.NopCloser(strings.NewReader(`{"data":[]}`)), ContentLength: 11,
		}, nil
	})
}

// requestsOf returns requests of a client, one for each key and way to send it.
func requestsOf(client int) (all []*http.Request) {
	for n := range crowdKeys {
		key := crowdKey(client, n)
		for _, send := range []func(*http.Request){
			func(r *http.Request) { r.Header.Set("X-Proxy-Key", key) },
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) },
			func(r *http.Request) { r.SetBasicAuth("any", key) },
			func(r *http.Request) {
				r.Header.Set("Authorization", "Bearer "+guard.StubToken(secret.New(key)).Reveal())
			},
		} {
			r := httptest.NewRequest(http.MethodGet, "http://localhost/siem/v1/events/cg?types=receipt&pageSize=100", nil)
			r.Header.Set("User-Agent", "collector/1.0")
			r.Header.Set("Accept", "application/json")
			send(r)
			all = append(all, r)
		}
	}
	return all
}

// silence is a ResponseWriter that discards the response.
type silence struct {
	header http.Header
	status int
}

func (s *silence) Header() http.Header         { return s.header }
func (s *silence) WriteHeader(status int)      { s.status = status }
func (s *silence) Write(b []byte) (int, error) { return len(b), nil }
func (s *silence) Flush()                      {}

// round serves n requests, and returns the CPU time per request.
func (c *crowd) round(b *testing.B, n int) time.Duration {
	b.Helper()
	before, err := usageNow()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		w := silence{header: http.Header{}}
		// Send the requests in a different order from the clients in the file.
		c.handler.ServeHTTP(&w, c.requests[i*7919%len(c.requests)])
		if w.status != http.StatusOK {
			b.Fatalf("status %d %v", w.status, w.header)
		}
	}
	after, err := usageNow()
	if err != nil {
		b.Fatal(err)
	}
	return after.since(before).CPU / time.Duration(n)
}

// BenchmarkCrowd measures how much CPU time additional clients and accounts cost per request in
// the whole handler. It measures few and many in turns, and takes the median of the rounds.
// 99 additional clients may cost at most 1 µs. The cost of accounts has no limit, since they
// compete for the CPU cache.
//
//	go test ./app -run '^$' -bench Crowd -benchtime 50x
func BenchmarkCrowd(b *testing.B) {
	const n, warmUp, most = 5000, 2, time.Microsecond
	for _, c := range []struct {
		name                                           string
		fewClients, fewAccounts, clients, manyAccounts int
	}{
		{"clients", 1, 1, 100, 1},
		{"accounts", 50, 1, 50, 50},
		{"both", 1, 1, 100, 50},
	} {
		b.Run(c.name, func(b *testing.B) {
			few, many := newCrowd(b, c.fewClients, c.fewAccounts), newCrowd(b, c.clients, c.manyAccounts)
			var base, extra []time.Duration
			for i := 0; b.Loop(); i++ {
				var took [2]time.Duration
				order := []int{0, 1}
				if i%2 == 1 {
					slices.Reverse(order)
				}
				for _, which := range order {
					took[which] = []*crowd{few, many}[which].round(b, n)
				}
				if i >= warmUp {
					base, extra = append(base, took[0]), append(extra, took[1]-took[0])
				}
			}
			if len(extra) == 0 {
				b.Skip("too short: ask for more rounds, such as -benchtime 50x")
			}
			slices.Sort(base)
			slices.Sort(extra)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(base[len(base)/2]), "cpu-ns/request")
			b.ReportMetric(float64(extra[len(extra)/2]), "extra-ns/request")
			if more := extra[len(extra)/2]; more > most && c.manyAccounts == c.fewAccounts {
				b.Errorf("%v more for a request, and at most %v are allowed", more, most)
			}
		})
	}
}
