package guard_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
)

// uploadServer serves a guard in front of a handler that reads each request's body.
func uploadServer(t *testing.T, g *guard.Guard) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			if p, ok := errors.AsType[*problem.Problem](err); ok { // otherwise, the test has ended
				w.Header().Set("Connection", "close")
				p.ServeHTTP(w, r)
			}
		}
	})))
	t.Cleanup(srv.Close)
	return srv
}

// uploadNothing begins an upload without a body and returns once it is in flight. If the
// upload is displaced, cut gets its response.
func uploadNothing(t *testing.T, g *guard.Guard, srv *httptest.Server, key string, cut chan<- string) {
	t.Helper()
	before := g.InFlight()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Proxy-Key: "+key+"\r\nContent-Length: 9\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	go func() {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return // the test has ended
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		cut <- fmt.Sprintf("%d %s %s %s", res.StatusCode, res.Header.Get(problem.Header), res.Header.Get("Retry-After"), body)
	}()
	for g.InFlight() <= before {
		time.Sleep(time.Millisecond)
	}
}

// passesSoon sends requests until one is served.
func passesSoon(t *testing.T, srv *httptest.Server, key string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Proxy-Key", key)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return // a silent upload made room
		}
		if time.Now().After(deadline) {
			t.Fatal("silent uploads keep every slot")
		}
	}
}

// TestSilentUploadGivesItsSlotToAnother checks that a silent upload loses its slot. It must
// not block another client's slot or its account's share.
func TestSilentUploadGivesItsSlotToAnother(t *testing.T) {
	for name, c := range map[string]struct {
		policy  func(emea, us *account.Account) guard.Policy
		caller  string
		want    string
		bystand bool // a client of another account uploads nothing and is not displaced
	}{
		"of all": {
			policy: func(*account.Account, *account.Account) guard.Policy {
				return guard.Policy{MaxRequests: 2, Clients: []guard.Client{{}}}
			},
			want: "The proxy was full, and no part of the request body arrived. Resend the request, or raise PROXY_MAX_REQUESTS.",
		},
		"of the account": {
			policy: func(emea, us *account.Account) guard.Policy {
				return guard.Policy{Clients: []guard.Client{{Name: "a", Keys: keysOf("k-a"), Account: emea}, {Name: "b", Keys: keysOf("k-b"), Account: emea}, {Name: "c", Keys: keysOf("k-c"), Account: us}}}
			},
			caller: "k-b", bystand: true,
			want: "Account emea was full, and no part of the request body arrived. Resend the request.",
		},
		"of the client": {
			policy: func(emea, us *account.Account) guard.Policy {
				return guard.Policy{Clients: []guard.Client{{Name: "a", Keys: keysOf("k-a"), Account: emea, MaxRequests: 2}, {Name: "c", Keys: keysOf("k-c"), Account: us}}}
			},
			caller: "k-a", bystand: true,
			want: "Client a was full, and no part of the request body arrived. Resend the request, or raise the client's max_requests.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			emea, us := &account.Account{Name: "emea"}, &account.Account{Name: "us"}
			emea.SetShare(2, 0)
			g, err := guard.New(c.policy(emea, us))
			if err != nil {
				t.Fatal(err)
			}
			srv := uploadServer(t, g)
			cut, others := make(chan string, 2), make(chan string, 1)
			if c.bystand {
				uploadNothing(t, g, srv, "k-c", others) // silent for the longest time
			}
			for range 2 {
				uploadNothing(t, g, srv, "k-a", cut)
			}
			passesSoon(t, srv, c.caller)
			// Either upload may be displaced: the order in which their bodies are read is
			// not known.
			if res := <-cut; !strings.HasPrefix(res, "503 too_busy 1 ") || !strings.Contains(res, c.want) {
				t.Errorf("the silent upload got %s", res)
			}
			if len(cut) != 0 || len(others) != 0 {
				t.Error("more than one upload was displaced")
			}
			if c.bystand && us.InFlight() != 1 {
				t.Errorf("%d uploads of the other account", us.InFlight())
			}
		})
	}
}
