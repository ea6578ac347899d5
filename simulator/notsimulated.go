package simulator

import (
	"net/http"
	"strings"
)

// functions20 are the functions of API 2.0: the methods of a path, then the path, where
// {} stands for one segment. The source is Mimecast's catalog of 2026-08-08 and the
// collections of its clients.
const functions20 = `
GET PATCH PUT /account/cloud-gateway/v1/emergency-contact
POST /api/account/get-account
POST /api/account/get-dashboard-notifications
POST /api/account/get-support-info
POST /api/archive/get-archive-search-logs
POST /api/archive/get-file
POST /api/archive/get-message-detail
POST /api/archive/get-message-list
POST /api/archive/get-message-part
POST /api/archive/get-search-logs
POST /api/archive/get-view-logs
POST /api/archive/search
POST /api/attribute/find-attribute-types
POST /api/audit/get-audit-events
POST /api/audit/get-categories
POST /api/awareness-training/company/get-performance-details
POST /api/awareness-training/company/get-performance-summary
POST /api/awareness-training/company/get-safe-score-details
POST /api/awareness-training/company/get-safe-score-summary
POST /api/awareness-training/company/get-watchlist-details
POST /api/awareness-training/company/get-watchlist-summary
POST /api/awareness-training/phishing/campaign/get-campaign
POST /api/awareness-training/phishing/campaign/get-user-data
POST /api/awareness-training/queue/get-queue
POST /api/awareness-training/user/get-training-details
POST /api/byo-threat-intelligence/create-batch
POST /api/byo-threat-intelligence/delete-batch
POST /api/byo-threat-intelligence/get-batches
POST /api/byo-threat-intelligence/get-quota
POST /api/directory/add-group-member
POST /api/directory/create-group
POST /api/directory/delete-group
POST /api/directory/execute-sync
POST /api/directory/find-groups
POST /api/directory/get-connection
POST /api/directory/get-group-members
POST /api/directory/remove-group-member
POST /api/directory/update-group
POST /api/dlp/get-logs
POST /api/domain/create-domain
POST /api/domain/delete-pending-domain
POST /api/domain/get-internal-domain
POST /api/domain/get-pending-domain
POST /api/domain/get-provision-status
POST /api/domain/get-verification-code
POST /api/domain/verify-domain
POST /api/email/get-email-queues
POST /api/email/send-email
POST /api/file/file-upload
POST /api/gateway/find-processing-messages
POST /api/gateway/get-held-release-logs
POST /api/gateway/get-hold-message-list
POST /api/gateway/get-hold-summary-list
POST /api/gateway/get-rejections
POST /api/gateway/hold-reject
POST /api/gateway/hold-release
POST /api/gateway/message/get-file
POST /api/journaling/get-service
POST /api/managedsender/permit-or-block-sender
POST /api/message-finder/get-message-info
POST /api/message-finder/search
POST /api/policy/address-alteration/create-address-alteration-set
POST /api/policy/address-alteration/create-definition
POST /api/policy/address-alteration/create-policy
POST /api/policy/address-alteration/delete-definition
POST /api/policy/address-alteration/delete-policy
POST /api/policy/address-alteration/get-address-alteration-set
POST /api/policy/address-alteration/get-definition
POST /api/policy/address-alteration/get-policy
POST /api/policy/address-alteration/update-policy
POST /api/policy/antispoofing-bypass/create-policy
POST /api/policy/antispoofing-bypass/delete-policy
POST /api/policy/antispoofing-bypass/get-policy
POST /api/policy/antispoofing-bypass/update-policy
POST /api/policy/blockedsenders/create-policy
POST /api/policy/blockedsenders/get-policy
POST /api/policy/webwhiteurl/create-policy-with-targets
POST /api/policy/webwhiteurl/delete-policy-with-targets
POST /api/policy/webwhiteurl/get-policy-with-targets
POST /api/policy/webwhiteurl/update-policy-with-targets
POST /api/provisioning/get-packages
POST /api/ttp/attachment/get-logs
POST /api/ttp/impersonation/get-logs
POST /api/ttp/remediation/create
POST /api/ttp/remediation/find-incidents
POST /api/ttp/remediation/get-incident
POST /api/ttp/remediation/search-hash
POST /api/ttp/remediation/v2/create
POST /api/ttp/threat-intel/get-feed
POST /api/ttp/url/create-managed-url
POST /api/ttp/url/decode-url
POST /api/ttp/url/delete-managed-url
POST /api/ttp/url/get-all-managed-urls
POST /api/ttp/url/get-logs
POST /api/user/add-delegate-user
POST /api/user/add-to-purge-list
POST /api/user/create-user
POST /api/user/find-delegate-users
POST /api/user/get-aliases
POST /api/user/get-attributes
POST /api/user/get-import-status
POST /api/user/get-internal-users
POST /api/user/get-most-used-contacts
POST /api/user/import-users
POST /api/user/remove-alias
POST /api/user/remove-delegate-user
POST /api/user/remove-from-purge-list
POST /api/user/update-alias
POST /api/user/update-attributes
POST /api/user/update-user
POST /config-snapshot/v1/create
POST /config-snapshot/v1/export
POST /config-snapshot/v1/list
POST /config-snapshot/v1/restore
GET POST /connector/cloud-gateway/v1/connectors
DELETE GET PATCH /connector/cloud-gateway/v1/connectors/{}
POST /dataretention/v1/messages/visibility
POST /dataretention/v1/retention-adjustment
GET /dataretention/v1/smart-tags
POST /dataretention/v1/smart-tags/{}/messages
POST /dataretention/v1/smart-tags/{}/messages/search
GET POST /directory/cloud-gateway/v1/groups
GET /directory/cloud-gateway/v1/groups/{}
GET POST /directory/cloud-gateway/v1/groups/{}/members
POST /directory/cloud-gateway/v1/groups/{}/remove-members
GET /directory/cloud-gateway/v1/integrations
POST /directory/cloud-gateway/v1/integrations/active-directory
DELETE GET PATCH /directory/cloud-gateway/v1/integrations/active-directory/{}
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-authentication
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-certificates
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-connectivity
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-egress-connectivity
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-email
POST /directory/cloud-gateway/v1/integrations/active-directory/{}/test-validation
POST /directory/cloud-gateway/v1/integrations/google
DELETE GET PATCH /directory/cloud-gateway/v1/integrations/google/{}
POST /directory/cloud-gateway/v1/integrations/google/{}/test-authentication
POST /directory/cloud-gateway/v1/integrations/google/{}/test-authorisation
POST /directory/cloud-gateway/v1/integrations/google/{}/test-connectivity
POST /directory/cloud-gateway/v1/integrations/google/{}/test-email
POST /directory/cloud-gateway/v1/integrations/m365
DELETE GET PATCH /directory/cloud-gateway/v1/integrations/m365/{}
POST /directory/cloud-gateway/v1/integrations/m365/{}/test-authentication
POST /directory/cloud-gateway/v1/integrations/m365/{}/test-authorisation
POST /directory/cloud-gateway/v1/integrations/m365/{}/test-connectivity
POST /directory/cloud-gateway/v1/integrations/m365/{}/test-connector
POST /directory/cloud-gateway/v1/integrations/m365/{}/test-email
POST /directory/cloud-gateway/v1/integrations/sync-requests
GET /dmarc-analyzer/v1/compliance/dmarc/statistics
GET /dmarc-analyzer/v1/compliance/domains/dmarc-policy-changes
GET /dmarc-analyzer/v1/compliance/domains/dns-suggestions
GET /dmarc-analyzer/v1/compliance/domains/enforcement
DELETE GET PUT /dmarc-analyzer/v1/customers/encryption-key
GET /dmarc-analyzer/v1/customers/{}
DELETE GET POST /dmarc-analyzer/v1/delegated-domains
GET /dmarc-analyzer/v1/delegated-domains/statistics
DELETE GET POST /dmarc-analyzer/v1/delegated-domains/{}/dkim
GET /dmarc-analyzer/v1/delegated-domains/{}/dkim/details
DELETE GET PUT /dmarc-analyzer/v1/delegated-domains/{}/dkim/{}
DELETE GET POST /dmarc-analyzer/v1/delegated-domains/{}/dmarc
DELETE GET PUT /dmarc-analyzer/v1/delegated-domains/{}/spf
GET /dmarc-analyzer/v1/delegated-domains/{}/spf/details
GET PATCH /dmarc-analyzer/v1/detected-domains
PUT /dmarc-analyzer/v1/detected-domains/{}/status
DELETE GET POST /dmarc-analyzer/v1/dmarc-policy-preset
PUT /dmarc-analyzer/v1/dmarc-policy-preset/{}
GET /dmarc-analyzer/v1/dns/bimi
GET /dmarc-analyzer/v1/dns/dkim
GET /dmarc-analyzer/v1/dns/dmarc
GET /dmarc-analyzer/v1/dns/spf
DELETE GET POST /dmarc-analyzer/v1/domain-groups
GET PUT /dmarc-analyzer/v1/domain-groups/{}
DELETE POST /dmarc-analyzer/v1/domain-groups/{}/association
DELETE GET POST /dmarc-analyzer/v1/domains
GET /dmarc-analyzer/v1/domains/statistics
GET /dmarc-analyzer/v1/domains/vendor-configurations
GET PATCH /dmarc-analyzer/v1/domains/{}
POST /dmarc-analyzer/v1/domains/{}/refresh-dns
GET /dmarc-analyzer/v1/events
DELETE GET /dmarc-analyzer/v1/issues
DELETE GET /dmarc-analyzer/v1/notifications
GET POST PUT /dmarc-analyzer/v1/notifications/{}
GET /dmarc-analyzer/v1/report-metadata
GET /dmarc-analyzer/v1/reports/forensic/download
POST /dmarc-analyzer/v1/reports/{}
GET /dmarc-analyzer/v1/reports/{}/results/{}
GET /dmarc-analyzer/v1/sources
GET /dmarc-analyzer/v1/sources/compliance/actions
GET /dmarc-analyzer/v1/sources/compliance/statistics
GET /dmarc-analyzer/v1/sources/vendors
DELETE POST /dmarc-analyzer/v1/sources/vendors/associations
GET PATCH /dmarc-analyzer/v1/sources/vendors/{}
DELETE GET POST /dmarc-analyzer/v1/tasks
GET /dmarc-analyzer/v1/tasks/summary
GET PATCH PUT /dmarc-analyzer/v1/tasks/{}
GET POST /dmarc-analyzer/v1/users
GET /dmarc-analyzer/v1/users/current-user
DELETE GET PUT /dmarc-analyzer/v1/users/{}
GET /domain/cloud-gateway/v1/external-domains
GET /domain/cloud-gateway/v1/external-domains/{}
GET /domain/cloud-gateway/v1/internal-domains
GET /domain/cloud-gateway/v1/internal-domains/m365/{}/lookup
POST /domain/cloud-gateway/v1/internal-domains/m365/{}/register
POST /domain/cloud-gateway/v1/internal-domains/verify
GET PATCH /domain/cloud-gateway/v1/internal-domains/{}
GET /domain/cloud-gateway/v1/internal-domains/{}/dns-records/{}
GET POST /domain/cloud-gateway/v1/pending-domains
POST /domain/cloud-gateway/v1/pending-domains/generate-token
POST /domain/cloud-gateway/v1/pending-domains/verify
DELETE GET /domain/cloud-gateway/v1/pending-domains/{}
GET PATCH /email/cloud-gateway/v1/gateway-details
POST /email/cloud-gateway/v1/managed-senders/internal-addresses/bulk-delete
POST /email/cloud-gateway/v1/managed-senders/recipients/{}/bulk-delete
POST /email/cloud-gateway/v1/managed-senders/senders/bulk-delete
DELETE GET PUT /email/cloud-gateway/v1/outbound-ip-addresses
PATCH /email/cloud-gateway/v1/protection-mode
GET /email/cloud-gateway/v1/statistics
POST /email/cloud-integrated/v1/onboarding
POST /email/cloud-integrated/v1/policies
GET PATCH /email/cloud-integrated/v1/policies/default-policy
DELETE GET PATCH /email/cloud-integrated/v1/policies/{}
GET /human-risk/v1/departments
POST /human-risk/v1/individuals/risk-profiles
POST /human-risk/v1/individuals/search
GET /human-risk/v1/locations
GET /human-risk/v1/organization
GET /human-risk/v1/organization/attacks
GET /human-risk/v1/organization/behaviors
GET /identity/whoami
GET POST /journaling/cloud-gateway/v1/services
DELETE GET PATCH /journaling/cloud-gateway/v1/services/{}
GET /marketplace/v1/consent-requests
DELETE GET /marketplace/v1/consent-requests/{}
GET POST /marketplace/v1/integrations
DELETE GET PATCH /marketplace/v1/integrations/{}
GET /partner/v1/customers
GET /partner/v1/customers/{}
GET POST /partner/v1/msp/contacts
GET /partner/v1/msp/contacts/{}
GET /partner/v1/msp/contracts
GET /partner/v1/msp/contracts/{}
GET /partner/v1/msp/country-state-mappings
POST /partner/v1/msp/orders
GET POST /partner/v1/msp/organizations
GET /partner/v1/msp/organizations/{}
GET /partner/v1/msp/overages
GET /partner/v1/msp/overages/{}
GET /partner/v1/msp/products
GET POST /partner/v1/msp/quotes
GET /partner/v1/msp/quotes/{}
GET /partner/v1/msp/request-status/{}
GET POST /policy-management/cloud-gateway/v1/anti-spoofing-bypass/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/anti-spoofing-bypass/policies/{}
GET POST /policy-management/cloud-gateway/v1/anti-spoofing/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/anti-spoofing/policies/{}
GET POST /policy-management/cloud-gateway/v1/blocked-senders/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/blocked-senders/policies/{}
GET POST /policy-management/cloud-gateway/v1/delivery-route/definitions
DELETE GET PATCH /policy-management/cloud-gateway/v1/delivery-route/definitions/{}
GET POST /policy-management/cloud-gateway/v1/delivery-route/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/delivery-route/policies/{}
POST /policy-management/cloud-gateway/v1/delivery-route/verify
GET POST /policy-management/cloud-gateway/v1/dns-authentication-outbound/definitions
DELETE GET PATCH /policy-management/cloud-gateway/v1/dns-authentication-outbound/definitions/{}
POST /policy-management/cloud-gateway/v1/dns-authentication-outbound/definitions/{}/verify
GET POST /policy-management/cloud-gateway/v1/dns-authentication-outbound/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/dns-authentication-outbound/policies/{}
GET POST /policy-management/cloud-gateway/v1/greylisting/policies
DELETE GET PATCH /policy-management/cloud-gateway/v1/greylisting/policies/{}
GET /role/cloud-gateway/v1/roles
POST /security/remediation/v1/bulk
GET /security/remediation/v1/bulk/{}
GET POST /security/remediation/v1/events/{}
GET /siem/v1/batch/events/cg
GET /siem/v1/batch/events/ci
GET /siem/v1/events/cg
GET /siem/v1/events/ci
GET /threat-reporting/v1/reported-emails
GET /threat-reporting/v1/reported-emails/{}
GET POST /threat-reporting/v1/subscriptions
DELETE PATCH /threat-reporting/v1/subscriptions/{}
GET /threat-reporting/v1/threat-analysis/{}
GET /threat-reporting/v1/threat-reports
GET /threats/v1/events
GET /threats/v1/events/{}/details
GET /threats/v1/stats/attachment-scans
GET /threats/v1/stats/gateway-detections
GET /threats/v1/stats/impersonations
GET /threats/v1/stats/phishing
GET /threats/v1/stats/suspicious
GET /threats/v1/stats/threats-by-recipient
GET /threats/v1/stats/threats-by-sender
GET /threats/v1/stats/unwanted
GET /threats/v1/stats/url-clicks
GET POST /user/cloud-gateway/v1/users
`

// addNotSimulated adds the API 2.0 functions that are not simulated. A client that calls
// one gets a different error than for a path that Mimecast lacks.
func (s *Simulator) addNotSimulated(rs routes) {
	for line := range strings.Lines(strings.TrimSpace(functions20)) {
		fields := strings.Fields(line)
		names, path := fields[:len(fields)-1], strings.TrimSuffix(fields[len(fields)-1], "{}")
		if rs[path] == nil {
			rs[path] = methods{}
		}
		for _, method := range names {
			if rs[path][method] == nil {
				rs[path][method] = s.notSimulated
			}
		}
	}
}

func (s *Simulator) notSimulated(w http.ResponseWriter, r *http.Request) {
	s.reject(w, r, http.StatusNotImplemented, "not_simulated", "Mimecast has this function, the simulator does not")
}
