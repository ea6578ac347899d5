package simulator

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// methods are the handlers of one path by method.
type methods map[string]http.HandlerFunc

func (m methods) find(method string) http.HandlerFunc {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		return h
	}
	return m["*"]
}

func (m methods) allow() string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }

// routes maps paths to handlers. A path that ends in "/" matches each segment under it,
// and {} matches one segment in the middle. It replaces http.ServeMux, which redirects
// unclean paths: the simulator must see what the client sent.
type routes map[string]methods

func (rs routes) find(path string) methods {
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 || slash+1 == len(path) {
		return nil
	}
	if m, ok := rs[path]; ok {
		return m
	}
	if m, ok := rs[path[:slash+1]]; ok {
		return m
	}
	for _, pattern := range slices.Sorted(maps.Keys(rs)) {
		if strings.Contains(pattern, "{}") && matches(pattern, path) {
			return rs[pattern]
		}
	}
	return nil
}

// matches reports whether path matches a pattern with {} or a trailing "/".
func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || g != "" && (w == "{}" || w == "") })
}

// endpoints returns the routes of all functions.
func (s *Simulator) endpoints() routes {
	rs := routes{
		tokenPath:                        {http.MethodPost: s.token},
		echoPath:                         {"*": s.echo},
		"/identity/whoami":               {http.MethodGet: s.whoami},
		"/siem/v1/events/cg":             {http.MethodGet: s.siemStream("cg")},
		"/siem/v1/events/ci":             {http.MethodGet: s.siemStream("ci")},
		"/siem/v1/batch/events/cg":       {http.MethodGet: s.siemBatch("cg")},
		"/siem/v1/batch/events/ci":       {http.MethodGet: s.siemBatch("ci")},
		"/threats/v1/events":             {http.MethodGet: s.threatEvents},
		"/partner/v1/customers":          {http.MethodGet: s.customers},
		"/partner/v1/customers/":         {http.MethodGet: s.customer},
		rulesPath:                        {http.MethodGet: s.listRules, http.MethodPost: s.createRule},
		rulesPath + "/":                  {http.MethodGet: s.getRule, http.MethodPatch: s.patchRule, http.MethodDelete: s.deleteRule},
		contactPath:                      {http.MethodGet: s.getContact, http.MethodPatch: s.patchContact, http.MethodPut: s.putContact},
		domainsPath:                      {http.MethodGet: s.listDomains},
		domainsPath + "/":                {http.MethodGet: s.getDomain},
		"/api/archive/get-file":          {http.MethodPost: s.getFile},
		"/api/file/file-upload":          {http.MethodPost: s.fileUpload},
		"/api/user/import-users":         {http.MethodPost: s.importUsers},
		"/api/ttp/threat-intel/get-feed": {http.MethodPost: s.call(s.threatFeed)},
	}
	for path, f := range s.functions() {
		rs[path] = methods{http.MethodPost: s.call(f)}
	}
	s.addNotSimulated(rs)
	return rs
}

// functions are the older functions. All use POST, with the function's name in the path
// and its arguments in the body's data.
func (s *Simulator) functions() map[string]function {
	return map[string]function{
		"/api/account/get-account":             s.getAccount,
		"/api/account/get-support-info":        s.supportInfo,
		"/api/provisioning/get-packages":       s.provisionedPackages,
		"/api/domain/get-internal-domain":      s.internalDomains,
		"/api/email/get-email-queues":          s.emailQueues,
		"/api/audit/get-audit-events":          s.log(auditLog),
		"/api/audit/get-categories":            s.auditCategories,
		"/api/ttp/url/get-logs":                s.log(clickLog),
		"/api/ttp/attachment/get-logs":         s.log(attachmentLog),
		"/api/ttp/impersonation/get-logs":      s.log(impersonationLog),
		"/api/dlp/get-logs":                    s.log(dlpLog),
		"/api/archive/get-archive-search-logs": s.log(archiveSearchLog),
		"/api/message-finder/search":           s.log(trackedMessages),
		"/api/message-finder/get-message-info": s.messageInfo,
		"/api/gateway/get-hold-message-list":   s.holdList,
		"/api/gateway/get-hold-summary-list":   s.holdSummary,
		"/api/gateway/get-held-release-logs":   s.log(heldReleaseLog),
		"/api/gateway/hold-release":            s.holdAction("hold-release"),
		"/api/gateway/hold-reject":             s.holdAction("hold-reject"),
		"/api/email/send-email":                s.sendEmail,
		"/api/ttp/url/decode-url":              s.decodeURL,
		"/api/ttp/url/get-all-managed-urls":    s.listManagedURLs,
		"/api/ttp/url/create-managed-url":      s.createManagedURLs,
		"/api/ttp/url/delete-managed-url":      s.deleteManagedURLs,
	}
}
