// Package connectpage serves the page of connect --web: a guide, a form for the
// credentials, and the result.
//
// The page needs no script. A link with a single-use code opens it. The form then carries
// a session value, because cookies would reach every port of the machine. What a web page
// of another origin sends is rejected before it is read.
package connectpage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/secret"
)

// Input is what the user entered.
type Input struct {
	Region       string
	ClientID     string
	ClientSecret secret.Text
}

// Connected is a connection that was tested and stored.
type Connected struct {
	// Account is its name, such as Harbour Mills Ltd; it may be empty.
	Account string
	// Region is the account's, such as eu; it may be empty.
	Region string
	// Lifetime is the token's; zero means unknown.
	Lifetime time.Duration
	// Stored says where, such as "in the keyring, as profile default".
	Stored string
	// Next is the one command to run next; empty: none is needed.
	Next string
	// Notes are further sentences, such as what the application's role does not allow.
	Notes []string
}

// Field names an input of the form.
type Field string

// The fields of the form.
const (
	Region       Field = "region"
	ClientID     Field = "client_id"
	ClientSecret Field = "client_secret"
)

// Rejected is why an input did not connect.
type Rejected struct {
	// Fields are the inputs to ask again. A secret that is not asked again is kept.
	Fields []Field
	// Text says what happened and what to do. It must not contain the secret.
	Text string
}

// Error implements error.
func (r *Rejected) Error() string { return r.Text }

// Options are what the page shows and does.
type Options struct {
	// Address is the host and port at which the page is served, such as
	// 127.0.0.1:40123: the only Host that is accepted.
	Address string
	// Code is the single-use code of the link, see NewCode.
	Code string
	// Regions are the ones to choose from. Without any the base URL is fixed, and no
	// region is asked.
	Regions []string
	// BaseURL is shown if there are no Regions.
	BaseURL string
	// Input is what is known before.
	Input Input
	// Rotate asks for the secret only, for Profile.
	Rotate  bool
	Profile string
	// StoreText says where the connection will be stored, such as "in the keyring, as
	// profile default"; it may be empty.
	StoreText string
	// Hint says which ID and secret to enter, for the demo; it may be empty.
	Hint string
	// Connect tests and stores an input, values as they were entered, empty ones
	// included. An error is shown with the form, so its text must not contain the secret.
	// At most one call runs at a time. The context ends if the browser goes away.
	Connect func(ctx context.Context, in Input) (Connected, error)
	// Done is called once, after the response that says Connected was sent; nil means
	// nothing to do. It must not wait for the handler.
	Done func()
}

// NewCode returns 256 random bits as text for a URL.
func NewCode() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Path returns the path and query of the link with a code.
func Path(code string) string { return "/?code=" + url.QueryEscape(code) }

// handler is one run of the page.
type handler struct {
	options Options
	session string      // without which the form is rejected
	opened  atomic.Bool // the code was used
	done    func()

	turn      chan struct{} // holds one value while a request uses the fields below
	kept      Input         // for the next attempt
	connected *Connected
}

// Handler returns the handler of the page. Options.Address, Code and Connect must be set.
func Handler(o Options) http.Handler {
	h := &handler{options: o, session: NewCode(), turn: make(chan struct{}, 1), kept: o.Input, done: func() {}}
	if o.Done != nil {
		h.done = sync.OnceFunc(o.Done)
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	boundBody(w, r)
	setHeaders(w.Header())
	if p := h.checkOrigin(r); p != nil {
		writePage(w, p.status, p.page())
		return
	}
	switch {
	case r.URL.Path == style.path || r.URL.Path == icon.path:
		serveAsset(w, r)
	case r.URL.Path != "/":
		writePage(w, http.StatusNotFound, notFound.page())
	case r.Method == http.MethodGet:
		h.open(w, r)
	case r.Method == http.MethodPost:
		h.submit(w, r)
	default:
		rejectMethod(w, "GET, POST")
	}
}

// open shows the form for the code, which is used up by that.
func (h *handler) open(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	switch {
	case code == "" || !equal(code, h.options.Code):
		writePage(w, http.StatusForbidden, wrongCode.page())
	case r.Header.Get("Sec-Purpose") != "":
		// A browser that loads a page ahead may never show it.
		writePage(w, http.StatusForbidden, prefetched.page())
	case !h.opened.CompareAndSwap(false, true):
		writePage(w, http.StatusForbidden, usedCode.page())
	default:
		writePage(w, http.StatusOK, formPage(&h.options, h.session, &formState{kept: h.options.Input}))
	}
}

// submit tests what was entered. A form that arrives during another test waits for it: the
// user may have clicked twice.
func (h *handler) submit(w http.ResponseWriter, r *http.Request) {
	form, p := readForm(w, r)
	if p == nil && !equal(form.Get(sessionField), h.session) {
		p = &wrongSession
	}
	if p != nil {
		writePage(w, p.status, p.page())
		return
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-r.Context().Done():
		return
	}
	if h.connected == nil {
		if err := h.connect(r.Context(), form); err != nil {
			writePage(w, http.StatusOK, formPage(&h.options, h.session, h.state(err)))
			return
		}
	}
	writePage(w, http.StatusOK, connectedPage(&h.options, h.connected))
	_ = http.NewResponseController(w).Flush() // sent before the listener goes
	h.done()
}

// connect tries a form, together with what is kept.
func (h *handler) connect(ctx context.Context, form url.Values) error {
	if !h.options.Rotate {
		if len(h.options.Regions) > 0 {
			h.kept.Region = form.Get(string(Region))
		}
		if entered := form.Get(string(ClientID)); entered != "" {
			h.kept.ClientID = entered
		}
	}
	if entered := form.Get(string(ClientSecret)); entered != "" {
		h.kept.ClientSecret = secret.New(entered)
	}
	c, err := h.options.Connect(ctx, h.kept)
	if err != nil {
		return err
	}
	h.connected, h.kept = &c, Input{}
	return nil
}

// state returns what the form shows after an error.
func (h *handler) state(err error) *formState {
	s := &formState{problem: err.Error()}
	if rejected, ok := errors.AsType[*Rejected](err); ok {
		s.asked = rejected.Fields
	}
	s.kept = h.kept
	s.entered = true
	if slices.Contains(s.asked, ClientSecret) {
		h.kept.ClientSecret, s.kept.ClientSecret = secret.Text{}, secret.Text{}
	}
	return s
}
