package mimecast

import "strings"

// Paths of API 1.0 calls that API 2.0 lacks and the proxy can serve.
const (
	DiscoverPath = "/api/login/discover-authentication"
	LoginPath    = "/api/login/login"
	LogoutPath   = "/api/login/logout"
	SIEMLogsPath = "/api/audit/get-siem-logs"
)

// Paths of the API 2.0 functions that return events of the cloud gateway.
const (
	SIEMStreamPath = "/siem/v1/events/cg"
	SIEMBatchPath  = "/siem/v1/batch/events/cg"
)

// API1Call is a call that exists only in API 1.0.
type API1Call struct {
	// Path is the call's path. If it ends in "/", it stands for every call below it.
	Path string
	// Replacement is the API 2.0 function to use instead; empty if none is known.
	Replacement string
}

// API1Calls are the calls that exist only in API 1.0. The list comes from public client
// programs and was compared with API 2.0's catalog. It was not tested with an account.
var API1Calls = []API1Call{
	{DiscoverPath, "no login: the proxy adds the token"},
	{LoginPath, "no login: the proxy adds the token"},
	{LogoutPath, "no login: the proxy adds the token"},
	{SIEMLogsPath, "GET " + SIEMStreamPath + " or GET " + SIEMBatchPath},
	{"/api/account/create-account", ""},
	{"/api/awareness-training/campaign/get-campaigns", "POST /api/awareness-training/phishing/campaign/get-campaign"},
	{"/api/awareness-training/campaign/get-user-data", "POST /api/awareness-training/phishing/campaign/get-user-data"},
	{"/api/user/get-profile", "POST /api/user/get-attributes"},
	{"/api/directory/get-group", "POST /api/directory/find-groups"},
	{"/api/gateway/message/get-message-detail", "POST /api/message-finder/get-message-info"},
	{"/api/delegate/", "POST /api/user/find-delegate-users or POST /api/user/add-delegate-user"},
}

// API1Only returns the API 1.0 call at a path. ok is false if no entry of [API1Calls]
// matches.
func API1Only(path string) (call API1Call, ok bool) {
	for _, c := range API1Calls {
		if path == c.Path || strings.HasSuffix(c.Path, "/") && strings.HasPrefix(path, c.Path) {
			return c, true
		}
	}
	return call, false
}
