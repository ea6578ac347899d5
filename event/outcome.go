package event

// RetryOutcome says how a 401 of Mimecast's ended.
type RetryOutcome string

// The outcomes of a 401.
const (
	RetryRecovered         RetryOutcome = "recovered"          // the response to the second attempt was not 401
	RetryStillUnauthorized RetryOutcome = "still_unauthorized" // it was
	RetryNotReplayable     RetryOutcome = "not_replayable"     // the body was gone: the 401 went to the client
	RetryRenewalFailed     RetryOutcome = "renewal_failed"     // no new token
	RetryTokenFresh        RetryOutcome = "token_fresh"        // the token is new: the 401 has another cause
)

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

// TokenTrigger says why a token was requested.
type TokenTrigger string

// The triggers of a token request.
const (
	TriggerStartup      TokenTrigger = "startup"      // no token was ever held
	TriggerExpiry       TokenTrigger = "expiry"       // the held token is about to expire, or has
	TriggerUnauthorized TokenTrigger = "unauthorized" // Mimecast rejected the held token
	TriggerCredentials  TokenTrigger = "credentials"  // they changed since the last request
)

// TokenOutcome says how a token request ended.
type TokenOutcome string

// The outcomes of a token request.
const (
	TokenOK TokenOutcome = "ok"
	// TokenRefused: the token endpoint does not accept the credentials. Nothing
	// helps but other ones.
	TokenRefused TokenOutcome = "refused"
	// TokenFailed: the token endpoint could not be asked, or gave no usable
	// response.
	TokenFailed TokenOutcome = "unavailable"
)
