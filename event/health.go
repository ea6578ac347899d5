package event

import (
	"slices"
	"time"
)

// HealthState says how well the proxy does what it is for.
type HealthState string

// The states of health.
const (
	HealthOK       HealthState = "ok"       // nothing to do
	HealthDegraded HealthState = "degraded" // some requests fail, or soon will
	HealthDown     HealthState = "down"     // at least half of the requests fail, or all would
)

// HealthStates lists all of them, from best to worst.
var HealthStates = []HealthState{HealthOK, HealthDegraded, HealthDown}

// Worse reports whether s is a worse state than other.
func (s HealthState) Worse(other HealthState) bool {
	return slices.Index(HealthStates, s) > slices.Index(HealthStates, other)
}

// Cause is why the health is not ok: a [Code], or a condition that shows without a
// request that failed.
type Cause string

// The causes that are no codes.
const (
	CauseTokenPending    Cause = "token_pending"
	CauseTokenNotRenewed Cause = "token_not_renewed"
	CauseNearCapacity    Cause = "near_capacity"
	CauseMimecastStalled Cause = "mimecast_stalled"
	CauseMimecastSlow    Cause = "mimecast_slow"
	CauseProxySlow       Cause = "proxy_slow"
)

// Condition is what a cause that is no code means, as [Kind] is for codes.
type Condition struct {
	Cause           Cause
	Component       Component
	Summary, Remedy string
}

var conditions = []Condition{
	{CauseTokenPending, ComponentMimecast, "The proxy is fetching a token", "Wait. If this lasts, run mimecast-proxy check."},
	{CauseTokenNotRenewed, ComponentMimecast, "The token cannot be renewed; requests still succeed until it expires", "The proxy keeps trying. See the last token error, and Mimecast's service status."},
	{CauseNearCapacity, ComponentProxy, "More than 90 % of PROXY_MAX_REQUESTS are in flight", "See whether Mimecast is slow or a client sends too many, or raise the limit."},
	{CauseMimecastStalled, ComponentMimecast, "Requests wait, and Mimecast sends no response", "See Mimecast's service status. PROXY_RESPONSE_TIMEOUT sets how long the proxy waits."},
	{CauseMimecastSlow, ComponentMimecast, "Mimecast takes more than 5 s for at least half of the requests", "See Mimecast's service status, and check what the client asks for."},
	{CauseProxySlow, ComponentProxy, "The proxy adds more than 100 ms to at least half of the requests", "Check this machine's load and the proxy's CPU limit."},
}

// Conditions returns the table of the causes that are no codes.
func Conditions() []Condition { return slices.Clone(conditions) }

// Condition returns what a cause means, whether it is a code or not.
func (c Cause) Condition() Condition {
	if i := slices.IndexFunc(conditions, func(d Condition) bool { return d.Cause == c }); i >= 0 {
		return conditions[i]
	}
	k := Code(c).Kind()
	return Condition{c, k.Component, k.Summary, k.Remedy}
}

// Health is the one judgment of how the proxy is. Page, probes, metrics, log and alerts all
// read it.
type Health struct {
	Judgment
	// Recovered is the last time that it became ok; nil if it never did.
	Recovered *Recovery `json:"recovered,omitempty"`
	// History is how the state changed, newest first: up to 50 changes.
	History []HealthChange `json:"history"`
	// Accounts and Clients are judged each by its requests alone; Clients are those with
	// names that have sent requests.
	Accounts []NamedJudgment `json:"accounts"`
	Clients  []NamedJudgment `json:"clients"`
}

// Judgment is a state with its reason.
type Judgment struct {
	State HealthState `json:"state"`
	// Component and Cause are empty if the state is ok.
	Component Component `json:"component,omitempty"`
	Cause     Cause     `json:"cause,omitempty"`
	// Account and Client are the ones to look at; empty if the cause concerns all, or if
	// there is only one.
	Account string `json:"account,omitempty"`
	Client  string `json:"client,omitempty"`
	// Text is one sentence on the state, and Advice what to do; Advice may be empty.
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
	// Since is when the state or its cause began.
	Since time.Time `json:"since"`
	// Requests are those of the last WindowSeconds, without rejected ones and those that
	// failed for a cause that has ended; Failed are those of them that failed. AffectedShare is
	// their share, from 0 to 1. Of an account that is down without a token it is 1, since all
	// of its requests would fail. For several accounts it is that account's part of them.
	WindowSeconds int     `json:"window_seconds"`
	Requests      int     `json:"requests"`
	Failed        int     `json:"failed"`
	AffectedShare float64 `json:"affected_share"`
}

// NamedJudgment is the judgment of an account or a client.
type NamedJudgment struct {
	Name string `json:"name"`
	Judgment
}

// Recovery says when the health became ok, and what had been wrong until then.
type Recovery struct {
	At        time.Time   `json:"at"`
	State     HealthState `json:"state"`
	Component Component   `json:"component"`
	Cause     Cause       `json:"cause"`
	// Since is when it had stopped being ok.
	Since time.Time `json:"since"`
}

// HealthChange is a change of the state or its cause.
type HealthChange struct {
	At        time.Time   `json:"at"`
	State     HealthState `json:"state"`
	Component Component   `json:"component,omitempty"`
	Cause     Cause       `json:"cause,omitempty"`
	Account   string      `json:"account,omitempty"`
}

// Outcome is how a request ended.
type Outcome struct {
	At time.Time
	// Method, Path and Status are those of the log.
	Method, Path string
	Status       int
	// Client is empty for a client without a name. Account is empty for the default one.
	Client, Account string
	// Code is what went wrong; empty for nothing.
	Code Code
	// Own is what the proxy took until the response began, and Upstream what Mimecast
	// took; both are 0 if it was not sent on.
	Own, Upstream time.Duration
	// Waited is how long Mimecast had the request without a response; 0 if there was one.
	Waited time.Duration
	// Answered is when the API last responded to it; zero if it did not. The host of batch
	// files does not count. Local says that no host responded.
	Answered time.Time
	Local    bool
	// LimitOwner is whose limit the request exceeds, the client's or Mimecast's; empty if
	// it exceeds none or the proxy's.
	LimitOwner Component
}

// Waiting is an in-flight request to which Mimecast has not responded.
type Waiting struct {
	Account string
	// Since is when it was sent, or the client's last byte came.
	Since time.Time
}

// Token is what metrics say of an account's token.
type Token struct {
	Account string
	// Expiry is zero before the first token.
	Expiry time.Time
	// Usable says that it has not expired, and that Mimecast has not rejected it.
	Usable bool
}

// Fault reports whether something other than the client went wrong with a request.
func (c Code) Fault() bool { return c != "" && c.Kind().Component != ComponentClient }

// TokenFault reports whether the cause is the lack of a token that Mimecast accepts: a new
// token ends such a fault.
func (c Code) TokenFault() bool {
	return c == TokenUnavailable || c == CredentialsRefused || c == MimecastUnauthorized
}
