package guard

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

// Client is a caller that its keys identify, with what it may do.
type Client struct {
	// Name is for log, metrics and error responses. The client of PROXY_API_KEY has
	// none. If it has no key either and is the only client, no key is required;
	// beside others it serves those that Policy.TunnelPassword lets in.
	Name string
	// Keys are the client's valid keys. Empty ones do not count. A client with a name
	// and without a key can never call.
	Keys []secret.Text
	// Digests are the SHA-256 digests of further keys. The stub's token for such a key
	// is the key itself, since nothing else is known of it.
	Digests [][sha256.Size]byte
	// Routes are the only ones that pass, of those that Policy.Routes let pass; if
	// empty, all of those pass.
	Routes []string
	// MaxRequests is the most in-flight requests; 0: no limit.
	MaxRequests int
	// Account is what the requests use; nil stands for an empty one.
	Account *account.Account
}

// client is a Client as requests meet it.
type client struct {
	name    string
	slots   slots // shared with the client's earlier versions
	routes  *routes
	account *account.Account
}

// roster has the clients of one moment. It never changes.
type roster struct {
	// open is the client of every request, if no key is required; else nil.
	open *client
	// nameless is the client without a name; nil if there is none.
	nameless *client
	// named reports whether any client has a name.
	named bool
	keys  *keyring
	// tokenPaths lead to the accounts' token endpoints, in lower case.
	tokenPaths []string
}

