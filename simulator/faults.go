package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Forever is the delay of a response that never comes.
const Forever time.Duration = 1<<63 - 1

// Endless as a size is a body that never ends.
const Endless int64 = -1

// Cut is the point at which a response breaks off. Over HTTP/1.1 the connection is reset,
// over HTTP/2 the stream.
type Cut string

// The cuts. Only for CutRequest the function is not carried out: after the
// others it was, and the client cannot know.
const (
	CutNowhere Cut = ""        // the response is complete
	CutRequest Cut = "request" // as soon as the request's header is read
	CutAnswer  Cut = "answer"  // before the response's header
	CutHeader  Cut = "header"  // after it
	CutBody    Cut = "body"    // after CutAfter bytes of the body
	CutShort   Cut = "short"   // likewise, but by a clean end before the announced length
)

// Fault is a fault to inject: which requests it applies to, and what happens to them.
// What is not set happens as usual, so that
//
//	Fault{Path: "/siem/", Count: 3, Status: 401, Code: "token_expired"}
//
// rejects three requests, and
//
//	Fault{Delay: time.Second}
//
// carries out every function and responds late. In Header, Hints, Trailer, Body
// and Token {host} stands for the Host that was asked, {body} for the request's
// body (the first 64 KiB) and {pad:N} for N bytes of padding.
type Fault struct {
	// Name is the name of a fault that was made by [NamedFault]; else empty.
	Name string `json:"name,omitempty"`

	// Path is the beginning of the paths that it applies to. None means the whole
	// API, the token endpoint apart; "/" means both.
	Path string `json:"path,omitempty"`
	// Application is the client ID of the application that it applies to; none means any.
	Application string `json:"application,omitempty"`
	// Method is the method that it applies to; none means any.
	Method string `json:"method,omitempty"`
	// Skip is how many such requests it lets pass before the first.
	Skip int `json:"skip,omitempty"`
	// Count is how many it applies to before it is gone; 0 means all until it is
	// removed.
	Count int `json:"count,omitempty"`

	// Status is the response's, in place of the function, which is not carried out; 0:
	// the function is carried out. The body is Body, or else a gateway's envelope of Code and Message.
	Status int `json:"status,omitempty"`
	// Code and Message are the envelope's; empty: those of the gateway for Status.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Body is the whole body; empty: the envelope.
	Body string `json:"body,omitempty"`
	// Size pads that body with spaces; see Endless.
	Size int64 `json:"size,omitempty"`
	// Early responds before the request's body was read. Otherwise it is read
	// to its end first.
	Early bool `json:"early,omitempty"`

	// Hints are the header of a 103 that is sent first.
	Hints map[string]string `json:"hints,omitempty"`
	// Delay is waited for before the response's header, after the function was
	// carried out; see Forever.
	Delay time.Duration `json:"-"`
	// Until, if set, is waited for likewise: a test closes it.
	Until <-chan struct{} `json:"-"`
	// Header and Trailer are added to the response.
	Header  map[string]string `json:"header,omitempty"`
	Trailer map[string]string `json:"trailer,omitempty"`
	// Token replaces members of the token endpoint's response; nil removes one.
	Token map[string]any `json:"token,omitempty"`
	// Pace is waited for before each KiB of the body.
	Pace time.Duration `json:"-"`
	// Cut is the point at which the response breaks off, and CutAfter the number of
	// bytes of the body before it.
	Cut      Cut   `json:"cut,omitempty"`
	CutAfter int64 `json:"cutAfter,omitempty"`
}

// validate returns what is wrong with a fault.
func (f Fault) validate() error {
	if !slices.Contains([]Cut{CutNowhere, CutRequest, CutAnswer, CutHeader, CutBody, CutShort}, f.Cut) {
		return fmt.Errorf("cut %q is none of request, answer, header, body, short", f.Cut)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d is not from 200 to 599", f.Status)
	}
	if f.Status == 0 && (f.Early || f.Code != "" || f.Message != "" || f.Body != "" || f.Size != 0) {
		return errors.New("a response in place of the function's needs a status")
	}
	if f.Skip < 0 || f.Count < 0 || f.Delay < 0 || f.Pace < 0 || f.CutAfter < 0 || f.Size < Endless {
		return errors.New("a number is negative")
	}
	return nil
}

func (f Fault) matches(r *http.Request, application string) bool {
	if f.Application != "" && f.Application != application {
		return false
	}
	if f.Method != "" && f.Method != r.Method {
		return false
	}
	if f.Path == "" {
		return r.URL.Path != tokenPath
	}
	return strings.HasPrefix(r.URL.Path, f.Path)
}

// ArmedFault is a fault that waits for requests.
type ArmedFault struct {
	// ID is the number that AddFault returned.
	ID int `json:"id"`
	Fault
	// Hits is how many requests it was applied to, Passed how many it let pass.
	Hits   int `json:"hits"`
	Passed int `json:"passed,omitempty"`
}

// faults are those that wait, in the order in which they were added. The first
// that matches a request applies.
type faults struct {
	mu    sync.Mutex
	last  int
	armed []ArmedFault
}

// AddFault makes the simulator misbehave from now on, and returns a number by
// which RemoveFault removes it. It panics if f is invalid, for example if its cut is
// unknown.
func (s *Simulator) AddFault(f Fault) int {
	if err := f.validate(); err != nil {
		panic("simulator: " + err.Error())
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.last++
	s.faults.armed = append(s.faults.armed, ArmedFault{ID: s.faults.last, Fault: f})
	return s.faults.last
}

// RemoveFault removes a fault. It does not change requests in flight.
func (s *Simulator) RemoveFault(id int) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.armed = slices.DeleteFunc(s.faults.armed, func(a ArmedFault) bool { return a.ID == id })
}

// ClearFaults takes every fault away.
func (s *Simulator) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.armed = nil
}

// Faults returns those that still wait.
func (s *Simulator) Faults() []ArmedFault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return slices.Clone(s.faults.armed)
}

// byApplication reports whether a fault applies to one application alone.
func (fs *faults) byApplication() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.ContainsFunc(fs.armed, func(a ArmedFault) bool { return a.Application != "" })
}

// next returns the fault that applies to r: the first that matches and lets no
// more pass.
func (fs *faults) next(r *http.Request, application string) (Fault, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i := range fs.armed {
		a := &fs.armed[i]
		if !a.matches(r, application) {
			continue
		}
		if a.Passed < a.Skip {
			a.Passed++
			continue
		}
		f := a.Fault
		if a.Hits++; a.Hits == a.Count {
			fs.armed = slices.Delete(fs.armed, i, i+1)
		}
		return f, true
	}
	return Fault{}, false
}

type faultKey struct{}

// faultOf returns the fault that applies to the request of ctx; zero for none.
func faultOf(ctx context.Context) Fault {
	f, _ := ctx.Value(faultKey{}).(Fault)
	return f
}

// patchToken spoils the token endpoint's response.
func (f Fault) patchToken(answer object) {
	for name, v := range f.Token {
		if v == nil {
			delete(answer, name)
		} else {
			answer[name] = v
		}
	}
}

var defaultCodes = map[int]string{
	http.StatusUnauthorized:    unknownToken.code,
	http.StatusForbidden:       "app_forbidden",
	http.StatusTooManyRequests: "too_many_requests",
}

// envelope returns the body of a fault with a status and no body.
func (f Fault) envelope() []byte {
	code := cmp.Or(f.Code, defaultCodes[f.Status], "internal-error")
	return encode(failEnvelope(code, cmp.Or(f.Message, "An unexpected error occurred while processing the request")))
}
