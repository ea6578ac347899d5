package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

var interceptionPatch = regexp.MustCompile("(?s)## Clients with Mimecast's address in their code\n.*?```yaml\n(.*?)```")

// The patch of docs/kubernetes.md gives the tool the sidecar's certificates, but no access
// to the key.
func TestInterceptionPatchGivesTheToolTheCertificatesAlone(t *testing.T) {
	found := interceptionPatch.FindStringSubmatch(readDoc(t, "docs/kubernetes.md"))
	if found == nil {
		t.Fatal("the document has no patch")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	component, err := filepath.Abs(filepath.Join(manifests, "components", "sidecar"))
	if err != nil {
		t.Fatal(err)
	}
	if component, err = filepath.Rel(dir, component); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"patch.yaml":         found[1],
		"workloads.yaml":     strings.NewReplacer("name: KIND", "name: tool", "KIND", "Deployment", "LABEL", "any").Replace(workload),
		"kustomization.yaml": "resources: [workloads.yaml]\ncomponents: [" + component + "]\npatches: [{path: patch.yaml}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec := pod(decode(t, kustomize(t, dir))[0]).Spec
	sidecar, tool := spec.InitContainers[0], spec.Containers[0]
	folder := variables(sidecar)["PROXY_INTERCEPT_CA_DIR"]
	if len(spec.InitContainers) != 2 || len(spec.Containers) != 1 || sidecar.Name != "mimecast-proxy" || tool.Image != "x" {
		t.Errorf("the patch made further containers: %v", spec)
	}
	if !slices.ContainsFunc(sidecar.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == folder && !m.ReadOnly }) {
		t.Errorf("the sidecar cannot write to %q", folder)
	}
	mounted := map[string]bool{}
	for _, m := range tool.VolumeMounts {
		if m.SubPath != "bundle.pem" && m.SubPath != "ca.pem" || !m.ReadOnly {
			t.Errorf("the tool has %v", m)
		}
		mounted[m.MountPath] = true
	}
	environ := variables(tool)
	if environ["HTTPS_PROXY"] != "http://"+variables(sidecar)["PROXY_INTERCEPT_LISTEN"] {
		t.Errorf("HTTPS_PROXY is %s", environ["HTTPS_PROXY"])
	}
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
		if !mounted[environ[name]] {
			t.Errorf("%s is %q, which is not mounted", name, environ[name])
		}
	}
}
