package event

import "time"

// Snapshot is what happened lately. Its JSON keys are stable: keys may be added, none
// changes its meaning.
type Snapshot struct {
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started"`
	Version  string    `json:"version"`
	InFlight int64     `json:"in_flight"`
	// BusySince is since when there has been a request in flight at any time;
	// zero while there is none.
	BusySince time.Time `json:"busy_since,omitzero"`
	// Renewing says that a token request is under way. TokenEvents are the
	// last ones, newest first; TokenFailure is the last that failed, however
	// long ago.
	Renewing     bool         `json:"renewing"`
	TokenEvents  []TokenEvent `json:"token_events"`
	TokenFailure *TokenEvent  `json:"token_failure,omitempty"`
	// Running are the in-flight requests, the oldest first: up to 50.
	Running []Running `json:"running"`
	// Total counts the requests since the start, LastMinute those of the last
	// minute.
	Total      uint64 `json:"total"`
	LastMinute uint32 `json:"last_minute"`
	// Points are the last WindowSeconds in steps of StepSeconds, oldest first. The
	// last step has not ended yet.
	WindowSeconds int     `json:"window_seconds"`
	StepSeconds   int     `json:"step_seconds"`
	Points        []Point `json:"points"`
	Latency       Latency `json:"latency"`
	// Requests are the last ones, newest first: up to 200, and up to 50 more
	// that were rejected.
	Requests []Request `json:"requests"`
	// Errors are the last ones that went wrong, newest first: up to 50, and up to 50 more
	// that were rejected. They stay when others push them out of Requests.
	Errors []Request `json:"errors"`
	// Faults are what went wrong in the window, the most frequent of the last
	// minute first; Denials what was rejected since the start.
	Faults  []Fault  `json:"faults"`
	Denials []Denial `json:"denials"`
	// Retries counts how Mimecast's 401 responses ended, by outcome.
	Retries map[RetryOutcome]uint64 `json:"retries"`
	// Clients are the clients with names that have sent a request, by name. Routes are
	// those of PROXY_ALLOW, and "other" if a request matched none; empty without them.
	Clients []Client `json:"clients"`
	Routes  []Route  `json:"routes"`
	// RateLimit is what Mimecast last said of its quota; null before it did.
	RateLimit *RateLimit `json:"rate_limit"`
	// Quotas are what is known of each function's quota, by account and path.
	Quotas []Quota `json:"quotas"`
}

