package mimecast

import "net/http"

// Function is a read-only function of API 2.0, with a request that reads little.
type Function struct {
	// Product is the name of the product that the function belongs to. An application's
	// products are chosen when it is created.
	Product string
	// Method is the HTTP method.
	Method string
	// Path includes the query. Body is JSON; empty means no body.
	Path, Body string
}

// firstPage requests one entry from a function under /api.
const firstPage = `{"meta":{"pagination":{"pageSize":1}},"data":[{}]}`

// Products has one harmless function per product. None changes anything, returns mail,
// or leaves an entry in an archive or audit log.
var Products = []Function{
	{"Account", http.MethodPost, "/api/account/get-account", `{"data":[]}`},
	{"Audit events", http.MethodPost, "/api/audit/get-categories", `{"data":[]}`},
	{"SIEM events, stream", http.MethodGet, "/siem/v1/events/cg?types=receipt&pageSize=1", ""},
	{"SIEM events, batch files", http.MethodGet, "/siem/v1/batch/events/cg?type=receipt&pageSize=1", ""},
	{"URL protection logs", http.MethodPost, "/api/ttp/url/get-logs", firstPage},
	{"Attachment protection logs", http.MethodPost, "/api/ttp/attachment/get-logs", firstPage},
	{"Impersonation protection logs", http.MethodPost, "/api/ttp/impersonation/get-logs", firstPage},
	{"Data leak prevention logs", http.MethodPost, "/api/dlp/get-logs", firstPage},
	{"Archive search logs", http.MethodPost, "/api/archive/get-archive-search-logs", firstPage},
	{"Held messages", http.MethodPost, "/api/gateway/get-hold-message-list", firstPage},
	{"Policies", http.MethodGet, "/policy-management/cloud-gateway/v1/blocked-senders/policies?pageSize=1", ""},
	{"Security events", http.MethodGet, "/threats/v1/events?pageSize=1", ""},
	{"Partner", http.MethodGet, "/partner/v1/customers?pageSize=1", ""},
}
