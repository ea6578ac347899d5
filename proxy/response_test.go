package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
)

func TestNoContentTypeIsMadeUp(t *testing.T) {
	for _, body := range []string{"", "<html><body>x", "{}", "\x89PNG\r\n\x1a\n", "plain"} {
		for _, http1 := range []bool{true, false} {
			r := newRig(t, setup{http1: http1}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				io.WriteString(w, body)
			})
			for _, method := range []string{"GET", "HEAD", "POST"} {
				if res, _ := r.do(method, "/", nil); len(res.Header["Content-Type"]) > 0 {
					t.Errorf("%s, %q: %q", method, body, res.Header["Content-Type"])
				}
			}
		}
	}
	r := newRig(t, setup{}, echo)
	r.tokens.err = problem.New(event.TokenUnavailable, "x")
	if res, _ := r.do("GET", "/", nil); res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the proxy's own: %q", res.Header.Get("Content-Type"))
	}
}

func TestEachLocationIsRewrittenForTheClientsScheme(t *testing.T) {
	var upstream string
	r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Location"] = []string{upstream + "/a", "https://elsewhere.example/b", upstream + "/c"}
		w.WriteHeader(302)
	})
	upstream = r.upstream.URL
	base, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewTLSServer(handler(&account.Account{BaseURL: base, Tokens: r.tokens, Transport: r.base}, 0, r.budget, proxy.Trace{}))
	defer secure.Close()
	client := secure.Client()
	client.CheckRedirect = r.client.CheckRedirect
	for front, client := range map[string]*http.Client{r.front.URL: r.client, secure.URL: client} {
		res, err := client.Get(front)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		want := []string{front + "/a", "https://elsewhere.example/b", front + "/c"}
		if fmt.Sprint(res.Header["Location"]) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", res.Header["Location"], want)
		}
	}
}

// unavailable returns the error of a source whose token endpoint fails.
func unavailable() *problem.Problem {
	p := problem.New(event.TokenUnavailable, "down")
	p.RetryAfter = 5 * time.Second
	return p
}

func TestADeadTokenThatCannotBeRenewedCountsAsExpired(t *testing.T) {
	for _, code := range []string{"token_expired", "token_verification_failed"} {
		for _, err := range []*problem.Problem{unavailable(), problem.New(event.CredentialsRefused, "check them")} {
			asked := make(chan bool, 100)
			r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
				asked <- true
				w.WriteHeader(401)
				fmt.Fprintf(w, `{"fail":[{"code":%q}]}`, code)
			})
			r.tokens.renewErr = err
			for range 5 {
				res, _ := r.do("POST", "/", strings.NewReader("x"))
				if res.StatusCode != err.Code.Status() || res.Header.Get(problem.Header) != string(err.Code) ||
					err.RetryAfter > 0 && res.Header.Get("Retry-After") != "5" {
					t.Errorf("%s: %d %v", code, res.StatusCode, res.Header)
				}
			}
			if len(asked) != 1 {
				t.Errorf("%d requests went upstream with a dead token", len(asked))
			}
			r.saw("renewal_failed")
		}
	}
}

