package admin

import (
	"net/http"
	"time"
)

// Status is what /api/status answers and what the page shows. Its keys are
// stable: keys may be added, none changes its meaning. No secret, token, query
// string, header value or body is anywhere in it.
type Status struct {
	// Verdict is reached by this package.
	Verdict Verdict   `json:"verdict"`
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	Account Account   `json:"account"`
	// Listen is where the proxy takes requests.
	Listen   string `json:"listen"`
	Draining bool   `json:"draining"`
	// InFlight are the requests being served, of MaxRequests that may be; 0
	// means that there is no bound.
	InFlight    int64 `json:"in_flight"`
	MaxRequests int   `json:"max_requests"`
	// BusySince is since when there has been a request in flight at any time;
	// zero while there is none.
	BusySince time.Time  `json:"busy_since,omitzero"`
	Token     TokenState `json:"token"`
	// Renewing says that a token request is under way. TokenEvents are the
	// last ones, newest first; TokenFailure is the last that failed, however
	// long ago.
	Renewing     bool         `json:"renewing"`
	TokenEvents  []TokenEvent `json:"token_events"`
	TokenFailure *TokenEvent  `json:"token_failure,omitempty"`
	// Total counts the requests since the start, LastMinute those of the last
	// minute.
	Total      uint64 `json:"total"`
	LastMinute uint32 `json:"last_minute"`
	// Points are the last WindowSeconds in steps of StepSeconds, oldest first.
	WindowSeconds int     `json:"window_seconds"`
	StepSeconds   int     `json:"step_seconds"`
	Points        []Point `json:"points"`
	Latency       Latency `json:"latency"`
	// Requests are the last ones, newest first: up to 200, and up to 50 more
	// that were rejected.
	Requests []Request `json:"requests"`
	// Faults are what went wrong in the window, the most frequent of the last
	// minute first; Denials what was refused since the start. ReportOnly says
	// that routes are only reported.
	Faults     []Fault  `json:"faults"`
	Denials    []Denial `json:"denials"`
	ReportOnly bool     `json:"report_only"`
	// Retries counts how Mimecast's 401 answers ended, by outcome.
	Retries map[string]uint64 `json:"retries"`
	// RateLimit is what Mimecast last said of its quota; null before it did.
	RateLimit *RateLimit `json:"rate_limit"`
	// Warnings are what is odd about the configuration and the machine.
	Warnings []string `json:"warnings"`
}

// Account says whose API is called, and where.
type Account struct {
	// ClientID is shown shortened, whatever its length here.
	ClientID string `json:"client_id"`
	Region   string `json:"region"`
	BaseURL  string `json:"base_url"`
}

// TokenEvent is a token request that is over. Trigger is startup, expiry or
// unauthorized; Outcome is ok, refused or unavailable.
type TokenEvent struct {
	Time       time.Time `json:"time"`
	Trigger    string    `json:"trigger"`
	Outcome    string    `json:"outcome"`
	DurationMS float64   `json:"duration_ms"`
	Expiry     time.Time `json:"expiry,omitzero"`
	Error      string    `json:"error,omitempty"`
}

// Point is what happened in one step: requests, and how many of them went
// wrong by where to look; then the means over those that Mimecast answered.
type Point struct {
	T          int64   `json:"t"` // Unix seconds
	Requests   uint32  `json:"requests"`
	Tool       uint32  `json:"tool,omitempty"`
	Proxy      uint32  `json:"proxy,omitempty"`
	Token      uint32  `json:"token,omitempty"`
	Mimecast   uint32  `json:"mimecast,omitempty"`
	OwnMS      float64 `json:"own_ms"`
	UpstreamMS float64 `json:"upstream_ms"`
}

// Latency says how the time until an answer begins is shared between the proxy
// and Mimecast, over the last requests.
type Latency struct {
	Count         int     `json:"count"`
	OwnP50MS      float64 `json:"own_p50_ms"`
	OwnP95MS      float64 `json:"own_p95_ms"`
	UpstreamP50MS float64 `json:"upstream_p50_ms"`
	UpstreamP95MS float64 `json:"upstream_p95_ms"`
}

// Request is a request that is over.
type Request struct {
	Seq        uint64    `json:"seq"`
	Time       time.Time `json:"time"`
	RequestID  string    `json:"request_id"`
	Method     string    `json:"method"`
	Path       string    `json:"path"`
	Status     int       `json:"status"`
	DurationMS float64   `json:"duration_ms"`
	OwnMS      float64   `json:"own_ms"`
	UpstreamMS float64   `json:"upstream_ms"`
	BytesIn    int64     `json:"bytes_in"`
	BytesOut   int64     `json:"bytes_out"`
	Retried    bool      `json:"retried,omitempty"`
	Client     string    `json:"client"`
	Route      string    `json:"route,omitempty"`
	MimecastID string    `json:"mimecast_request_id,omitempty"`
	TraceID    string    `json:"trace_id,omitempty"`
	Aborted    string    `json:"aborted,omitempty"` // by client, upstream or proxy
	// Fault and Culprit say what went wrong and where to look.
	Fault   string `json:"fault,omitempty"`
	Culprit string `json:"culprit,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Fault is one way in which requests went wrong. Culprit is tool, proxy, token
// or mimecast.
type Fault struct {
	Code       string    `json:"code"`
	Culprit    string    `json:"culprit"`
	Rejected   bool      `json:"rejected,omitempty"` // before anything was sent to Mimecast, for the client's fault
	LastMinute uint32    `json:"last_minute"`
	Window     uint32    `json:"window"`
	LastAt     time.Time `json:"last_at"`
	LastError  string    `json:"last_error,omitempty"`
}

// Denial is one reason for which requests were refused; Passed of them were
// let through all the same, in report mode.
type Denial struct {
	Reason     string    `json:"reason"`
	Count      uint64    `json:"count"`
	Passed     uint64    `json:"passed,omitempty"`
	LastAt     time.Time `json:"last_at"`
	LastMethod string    `json:"last_method,omitempty"`
	LastPath   string    `json:"last_path,omitempty"`
}

// RateLimit is null in what Mimecast did not say. ResetMS counts from SeenAt.
type RateLimit struct {
	Limit     *float64  `json:"limit,omitempty"`
	Remaining *float64  `json:"remaining,omitempty"`
	ResetMS   *float64  `json:"reset_ms,omitempty"`
	SeenAt    time.Time `json:"seen_at"`
}

// current returns the status as it is shown.
func (h *handler) current() Status {
	s := h.options.Status()
	s.Account.ClientID = shorten(s.Account.ClientID)
	s.Token = h.options.Token()
	s.Draining = h.draining()
	s.Verdict = judge(&s)
	return s
}

// shorten returns enough of a client ID to tell one from another.
func shorten(id string) string {
	const kept = 6
	if runes := []rune(id); len(runes) > kept {
		return string(runes[:kept]) + "…"
	}
	return id
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, h.current())
}
