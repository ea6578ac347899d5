package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// namedFaults are common faults. Callers set the remaining fields, such as Path and Count.
var namedFaults = map[string]Fault{
	"token-dead":            {Path: tokenPath, Status: 503},
	"token-429":             {Path: tokenPath, Status: 429, Header: map[string]string{"Retry-After": "2"}},
	"token-429-ms":          {Path: tokenPath, Status: 429, Header: map[string]string{"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1500"}},
	"token-slow":            {Path: tokenPath, Delay: 500 * time.Millisecond},
	"token-hang":            {Path: tokenPath, Delay: Forever},
	"token-reset":           {Path: tokenPath, Cut: CutRequest},
	"token-refused":         {Path: tokenPath, Status: 401, Code: "InvalidClientIdentifier", Message: "Client credentials are invalid"},
	"token-refused-oauth":   {Path: tokenPath, Status: 400, Body: `{"error":"invalid_client","error_description":"Client authentication failed"}`},
	"token-fail":            {Path: tokenPath, Status: 200, Body: `{"fail":[{"code":"internal-error","message":"No token was made"}]}`},
	"token-html":            {Path: tokenPath, Status: 200, Body: "<html><body><h1>It works</h1></body></html>"},
	"token-truncated":       {Path: tokenPath, Status: 200, Body: `{"access_token":"eyJhbGciOi`},
	"token-endless":         {Path: tokenPath, Status: 200, Body: `{"access_token":"`, Size: Endless},
	"token-redirect":        {Path: tokenPath, Status: 307, Header: map[string]string{"Location": "https://{host}/elsewhere/oauth/token"}},
	"token-no-expiry":       {Path: tokenPath, Token: map[string]any{"expires_in": nil}},
	"token-string-expiry":   {Path: tokenPath, Token: map[string]any{"expires_in": "1799"}},
	"token-zero-expiry":     {Path: tokenPath, Token: map[string]any{"expires_in": 0}},
	"token-negative-expiry": {Path: tokenPath, Token: map[string]any{"expires_in": -1}},
	"token-huge-expiry":     {Path: tokenPath, Token: map[string]any{"expires_in": 1e15}},
	"token-mac":             {Path: tokenPath, Token: map[string]any{"token_type": "mac"}},
	"token-lowercase":       {Path: tokenPath, Token: map[string]any{"token_type": "bearer"}},
	"token-crlf":            {Path: tokenPath, Token: map[string]any{"access_token": "abc\r\nX-Injected: yes"}},
	"token-echo":            {Path: tokenPath, Status: 400, Body: `{"error":"invalid_request","error_description":"cannot use {body}"}`},

	"401":           {Status: 401},
	"401-expired":   {Status: 401, Code: "token_expired", Message: "The access token has expired"},
	"401-html":      {Status: 401, Body: "<html><body><h1>401 Authorization Required</h1></body></html>"},
	"401-early":     {Status: 401, Early: true},
	"403":           {Status: 403, Message: "Forbidden to perform the requested operation"},
	"413-early":     {Status: 413, Early: true, Code: "request_too_large"},
	"429":           {Status: 429, Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1500"}},
	"429-seconds":   {Status: 429, Header: map[string]string{"Retry-After": "2"}},
	"500":           {Status: 500},
	"502-html":      {Status: 502, Body: "<html><head><title>502 Server Error</title></head><body><h1>Error: Server Error</h1></body></html>"},
	"503":           {Status: 503},
	"apigee":        {Status: 500, Body: `{"fault":{"faultstring":"Execution failed","detail":{"errorcode":"steps.javascript.ScriptExecutionFailed"}}}`},
	"slow":          {Delay: 3 * time.Second},
	"slow-body":     {Pace: 250 * time.Millisecond},
	"hang":          {Delay: Forever},
	"reset-request": {Cut: CutRequest},
	"reset-answer":  {Cut: CutAnswer},
	"reset-header":  {Cut: CutHeader},
	"reset-body":    {Cut: CutBody, CutAfter: 64},
	"truncated":     {Cut: CutShort, CutAfter: 64},
	"early-hints":   {Hints: map[string]string{"Link": "</style.css>; rel=preload"}},
	"trailers":      {Trailer: map[string]string{"X-Checksum": "0123abcd"}},
	"redirect":      {Status: 302, Header: map[string]string{"Location": "https://{host}/identity/whoami?moved=1"}},
	"redirect-away": {Status: 302, Header: map[string]string{"Location": "https://elsewhere.example/identity/whoami"}},
	"cookie":        {Header: map[string]string{"Set-Cookie": "session=abc; Path=/; Secure; HttpOnly"}},
	"huge-header":   {Header: map[string]string{"X-Huge": "{pad:1048576}"}},
	"goaway":        {Header: map[string]string{"Connection": "close"}},
	"proxy-like":    {Header: map[string]string{"X-Mimecast-Proxy-Error": "token_unavailable", "Access-Control-Allow-Origin": "*"}},
}

// FaultNames returns the names that [NamedFault] accepts, sorted.
func FaultNames() []string { return slices.Sorted(maps.Keys(namedFaults)) }

// NamedFault returns a copy of the fault with that name, which the caller may change. For
// an unknown name, the error lists the valid ones.
func NamedFault(name string) (Fault, error) {
	f, ok := namedFaults[name]
	if !ok {
		return f, fmt.Errorf("no fault is named %q; there are %s", name, strings.Join(FaultNames(), ", "))
	}
	f.Name = name
	f.Header, f.Hints, f.Trailer, f.Token = maps.Clone(f.Header), maps.Clone(f.Hints), maps.Clone(f.Trailer), maps.Clone(f.Token)
	return f, nil
}

// plainFault is a Fault without its methods.
type plainFault Fault

// faultJSON is a fault in JSON, with delays written as 1.5s or forever.
type faultJSON struct {
	*plainFault
	Delay string `json:"delay,omitempty"`
	Pace  string `json:"pace,omitempty"`
}

// MarshalJSON implements [json.Marshaler].
func (f Fault) MarshalJSON() ([]byte, error) {
	j := faultJSON{plainFault: (*plainFault)(&f)}
	switch {
	case f.Delay == Forever:
		j.Delay = "forever"
	case f.Delay > 0:
		j.Delay = f.Delay.String()
	}
	if f.Pace > 0 {
		j.Pace = f.Pace.String()
	}
	return json.Marshal(j)
}

// MarshalJSON implements [json.Marshaler]. The promoted method of Fault would omit the
// other fields.
func (a ArmedFault) MarshalJSON() ([]byte, error) {
	f, err := json.Marshal(a.Fault)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(f, &o); err != nil {
		return nil, err
	}
	o["id"], o["hits"], o["passed"] = a.ID, a.Hits, a.Passed
	return json.Marshal(o)
}

// ParseFault parses a fault in JSON, with delays such as 1.5s. If the fault has a name,
// the named fault supplies the fields that are not set. It returns an error if the fault
// is invalid.
func ParseFault(text []byte) (Fault, error) {
	var head struct{ Name string }
	if err := json.Unmarshal(text, &head); err != nil {
		return Fault{}, err
	}
	var f Fault
	if head.Name != "" {
		var err error
		if f, err = NamedFault(head.Name); err != nil {
			return f, err
		}
	}
	j := faultJSON{plainFault: (*plainFault)(&f)}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return f, err
	}
	for _, wait := range []struct {
		text string
		to   *time.Duration
	}{{j.Delay, &f.Delay}, {j.Pace, &f.Pace}} {
		if err := parseDelay(wait.text, wait.to); err != nil {
			return f, err
		}
	}
	return f, f.validate()
}

func parseDelay(text string, to *time.Duration) (err error) {
	switch text {
	case "":
	case "forever":
		*to = Forever
	default:
		*to, err = time.ParseDuration(text)
	}
	return err
}

// formFault converts a form, which is easier to type, to JSON. Examples are
// header=Name: value and token=expires_in=0.
func formFault(r *http.Request) ([]byte, error) {
	o := object{}
	for name, values := range r.PostForm {
		v := values[len(values)-1]
		switch name {
		case "skip", "count", "status", "size", "cutAfter":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s must be a whole number", name)
			}
			o[name] = n
		case "early":
			o[name] = v == "true"
		case "header", "hints", "trailer":
			o[name] = pairs(values, ":", func(text string) any { return text })
		case "token":
			o[name] = pairs(values, "=", jsonOrText)
		default:
			o[name] = v
		}
	}
	return json.Marshal(o)
}

func pairs(values []string, separator string, parse func(string) any) object {
	o := object{}
	for _, v := range values {
		name, value, _ := strings.Cut(v, separator)
		o[strings.TrimSpace(name)] = parse(strings.TrimSpace(value))
	}
	return o
}

func jsonOrText(text string) any {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return text
	}
	return v
}