// SetClients replaces the clients, for all requests from now on. In-flight requests
// go on, and count for the client that has their client's name. The error names
// every client that cannot be used; then nothing changes.
func (g *Guard) SetClients(clients []Client) error {
	g.setting.Lock()
	defer g.setting.Unlock()
	ro := &roster{keys: newKeyring()}
	compiled := make(map[string]*routes) // most clients have the routes of another
	taken := make(map[string]*atomic.Int64, len(clients))
	var errs []error
	for _, c := range clients {
		if taken[c.Name] != nil {
			errs = append(errs, fmt.Errorf("client %q is there twice", c.Name))
			continue
		}
		taken[c.Name] = g.takenBy(c.Name)
		rs, err := compileOnce(compiled, c.Routes)
		if err == nil {
			err = ro.add(c, rs, taken[c.Name])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("client %q: %w", c.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(clients) == 1 && ro.nameless != nil && len(ro.keys.entries) == 0 {
		ro.open = ro.nameless
	}
	g.keepCounts(taken)
	g.roster.Store(ro)
	return nil
}

// takenBy returns the count of a client's in-flight requests.
func (g *Guard) takenBy(name string) *atomic.Int64 {
	if n := g.taken[name]; n != nil {
		return n
	}
	return new(atomic.Int64)
}

// keepCounts takes up the counts of the clients. Those of clients that are gone stay
// while requests are in flight, since a client may come back.
func (g *Guard) keepCounts(taken map[string]*atomic.Int64) {
	for name, n := range g.taken {
		if taken[name] == nil && n.Load() > 0 {
			taken[name] = n
		}
	}
	g.taken = taken
}

func compileOnce(compiled map[string]*routes, items []string) (*routes, error) {
	id := strings.Join(items, "\n")
	if rs, ok := compiled[id]; ok {
		return rs, nil
	}
	rs, err := newRoutes(items)
	if err == nil {
		compiled[id] = rs
	}
	return rs, err
}

// add adds a client. The error says that another client has one of its keys.
func (ro *roster) add(from Client, rs *routes, taken *atomic.Int64) error {
	c := &client{name: from.Name, slots: slots{max: int64(from.MaxRequests), taken: taken}, routes: rs, account: from.Account}
	if c.account == nil {
		c.account = new(account.Account)
	}
	if p := c.account.TokenPath; p != "" {
		if p = strings.ToLower(path.Clean("/" + p)); !slices.Contains(ro.tokenPaths, p) {
			ro.tokenPaths = append(ro.tokenPaths, p)
		}
	}
	if c.name == "" {
		ro.nameless = c
	} else {
		ro.named = true
	}
	var errs []error
	for _, text := range from.Keys {
		if !text.IsZero() {
			errs = append(errs, ro.keys.addText(c, text))
		}
	}
	for _, d := range from.Digests {
		errs = append(errs, ro.keys.add(&entry{digest: d, client: c}))
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}

// client returns the client of a request; nil if it has none.
func (ro *roster) client(g *Guard, r *http.Request) *client {
	if c, ok := ro.clientWithoutKey(g, r); ok {
		return c
	}
	return ro.keys.client(credential(r.Header))
}

// clientWithoutKey returns the client of a request that needs no key in its headers,
// and reports whether it needs none: it came through a tunnel, whose own key counts,
// or no key is required. The client is nil if the tunnel's key is none.
func (ro *roster) clientWithoutKey(g *Guard, r *http.Request) (_ *client, ok bool) {
	authorization, tunneled := g.tunnelOf(r)
	switch {
	case ro.open != nil:
		return ro.open, true
	case tunneled && g.tunnelPassword:
		return ro.nameless, true
	case tunneled:
		return ro.keys.client(parseAuthorization(authorization)), true
	}
	return nil, false
}

// tunnelOf returns the Proxy-Authorization of a request's tunnel, and reports whether
// the request came through the forward proxy.
func (g *Guard) tunnelOf(r *http.Request) (authorization []string, ok bool) {
	if g.tunnel == nil {
		return nil, false
	}
	return g.tunnel(r)
}

// intercepted reports whether a request came through the forward proxy.
func (g *Guard) intercepted(r *http.Request) bool {
	_, ok := g.tunnelOf(r)
	return ok
}

// AllowsTunnel reports whether a request to the forward proxy carries a key in
// Proxy-Authorization, as Bearer or as the password of Basic, or no key is required.
func (g *Guard) AllowsTunnel(r *http.Request) bool {
	ro := g.roster.Load()
	return ro.open != nil || ro.keys.client(parseAuthorization(r.Header["Proxy-Authorization"])) != nil
}

// keyRequired is why a request without a valid key is rejected.
func (ro *roster) keyRequired(g *Guard, r *http.Request) *problem.Problem {
	if g.intercepted(r) {
		return problem.New(event.APIKeyRequired, "The tunnel's key is not valid. Give the client the whole proxy URL, with a current key as the password.")
	}
	what, source := "The request has no API key", "the value of PROXY_API_KEY once"
	sent := len(r.Header["X-Proxy-Key"])+len(r.Header["Authorization"]) > 0
	switch {
	case ro.named && sent:
		what, source = "The key is not valid", "one from PROXY_CLIENTS_FILE"
	case ro.named:
		what, source = "The request has no client's key", "one from PROXY_CLIENTS_FILE"
	case sent:
		what = "The API key is not valid"
	}
	return problem.New(event.APIKeyRequired, "%s. Send %s, as Authorization: Bearer KEY, as the password of Basic, or as X-Proxy-Key.", what, source)
}

// The settings that bound the in-flight requests of a client and of an account, which may
// have half of all.
const (
	clientLimit  = "max_requests"
	accountLimit = "PROXY_MAX_REQUESTS"
)

// serve passes a request on, within the limits of the client and of its account. It
// reports whether it rejected the request.
func (c *client) serve(g *Guard, w http.ResponseWriter, r *http.Request, next http.Handler) (rejected bool) {
	var silent *upload // that made room
	displace := func(is func(*client) bool, limit, what, remedy string) bool {
		silent = g.uploads.displace(is, clientTooBusy(limit, "%s was full, and no part of the request body arrived. Resend the request%s.", what, remedy))
		return silent != nil
	}
	if !c.slots.take(func() bool {
		return displace(c.isSame, clientLimit, "Client "+c.name, ", or raise the client's max_requests")
	}) {
		g.reject(w, r, clientTooBusy(clientLimit, "Client %s has %d in-flight requests, its max_requests in PROXY_CLIENTS_FILE. Retry later, or raise it.", c.name, c.slots.max))
		return true
	}
	defer c.slots.release()
	if !c.account.Enter(func() bool {
		return silent != nil && c.sharesAccount(silent.client) || displace(c.sharesAccount, accountLimit, "Account "+c.account.Name, "")
	}) {
		g.reject(w, r, clientTooBusy(accountLimit, "Account %s has %d in-flight requests and accepts no more. Retry later.", c.account.Name, c.account.MaxRequests()))
		return true
	}
	defer c.account.Leave()
	g.uploads.setClient(r.Body, c)
	next.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), c.account, c.name)))
	return false
}

// isSame reports whether other is the client, in this version or an earlier one.
func (c *client) isSame(other *client) bool { return c.slots.taken == other.slots.taken }

func (c *client) sharesAccount(other *client) bool { return c.account == other.account }
