package mimecast

import (
	"slices"
	"strings"
)

// Presets are named lists of routes. A route is a pattern of [http.ServeMux].
//
// Many Mimecast functions read by POST, so the method does not separate reads from
// writes. The presets therefore list single functions that only read. Some leave an
// entry in Mimecast's audit log, and some return mail. Functions with a doubtful name,
// such as get-verification-code, are not listed. GET needs no list: no GET changes
// anything, and [Exceptions] exclude those that return keys or mail.
var Presets = map[string][]string{
	"@siem":     {"GET /siem/", "POST " + SIEMLogsPath, "POST " + DiscoverPath, "POST " + LoginPath, "POST " + LogoutPath}, // includes collectors of API 1.0
	"@ttp-logs": ttpLogs,
	"@audit":    audit,
	"@read":     slices.Concat([]string{EveryGET}, ttpLogs, audit, reads),
	"@metadata": slices.Concat([]string{EveryGET}, ttpLogs, audit, slices.DeleteFunc(slices.Clone(reads), returnsMail)),
}

// EveryGET is the route that [Exceptions] apply to. It matches every GET.
const EveryGET = "GET /"

// exceptions are parts of paths that the EveryGET of a preset does not allow: those
// that return keys or mail. Each part is one or more whole segments, in lower case. An
// explicit route allows them.
var exceptions = map[string][]string{
	"@read":     {"/encryption-key/", "/forensic/download/"},
	"@metadata": {"/encryption-key/", "/forensic/", "/download/", "/attachment/", "/attachments/", "/content/", "/body/", "/preview/", "/raw/", "/eml/"},
}

// mailFunctions are the functions in reads that return mail or parts of it.
var mailFunctions = []string{
	"POST /api/archive/get-file",
	"POST /api/archive/get-message-detail",
	"POST /api/archive/get-message-part",
	"POST /api/gateway/message/get-file",
}

func returnsMail(route string) bool { return slices.Contains(mailFunctions, route) }

var ttpLogs = []string{
	"POST /api/ttp/attachment/get-logs",
	"POST /api/ttp/impersonation/get-logs",
	"POST /api/ttp/url/get-logs",
}

var audit = []string{
	"POST /api/audit/get-audit-events",
	"POST /api/audit/get-categories",
}

var reads = []string{
	"POST /api/account/get-account",
	"POST /api/account/get-dashboard-notifications",
	"POST /api/account/get-support-info",
	"POST /api/archive/get-archive-search-logs",
	"POST /api/archive/get-file",
	"POST /api/archive/get-message-detail",
	"POST /api/archive/get-message-list",
	"POST /api/archive/get-message-part",
	"POST /api/archive/get-search-logs",
	"POST /api/archive/get-view-logs",
	"POST /api/archive/search",
	"POST /api/awareness-training/company/get-performance-details",
	"POST /api/awareness-training/company/get-performance-summary",
	"POST /api/awareness-training/company/get-safe-score-details",
	"POST /api/awareness-training/company/get-safe-score-summary",
	"POST /api/awareness-training/company/get-watchlist-details",
	"POST /api/awareness-training/company/get-watchlist-summary",
	"POST /api/awareness-training/phishing/campaign/get-campaign",
	"POST /api/awareness-training/phishing/campaign/get-user-data",
	"POST /api/awareness-training/queue/get-queue",
	"POST /api/awareness-training/user/get-training-details",
	"POST /api/byo-threat-intelligence/get-batches",
	"POST /api/byo-threat-intelligence/get-quota",
	"POST /api/directory/find-groups",
	"POST /api/directory/get-connection",
	"POST /api/directory/get-group-members",
	"POST /api/dlp/get-logs",
	"POST /api/domain/get-internal-domain",
	"POST /api/domain/get-pending-domain",
	"POST /api/domain/get-provision-status",
	"POST /api/email/get-email-queues",
	"POST /api/gateway/find-processing-messages",
	"POST /api/gateway/get-held-release-logs",
	"POST /api/gateway/get-hold-message-list",
	"POST /api/gateway/get-hold-summary-list",
	"POST /api/gateway/get-rejections",
	"POST /api/gateway/message/get-file",
	"POST /api/journaling/get-service",
	"POST /api/message-finder/get-message-info",
	"POST /api/message-finder/search",
	"POST /api/policy/address-alteration/get-address-alteration-set",
	"POST /api/policy/address-alteration/get-definition",
	"POST /api/policy/address-alteration/get-policy",
	"POST /api/policy/antispoofing-bypass/get-policy",
	"POST /api/policy/blockedsenders/get-policy",
	"POST /api/policy/webwhiteurl/get-policy-with-targets",
	"POST /api/provisioning/get-packages",
	"POST /api/ttp/remediation/find-incidents",
	"POST /api/ttp/remediation/get-incident",
	"POST /api/ttp/remediation/search-hash",
	"POST /api/ttp/threat-intel/get-feed",
	"POST /api/ttp/url/decode-url",
	"POST /api/ttp/url/get-all-managed-urls",
	"POST /api/user/find-delegate-users",
	"POST /api/user/get-aliases",
	"POST /api/user/get-attributes",
	"POST /api/user/get-import-status",
	"POST /api/user/get-internal-users",
	"POST /api/user/get-most-used-contacts",
	"POST /config-snapshot/v1/list",
}

// Exceptions returns the parts of paths that the [EveryGET] of the presets in items
// does not allow. Each part is one or more whole segments, in lower case. The preset
// with the fewest exceptions decides. An explicit [EveryGET] in items removes all
// exceptions.
func Exceptions(items []string) []string {
	var fewest []string
	for _, item := range items {
		item = strings.Join(strings.Fields(item), " ")
		if item == EveryGET || item == "/" {
			return nil
		}
		if of := exceptions[item]; of != nil && (fewest == nil || len(of) < len(fewest)) {
			fewest = of
		}
	}
	return fewest
}
