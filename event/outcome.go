package event

// UnauthorizedReason is why Mimecast responded 401, by its own code.
type UnauthorizedReason string

// The reasons that matter to the proxy; ReasonOther is all else.
const (
	ReasonOther             UnauthorizedReason = "other"
	ReasonTokenExpired      UnauthorizedReason = "token_expired"
	ReasonTokenVerification UnauthorizedReason = "token_verification_failed"
)

// UnauthorizedReasons lists all of them.
var UnauthorizedReasons = []UnauthorizedReason{ReasonOther, ReasonTokenExpired, ReasonTokenVerification}

// UnauthorizedReasonOf returns the reason for an error code from Mimecast.
func UnauthorizedReasonOf(code string) UnauthorizedReason {
	return oneOf(code, UnauthorizedReasons, ReasonOther)
}

// RetryOutcome says how a 401 from Mimecast ended.
type RetryOutcome string

// The outcomes of a 401.
const (
	RetryRecovered         RetryOutcome = "recovered"          // the response to the second attempt was not 401
	RetryStillUnauthorized RetryOutcome = "still_unauthorized" // it was
	RetryNotReplayable     RetryOutcome = "not_replayable"     // the body was gone: the 401 went to the client
	RetryRenewalFailed     RetryOutcome = "renewal_failed"     // no new token
	RetryTokenFresh        RetryOutcome = "token_fresh"        // the token is new: the 401 has another cause
)

// RetryOutcomes lists all of them.
var RetryOutcomes = []RetryOutcome{RetryRecovered, RetryStillUnauthorized, RetryNotReplayable, RetryRenewalFailed, RetryTokenFresh}

var retrySummaries = map[RetryOutcome]string{
	RetryRecovered:         "resolved by a new token",
	RetryStillUnauthorized: "repeated with a new token",
	RetryNotReplayable:     "not retried: the request body was too large to keep",
	RetryRenewalFailed:     "not retried: the token endpoint issued no new token",
	RetryTokenFresh:        "not retried: the token was new",
}

// Summary continues "N responses with 401 were …".
func (o RetryOutcome) Summary() string { return retrySummaries[o] }

// Resent reports whether the request was sent to Mimecast again.
func (o RetryOutcome) Resent() bool { return o == RetryRecovered || o == RetryStillUnauthorized }

// HoldOutcome says how holding a request that got 429 ended.
type HoldOutcome string

// The outcomes of a held request.
const (
	HoldRecovered     HoldOutcome = "recovered"      // the response to a later attempt was not 429
	HoldStillLimited  HoldOutcome = "still_limited"  // there was no time for another attempt
	HoldTooLong       HoldOutcome = "too_long"       // the reset was too far away, or not named, or too many waited
	HoldNotReplayable HoldOutcome = "not_replayable" // the body was gone
	HoldAbandoned     HoldOutcome = "abandoned"      // the client went away
)

// HoldOutcomes lists all of them.
var HoldOutcomes = []HoldOutcome{HoldRecovered, HoldStillLimited, HoldTooLong, HoldNotReplayable, HoldAbandoned}

// TokenTrigger says why a token was requested.
type TokenTrigger string

// The triggers of a token request.
const (
	TriggerStartup      TokenTrigger = "startup"      // no token was ever held
	TriggerExpiry       TokenTrigger = "expiry"       // the held token is about to expire, or has
	TriggerUnauthorized TokenTrigger = "unauthorized" // Mimecast rejected the held token
	TriggerCredentials  TokenTrigger = "credentials"  // they changed since the last request
)

// TokenTriggers lists all of them.
var TokenTriggers = []TokenTrigger{TriggerStartup, TriggerExpiry, TriggerUnauthorized, TriggerCredentials}

var triggerSummaries = map[TokenTrigger]string{
	TriggerStartup:      "at startup",
	TriggerExpiry:       "before the previous token expired",
	TriggerUnauthorized: "after Mimecast's 401",
	TriggerCredentials:  "after the credentials changed",
}

// Summary continues "The proxy requested a token …".
func (t TokenTrigger) Summary() string { return triggerSummaries[t] }

// TokenOutcome says how a token request ended.
type TokenOutcome string

// The outcomes of a token request.
const (
	TokenOK TokenOutcome = "ok"
	// TokenRefused: the token endpoint does not accept the credentials. Only others
	// help.
	TokenRefused TokenOutcome = "refused"
	// TokenFailed: the token endpoint could not be asked, or gave no usable
	// response.
	TokenFailed TokenOutcome = "unavailable"
)