func TestAnyOther401WhoseRenewalFailedPasses(t *testing.T) {
	r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(401)
		io.WriteString(w, `{"fail":[{"code":"app_forbidden"}]}`)
	})
	r.tokens.renewErr = unavailable()
	for range 3 {
		if res, body := r.do("GET", "/", nil); res.StatusCode != 401 || !strings.Contains(body, "app_forbidden") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

// waiting is a source whose renewal blocks until the caller's context ends.
type waiting struct {
	*tokens
	renewing chan bool
}

func (w waiting) Renew(ctx context.Context, _ account.Token) (account.Token, error) {
	w.renewing <- true
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAClientThatLeavesDuringARenewalIsNoFailedRenewal(t *testing.T) {
	r := newRig(t, setup{}, rejecting(1, echo))
	var outcomes []event.RetryOutcome
	source := waiting{r.tokens, make(chan bool, 1)}
	base, err := url.Parse(r.upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := proxy.Authenticate(proxy.Trace{
		Retried: func(_ context.Context, o event.RetryOutcome) { outcomes = append(outcomes, o) },
	})
	ctx, leave := context.WithCancel(account.NewContext(t.Context(), &account.Account{Tokens: source, Transport: r.base}, ""))
	go func() { <-source.renewing; leave() }()
	req, err := http.NewRequestWithContext(ctx, "GET", base.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = transport.RoundTrip(req)
	if !errors.Is(err, context.Canceled) || len(outcomes) > 0 {
		t.Errorf("%v, outcomes %v", err, outcomes)
	}
}

func TestHeadersThatSpeakForTheProxyOrNameAnotherRequestStayBehind(t *testing.T) {
	r := newRig(t, setup{http1: true}, func(w http.ResponseWriter, req *http.Request) {
		for name := range req.Header {
			w.Header().Add("Got", name)
		}
	})
	for _, name := range []string{
		"Authorization", "AUTHORIZATION", "X-Authorization", "X_Authorization", "X-Serverless-Authorization", "X-Auth-Token", "Cookie", "Proxy-Authorization", "Proxy-Connection",
		"X-Proxy-Key", "X_Proxy_Key", "X-MC-App-Id", "x_mc_date", "X-Mc_Req-Id", "X-HTTP-Method-Override", "X_HTTP_Method_Override", "x-http-method", "X-METHOD-OVERRIDE",
		"X-Original-Url", "X-Original-Uri", "X-Original-Method", "X-Original-Host", "X_Original_URL", "X-Envoy-Original-Path", "X-Envoy-Original-Dst-Host", "X-Envoy-External-Address",
		"X-Rewrite-Url", "X-Rewrite-Uri", "X-Real-Ip", "X_Real_IP", "True-Client-Ip", "X-Client-Ip", "Client-Ip", "Forwarded", "X-Forwarded", "X-Forwarded-For", "X_Forwarded_For",
		"X-Forwarded_Host", "X-Forwarded-Prefix", "X-Forward-For", "X-Host", "X-Cluster-Client-Ip", "Cf-Connecting-Ip", "Cf-Ipcountry", "Fastly-Client-Ip", "Akamai-Origin-Hop",
		"X-Goog-Iap-Jwt-Assertion", "X-Goog-Authenticated-User-Email", "X-Amzn-Oidc-Identity", "X-Amz-Security-Token", "X-Appengine-User-Email", "X-Azure-Clientip",
		"X-Arr-Clientcert", "X-Ssl-Client-Cert", "X-Remote-User", "Remote-User", "X-Authenticated-User", "X-Scheme", "X-Url-Scheme", "X-Forwarded-Client-Cert", "Keep-Alive", "Upgrade",
		"X-Originating-Ip", "X-Remote-Ip", "X-Remote-Addr", "X-Accel-Redirect", "X-Http-Destinationurl",
	} {
		res, _ := r.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + name + ": x\r\n\r\n")
		want := "[Authorization]" // the proxy's Authorization
		if got := fmt.Sprint(res.Header["Got"]); got != want {
			t.Errorf("%s: Mimecast got %s", name, got)
		}
	}
	for _, name := range []string{
		"X-Mc-Arg", "X-Mc-Accountcode", "X-Request-Id", "X-Correlation-Id", "Traceparent", "Accept", "Accept-Language", "Range", "If-None-Match", "User-Agent", "Content-Language",
		"Idempotency-Key", "X-Api-Key", "X-Custom", "Via", "X-Client-Version", "X-Realm", "X-Originally", "Cfg", "Trueness", "X", "X-", "Cache-Control", strings.Repeat("X-Long-", 30),
	} {
		res, _ := r.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + name + ": x\r\n\r\n")
		if got := res.Header["Got"]; len(got) != 2 {
			t.Errorf("%s: Mimecast got %s", name, got)
		}
	}
}
