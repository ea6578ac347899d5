package guard_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

const theKey = "k:e y&%2B+=/\u20ac"

func basic(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func TestKeyProvesItselfInEachForm(t *testing.T) {
	g := newGate(t, guard.Policy{Key: keyOf(theKey)})
	for _, proof := range [][]string{
		{"Authorization: Bearer " + theKey}, {"Authorization: bearer " + theKey}, {"authorization: BEARER   " + theKey},
		{basic("user:" + theKey)}, {basic(":" + theKey)}, {strings.Replace(basic("user:"+theKey), "Basic", "bAsIc", 1)},
		{"X-Proxy-Key: " + theKey}, {"x-proxy-key: " + theKey},
		// what a client sends to what it believes to be Mimecast does no harm
		{"X-Proxy-Key: " + theKey, "Authorization: Bearer mimecasts"}, {"X-Proxy-Key: " + theKey, "Authorization: MC access:signature", "Authorization: again"},
	} {
		g.passes("GET", "/", proof...)
	}
}

func TestWhatIsNotTheKeyIsRefused(t *testing.T) {
	g := newGate(t, guard.Policy{Key: keyOf(theKey)})
	right := "Authorization: Bearer " + theKey
	for _, proof := range [][]string{
		{}, {"Authorization: "}, {"Authorization: Bearer"}, {"Authorization: Bearer "}, {"Authorization: " + theKey}, {"Authorization: Bearer " + theKey + "x"}, {"Authorization: Bearer " + theKey[:len(theKey)-1]},
		{"Authorization: Bearer " + strings.ToUpper(theKey)}, {"Authorization: MC " + theKey}, {"Authorization: Bearer\t" + theKey}, {"Authorization: Token " + theKey}, {"Proxy-Authorization: Bearer " + theKey},
		{"Authorization: Bearer mimecast-proxy-stub-token"}, {"Authorization: Bearer [redacted]"},
		{basic(theKey)}, {basic(theKey + ":")}, {basic("user:x")}, {basic("user")}, {"Authorization: Basic !"}, {"Authorization: Basic " + theKey}, {"Authorization: Basic"}, {basic("user:"+theKey) + "x"},
		{"X-Proxy-Key: "}, {"X-Proxy-Key: x"}, {"X-Proxy-Key: Bearer " + theKey}, {"X-Api-Key: " + theKey}, {"Cookie: X-Proxy-Key=" + theKey},
		// twice, or one right and one wrong: nobody sends that by mistake
		{right, right}, {right, "Authorization: Bearer x"}, {"Authorization: Bearer x", right}, {"X-Proxy-Key: " + theKey, "X-Proxy-Key: " + theKey}, {"X-Proxy-Key: x", right}, {"X-Proxy-Key: ", right},
	} {
		a := g.refuses(problem.APIKeyRequired, "GET", "/", proof...)
		if challenges := fmt.Sprint(a.header["Www-Authenticate"]); challenges != `[Bearer realm="mimecast-proxy" Basic realm="mimecast-proxy", charset="UTF-8"]` {
			t.Errorf("%q: WWW-Authenticate %s", proof, challenges)
		}
		if strings.Contains(a.body, theKey) {
			t.Errorf("%q: the answer tells the key: %s", proof, a.body)
		}
	}
	g.refuses(problem.APIKeyRequired, "GET", "/?X-Proxy-Key="+"k")
}

func TestNoKeyIsAskedForWhereThereIsNone(t *testing.T) {
	for _, key := range []func() secret.Text{nil, func() secret.Text { return secret.Text{} }, keyOf("")} {
		g := newGate(t, guard.Policy{Key: key})
		g.passes("GET", "/")
		g.passes("GET", "/", "Authorization: Bearer whatever", "X-Proxy-Key: whatever")
	}
}

func TestRotatedKeyCountsAtOnce(t *testing.T) {
	var key atomic.Pointer[string]
	set := func(s string) { key.Store(&s) }
	set("first")
	g := newGate(t, guard.Policy{TokenStub: true, Key: func() secret.Text { return secret.New(*key.Load()) }})
	token := g.token(200, "client_secret=first")
	g.passes("GET", "/", "X-Proxy-Key: first")
	set("second")
	g.passes("GET", "/", "X-Proxy-Key: second")
	g.refuses(problem.APIKeyRequired, "GET", "/", "X-Proxy-Key: first")
	g.refuses(problem.APIKeyRequired, "GET", "/", "Authorization: Bearer "+token)
	g.passes("GET", "/", "Authorization: Bearer "+g.token(200, "client_secret=second"))
	set("") // a key that was taken away asks for none
	g.passes("GET", "/")
	set("first")
	g.passes("GET", "/", "Authorization: Bearer "+token)
}

func TestKeyMayRotateAmongManyRequests(t *testing.T) {
	var n atomic.Int64
	g := newGate(t, guard.Policy{Key: func() secret.Text { return secret.New([]string{"one", "two"}[n.Add(1)%2]) }})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			a := g.ask("GET", "/", "X-Proxy-Key: "+[]string{"one", "none"}[i%2])
			if i%2 == 1 && a.status != 401 {
				t.Errorf("%d for a wrong key", a.status)
			}
		})
	}
	all.Wait()
}

func TestGuardIsNotPrintedWithItsKey(t *testing.T) {
	g, err := guard.New(guard.Policy{Key: keyOf("s3cr3t-marked")})
	if err != nil {
		t.Fatal(err)
	}
	r := newRequest(t, "GET", "/")
	r.Header.Set("X-Proxy-Key", "s3cr3t-marked")
	g.Wrap(nowhereHandler{}).ServeHTTP(nowhere{}, r)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if out := fmt.Sprintf(verb, g); strings.Contains(out, "s3cr3t") || strings.Contains(out, fmt.Sprintf("%x", "s3cr3t")) {
			t.Errorf("%s prints the key", verb)
		}
	}
}