// Request is a request that has ended.
type Request struct {
	// Seq numbers the requests since the start.
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	RequestID string    `json:"request_id"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Status    int       `json:"status"`
	// DurationMS is the whole time; OwnMS what the proxy took of it until the
	// response began, UpstreamMS what Mimecast took until its response began. The
	// rest is transfer.
	DurationMS float64 `json:"duration_ms"`
	OwnMS      float64 `json:"own_ms"`
	UpstreamMS float64 `json:"upstream_ms"`
	BytesIn    int64   `json:"bytes_in"`
	BytesOut   int64   `json:"bytes_out"`
	Retried    bool    `json:"retried,omitempty"`
	// Client is the name of the client or, without one, its address; Peer is its address
	// in either case. Account is empty for a client without a name.
	Client     string    `json:"client"`
	Peer       string    `json:"peer"`
	Account    string    `json:"account,omitempty"`
	Route      string    `json:"route,omitempty"`
	MimecastID string    `json:"mimecast_request_id,omitempty"`
	TraceID    string    `json:"trace_id,omitempty"`
	Aborted    AbortedBy `json:"aborted,omitempty"`
	// Fault and Component say what went wrong and where to look; empty for a
	// request that did not. Error is the log's explanation.
	Fault     Code      `json:"fault,omitempty"`
	Component Component `json:"component,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Running is an in-flight request.
type Running struct {
	RequestID string    `json:"request_id"`
	Began     time.Time `json:"began"`
	AgeMS     float64   `json:"age_ms"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	// Client is as in [Request].
	Client  string `json:"client"`
	Account string `json:"account,omitempty"`
	BytesIn int64  `json:"bytes_in"`
	Phase   Phase  `json:"phase"`
}

// Point is what happened in one step of a [Snapshot].
type Point struct {
	// T is when it began, in Unix seconds.
	T        int64  `json:"t"`
	Requests uint32 `json:"requests"`
	// These are the requests that went wrong, by component.
	Client      uint32 `json:"client,omitempty"`
	Proxy       uint32 `json:"proxy,omitempty"`
	Credentials uint32 `json:"credentials,omitempty"`
	Mimecast    uint32 `json:"mimecast,omitempty"`
	// OwnMS and UpstreamMS are means over the requests that Mimecast responded to.
	OwnMS      float64 `json:"own_ms"`
	UpstreamMS float64 `json:"upstream_ms"`
}

// Latency says how the time until a response begins is shared between the proxy and
// Mimecast, over the requests of the window that Mimecast responded to. The values are
// estimated from histograms.
type Latency struct {
	Count         int     `json:"count"`
	OwnP50MS      float64 `json:"own_p50_ms"`
	OwnP95MS      float64 `json:"own_p95_ms"`
	UpstreamP50MS float64 `json:"upstream_p50_ms"`
	UpstreamP95MS float64 `json:"upstream_p95_ms"`
}

// Fault is how often requests went wrong in one way.
type Fault struct {
	Code      Code      `json:"code"`
	Component Component `json:"component"`
	// Rejected is [Kind.Rejected].
	Rejected bool `json:"rejected,omitempty"`
	// LastMinute and Window count the requests; Window is that of the snapshot.
	LastMinute uint32    `json:"last_minute"`
	Window     uint32    `json:"window"`
	LastAt     time.Time `json:"last_at"`
	LastError  string    `json:"last_error,omitempty"`
}

// Denial is how often requests were rejected for one reason, since the start.
type Denial struct {
	Reason Code   `json:"reason"`
	Count  uint64 `json:"count"`
	// Passed is how many of them were let through, in report mode.
	Passed uint64 `json:"passed,omitempty"`
	// Window and WindowPassed are Count and Passed in the window of the snapshot.
	Window       uint32    `json:"window"`
	WindowPassed uint32    `json:"window_passed,omitempty"`
	LastAt       time.Time `json:"last_at"`
	LastMethod   string    `json:"last_method,omitempty"`
	LastPath     string    `json:"last_path,omitempty"`
}

// RateLimit is what Mimecast last said about its quota. It counts by function
// and application, and which function this is of depends on the request.
type RateLimit struct {
	// Limit and Remaining are nil if the response did not state them.
	Limit     *float64 `json:"limit,omitempty"`
	Remaining *float64 `json:"remaining,omitempty"`
	// ResetMS is the time until the quota resets, in milliseconds from SeenAt.
	ResetMS *float64  `json:"reset_ms,omitempty"`
	SeenAt  time.Time `json:"seen_at"`
}

// TokenEvent is a token request that has ended.
type TokenEvent struct {
	Time       time.Time    `json:"time"`
	Account    string       `json:"account"`
	Trigger    TokenTrigger `json:"trigger"`
	Outcome    TokenOutcome `json:"outcome"`
	DurationMS float64      `json:"duration_ms"`
	// Expiry is that of the token; zero if there is none.
	Expiry time.Time `json:"expiry,omitzero"`
	Error  string    `json:"error,omitempty"`
}

// Usage counts requests of one kind in the window of a [Snapshot].
type Usage struct {
	Requests uint32 `json:"requests"`
	// Failed are those that went wrong, except those that the proxy rejected.
	Failed   uint32 `json:"failed"`
	Rejected uint32 `json:"rejected"`
	// P95MS is the time that 95 % of those that were not rejected took, in milliseconds,
	// estimated from a histogram.
	P95MS float64 `json:"p95_ms"`
	// LastAt is when the last one ended, which may be before the window; zero for none.
	LastAt time.Time `json:"last_at,omitzero"`
}

// Client is what a client with a name has sent.
type Client struct {
	Name    string `json:"name"`
	Account string `json:"account"`
	Usage
}

// Route is what was sent to a route.
type Route struct {
	// Pattern is as in PROXY_ALLOW, presets expanded.
	Pattern string `json:"route"`
	Usage
}
