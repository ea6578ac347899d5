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

// Forever as a delay means that the response never comes.
const Forever time.Duration = 1<<63 - 1

// Endless as a size means that the body never ends.
const Endless int64 = -1

// Cut is the point at which a response breaks off: over HTTP/1.1 the connection is reset,
// over HTTP/2 the stream.
type Cut string

// The cuts. Except with CutRequest, the function is executed before the cut, which the
// client cannot know.
const (
	CutNowhere Cut = ""        // the response is complete
	CutRequest Cut = "request" // as soon as the request's header is read
	CutAnswer  Cut = "answer"  // before the response's header
	CutHeader  Cut = "header"  // after the response's header
	CutBody    Cut = "body"    // after CutAfter bytes of the body
	CutShort   Cut = "short"   // like CutBody, but with a clean end before the announced length
)

// Fault is a fault to inject: which requests it applies to, and what happens to them. A
// field that is not set changes nothing. For example,
//
//	Fault{Path: "/siem/", Count: 3, Status: 401, Code: "token_expired"}
//
// rejects three requests, and
//
//	Fault{Delay: time.Second}
//
// executes every function and responds late.
//
// Header, Hints, Trailer, Body and Message can contain placeholders. {host} is the request's
// Host, {body} the first 64 KiB of its body, and {pad:N} N bytes of padding.
type Fault struct {
	// Name is the name of a fault from [NamedFault]; otherwise empty.
	Name string `json:"name,omitempty"`

	// Path is a prefix of the paths that the fault applies to. Empty means the whole API
	// except the token endpoint; "/" includes the token endpoint.
	Path string `json:"path,omitempty"`
	// Application is the client ID of the application that the fault applies to; empty
	// means any.
	Application string `json:"application,omitempty"`
	// Method is the method that the fault applies to; empty means any.
	Method string `json:"method,omitempty"`
	// Skip is the number of matching requests that pass before the fault first applies.
	Skip int `json:"skip,omitempty"`
	// Count is the number of requests that the fault applies to before it is removed;
	// 0 means no limit.
	Count int `json:"count,omitempty"`

	// Status is the status of a response that is sent instead of executing the function;
	// 0 executes the function. The response's body is Body. If Body is empty and Status is
	// 400 or more, the body is the gateway's envelope with Code and Message.
	Status int `json:"status,omitempty"`
	// Code and Message are the envelope's; empty means the gateway's for Status.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Body is the whole body; see Status if it is empty.
	Body string `json:"body,omitempty"`
	// Size pads the body with spaces to that many bytes; see Endless.
	Size int64 `json:"size,omitempty"`
	// Early responds before the request's body is read. Otherwise the body is read to its
	// end first.
	Early bool `json:"early,omitempty"`

	// Hints is the header of a 103 response that is sent first.
	Hints map[string]string `json:"hints,omitempty"`
	// Delay is the time to wait before the response's header, after the function was
	// executed; see Forever.
	Delay time.Duration `json:"-"`
	// Until, if set, delays the response's header until a test closes it.
	Until <-chan struct{} `json:"-"`
	// Header and Trailer are added to the response.
	Header  map[string]string `json:"header,omitempty"`
	Trailer map[string]string `json:"trailer,omitempty"`
	// Token replaces members of the token endpoint's response; nil removes a member.
	Token map[string]any `json:"token,omitempty"`
	// Pace is the time to wait before each KiB of the body.
	Pace time.Duration `json:"-"`
	// Cut is the point at which the response breaks off; CutAfter is the number of bytes
	// of the body that are sent before.
	Cut      Cut   `json:"cut,omitempty"`
	CutAfter int64 `json:"cutAfter,omitempty"`
}

// validate returns an error if a field is invalid.
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
	// Hits is the number of requests that the fault applied to, Passed the number that
	// it let pass.
	Hits   int `json:"hits"`
	Passed int `json:"passed,omitempty"`
}

// faults are the armed faults in the order in which they were added. The first one that
// matches a request applies.
type faults struct {
	mu    sync.Mutex
	last  int
	armed []ArmedFault
}

// AddFault arms a fault and returns its ID for RemoveFault. It panics if f is invalid, for
// example if the cut is unknown.
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

// RemoveFault removes a fault. In-flight requests are unaffected, and an unknown ID is
// ignored.
func (s *Simulator) RemoveFault(id int) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.armed = slices.DeleteFunc(s.faults.armed, func(a ArmedFault) bool { return a.ID == id })
}

// ClearFaults removes every fault.
func (s *Simulator) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.armed = nil
}

// Faults returns the faults that are still armed.
func (s *Simulator) Faults() []ArmedFault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return slices.Clone(s.faults.armed)
}

// byApplication reports whether any fault applies to only one application.
func (fs *faults) byApplication() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.ContainsFunc(fs.armed, func(a ArmedFault) bool { return a.Application != "" })
}

// next returns the fault that applies to r: the first one that matches and has no more
// requests to skip.
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

// faultOf returns the fault that applies to the request of ctx, or the zero Fault.
func faultOf(ctx context.Context) Fault {
	f, _ := ctx.Value(faultKey{}).(Fault)
	return f
}

// patchToken changes the token endpoint's response.
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

// envelope returns the body of a fault that has a status and no body.
func (f Fault) envelope() []byte {
	code := cmp.Or(f.Code, defaultCodes[f.Status], "internal-error")
	return encode(failEnvelope(code, cmp.Or(f.Message, "An unexpected error occurred while processing the request")))
}
