package deploy_test

import (
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

func TestHelmLintHasNoComplaint(t *testing.T) {
	for name, v := range map[string]values{
		"gateway": {"networkPolicy": values{"enabled": true}, "monitoring": values{"enabled": true}},
		"clients": {"credentialsSecret": "", "clients": values{"existingSecret": "mimecast-clients"}, "networkPolicy": values{"clientNamespaces": []any{"team-a"}}},
		"sidecar": {"shape": "sidecar", "sidecar": values{"workloads": []any{tool(t, "job")}}},
	} {
		for _, m := range lint.All(chartPath, v, "mimecast", true).Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%s: %s: %v", name, m.Path, m.Err)
			}
		}
	}
}
