package mimecast

import "strings"

// The calls of API 1.0 that the proxy can serve although API 2.0 lacks them.
const (
	DiscoverPath = "/api/login/discover-authentication"
	LoginPath    = "/api/login/login"
	LogoutPath   = "/api/login/logout"
	SIEMLogsPath = "/api/audit/get-siem-logs"
)

// The functions of API 2.0 that have the events of the cloud gateway.
const (
	SIEMStreamPath = "/siem/v1/events/cg"
	SIEMBatchPath  = "/siem/v1/batch/events/cg"
)

// API1Call is a call that exists in API 1.0 only.
type API1Call struct {
	// Path is the call's; one that ends in "/" stands for each call under it.
	Path string
	// Replacement is what to use in API 2.0 instead; empty if nothing is known.
	Replacement string
}

// API1Calls are the calls that exist in API 1.0 only. The list was read in public tools
// and compared with API 2.0's catalog, not tried on an account.
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

// API1Only returns the call that a path is of, if it exists in API 1.0 only.
func API1Only(path string) (call API1Call, ok bool) {
	for _, c := range API1Calls {
		if path == c.Path || strings.HasSuffix(c.Path, "/") && strings.HasPrefix(path, c.Path) {
			return c, true
		}
	}
	return call, false
}