// TokenOutcomes lists all of them.
var TokenOutcomes = []TokenOutcome{TokenOK, TokenRefused, TokenFailed}

// AbortedBy says which side cut a response short.
type AbortedBy string

// The sides.
const (
	AbortedByClient   AbortedBy = "client"
	AbortedByUpstream AbortedBy = "upstream"
	AbortedByProxy    AbortedBy = "proxy"
)

// AbortedBySides lists all of them.
var AbortedBySides = []AbortedBy{AbortedByClient, AbortedByUpstream, AbortedByProxy}

// FileVariable is a variable that names a file which is read again while the proxy runs.
type FileVariable string

// The variables; FileOther is for one that is not listed.
const (
	FileOther        FileVariable = "other"
	FileProfile      FileVariable = "MIMECAST_PROFILE" // a stored connection
	FileClientID     FileVariable = "MIMECAST_CLIENT_ID_FILE"
	FileClientSecret FileVariable = "MIMECAST_CLIENT_SECRET_FILE"
	FileCA           FileVariable = "MIMECAST_CA_FILE"
	FileAPIKey       FileVariable = "PROXY_API_KEY_FILE"
	FileClients      FileVariable = "PROXY_CLIENTS_FILE"
	FileTLSCert      FileVariable = "PROXY_TLS_CERT_FILE"
	FileTLSKey       FileVariable = "PROXY_TLS_KEY_FILE"
)

// FileVariables lists all of them but FileOther.
var FileVariables = []FileVariable{FileProfile, FileClientID, FileClientSecret, FileCA, FileAPIKey, FileClients, FileTLSCert, FileTLSKey}

// FileVariableOf returns the variable of that name.
func FileVariableOf(name string) FileVariable { return oneOf(name, FileVariables, FileOther) }

// ReloadOutcome says how a reload of a file ended.
type ReloadOutcome string

// The outcomes of a reload.
const (
	ReloadChanged  ReloadOutcome = "changed"  // a new version is in force
	ReloadFailed   ReloadOutcome = "failed"   // the file cannot be used, and the last good version stays in force
	ReloadRestored ReloadOutcome = "restored" // the file can be used again, and holds what is in force
)

// ReloadOutcomes lists all of them.
var ReloadOutcomes = []ReloadOutcome{ReloadChanged, ReloadFailed, ReloadRestored}

// InterceptOutcome says how a client's use of the forward proxy ended.
type InterceptOutcome string

// The outcomes of a tunnel, and of a request that opened none.
const (
	InterceptTerminated      InterceptOutcome = "terminated"       // a tunnel to Mimecast, whose requests were served
	InterceptTunneled        InterceptOutcome = "tunneled"         // a tunnel to another host, until one side ended it
	InterceptIdle            InterceptOutcome = "idle_timeout"     // a tunnel to another host, closed because no byte came
	InterceptHandshakeFailed InterceptOutcome = "handshake_failed" // a tunnel to Mimecast without TLS, or the client does not trust the CA
	InterceptUnreachable     InterceptOutcome = "unreachable"      // the other host
	InterceptUnauthorized    InterceptOutcome = "unauthorized"     // no password, or a wrong one
	InterceptNotAllowed      InterceptOutcome = "not_allowed"      // a target that is malformed or not allowed
	InterceptTooBusy         InterceptOutcome = "too_busy"         // too many tunnels
	InterceptClientGone      InterceptOutcome = "client_gone"      // the client left before the tunnel was open
	InterceptShutdown        InterceptOutcome = "shutdown"         // the proxy's, which cut or rejected the tunnel
	InterceptFailed          InterceptOutcome = "failed"           // an internal error of the proxy
)

// InterceptOutcomes lists all of them.
var InterceptOutcomes = []InterceptOutcome{
	InterceptTerminated, InterceptTunneled, InterceptIdle, InterceptHandshakeFailed, InterceptUnreachable, InterceptUnauthorized,
	InterceptNotAllowed, InterceptTooBusy, InterceptClientGone, InterceptShutdown, InterceptFailed,
}

// Phase is what an in-flight request waits for.
type Phase string

// The phases of an in-flight request.
const (
	PhaseProxy    Phase = "proxy"    // a check, a token, or a rate limit
	PhaseClient   Phase = "client"   // the client, for the rest of the request body
	PhaseMimecast Phase = "mimecast" // Mimecast, for the response
	PhaseResponse Phase = "response" // the response has begun
)

// Phases lists all of them.
var Phases = []Phase{PhaseProxy, PhaseClient, PhaseMimecast, PhaseResponse}
