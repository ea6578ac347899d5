package guard_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/secret"
)

const theKey = "k:e y&%2B+=/\u20ac"

func basic(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func TestKeyProvesItselfInEachForm(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: keyed(theKey)})
	for _, proof := range [][]string{
		{"Authorization: Bearer " + theKey}, {"Authorization: bearer " + theKey}, {"authorization: BEARER   " + theKey},
		{basic("user:" + theKey)}, {basic(":" + theKey)}, {strings.Replace(basic("user:"+theKey), "Basic", "bAsIc", 1)},
		{"X-Proxy-Key: " + theKey}, {"x-proxy-key: " + theKey},
		// headers that a client sends to Mimecast are ignored
		{"X-Proxy-Key: " + theKey, "Authorization: Bearer mimecasts"}, {"X-Proxy-Key: " + theKey, "Authorization: MC access:signature", "Authorization: again"},
	} {
		g.passes("GET", "/", proof...)
	}
}

func TestWhatIsNotTheKeyIsRejected(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: keyed(theKey)})
	right := "Authorization: Bearer " + theKey
	for _, proof := range [][]string{
		{}, {"Authorization: "}, {"Authorization: Bearer"}, {"Authorization: Bearer "}, {"Authorization: " + theKey}, {"Authorization: Bearer " + theKey + "x"}, {"Authorization: Bearer " + theKey[:len(theKey)-1]},
		{"Authorization: Bearer " + strings.ToUpper(theKey)}, {"Authorization: MC " + theKey}, {"Authorization: Bearer\t" + theKey}, {"Authorization: Token " + theKey}, {"Proxy-Authorization: Bearer " + theKey},
		{"Authorization: Bearer mimecast-proxy-stub-token"}, {"Authorization: Bearer [redacted]"},
		{basic(theKey)}, {basic(theKey + ":")}, {basic("user:x")}, {basic("user")}, {"Authorization: Basic !"}, {"Authorization: Basic " + theKey}, {"Authorization: Basic"}, {basic("user:"+theKey) + "x"},
		{"X-Proxy-Key: "}, {"X-Proxy-Key: x"}, {"X-Proxy-Key: Bearer " + theKey}, {"X-Api-Key: " + theKey}, {"Cookie: X-Proxy-Key=" + theKey},
		// duplicate keys, or one right and one wrong
		{right, right}, {right, "Authorization: Bearer x"}, {"Authorization: Bearer x", right}, {"X-Proxy-Key: " + theKey, "X-Proxy-Key: " + theKey}, {"X-Proxy-Key: x", right}, {"X-Proxy-Key: ", right},
	} {
		a := g.rejects(event.APIKeyRequired, "GET", "/", proof...)
		if challenges := fmt.Sprint(a.header["Www-Authenticate"]); challenges != `[Bearer realm="mimecast-proxy" Basic realm="mimecast-proxy", charset="UTF-8"]` {
			t.Errorf("%q: WWW-Authenticate %s", proof, challenges)
		}
		if strings.Contains(a.body, theKey) {
			t.Errorf("%q: the response shows the key: %s", proof, a.body)
		}
	}
	g.rejects(event.APIKeyRequired, "GET", "/?X-Proxy-Key="+"k")
}

func TestNoKeyIsAskedForWhereThereIsNone(t *testing.T) {
	for _, keys := range [][]secret.Text{nil, {}, keysOf("")} {
		g := newGate(t, guard.Policy{Clients: []guard.Client{{Keys: keys}}})
		g.passes("GET", "/")
		g.passes("GET", "/", "Authorization: Bearer whatever", "X-Proxy-Key: whatever")
	}
}

func TestEachOfSeveralKeysIsValid(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: keyed("first", "second", "third"), TokenStub: true})
	tokens := map[string]bool{}
	for _, key := range []string{"first", "second", "third"} {
		g.passes("GET", "/", "X-Proxy-Key: "+key)
		g.passes("GET", "/", "Authorization: Bearer "+key)
		g.passes("GET", "/", basic("any:"+key))
		token := g.token(200, "client_secret="+key)
		g.passes("GET", "/", "Authorization: Bearer "+token)
		g.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: "+token)
		tokens[token] = true
	}
	if len(tokens) != 3 {
		t.Errorf("%d tokens for three keys", len(tokens))
	}
	for _, wrong := range []string{"first\tsecond", "firstsecond", "first,second", "fourth", ""} {
		g.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: "+wrong)
	}
	g.setClients(keyed("second", "fourth"))
	second := g.token(200, "client_secret=second")
	for token := range tokens {
		if a := g.ask("GET", "/", "Authorization: Bearer "+token); (a.status == 200) != (token == second) {
			t.Errorf("%d for a token whose key is valid: %v", a.status, token == second)
		}
	}
	g.through()
	g.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: first")
	g.passes("GET", "/", "X-Proxy-Key: fourth")
}

func TestRotatedKeyCountsAtOnce(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed("first")})
	token := g.token(200, "client_secret=first")
	g.passes("GET", "/", "X-Proxy-Key: first")
	g.setClients(keyed("second"))
	g.passes("GET", "/", "X-Proxy-Key: second")
	g.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: first")
	g.rejects(event.APIKeyRequired, "GET", "/", "Authorization: Bearer "+token)
	g.passes("GET", "/", "Authorization: Bearer "+g.token(200, "client_secret=second"))
	g.setClients(keyed("first"))
	g.passes("GET", "/", "Authorization: Bearer "+token)
}

func TestKeyMayRotateAmongManyRequests(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: keyed("one")})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			g.setClients(keyed([]string{"one", "two"}[i%2], "both"))
			key := []string{"both", "none"}[i%2]
			if a := g.ask("GET", "/", "X-Proxy-Key: "+key); key == "none" && a.status != 401 {
				t.Errorf("%d for a wrong key", a.status)
			}
		})
	}
	all.Wait()
	g.through()
	g.passes("GET", "/", "X-Proxy-Key: both")
}

func TestGuardIsNotPrintedWithItsKey(t *testing.T) {
	g, err := newGuard(guard.Policy{Clients: keyed("s3cr3t-marked")})
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
