//go:build cluster

package cluster_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sharedMimecast is the address of the simulator's Service.
const sharedMimecast = "10.96.0.200"

// The policy adds the proxy to a labeled pod, before the tool and its own init containers.
// The pod needs no other manual change.
func TestInjectionByLabel(t *testing.T) {
	policy := filepath.Join(root, "k8s/injection/mutatingadmissionpolicy.yaml")
	if _, err := os.Stat(policy); err != nil {
		t.Skipf("there is no policy yet: %v", err)
	}
	certificate := shareMimecast(t)
	kubectl(t, "", "apply", "-f", policy)
	t.Cleanup(func() { kubectl(t, "", "delete", "-f", policy) })
	for _, c := range []struct{ name, labels, url string }{
		{"injected", "{mimecast-proxy: inject}", "$MIMECAST_BASE_URL"},
		{"injected-interception", `{mimecast-proxy: inject, mimecast-proxy/intercept: "true"}`, "https://api.services.mimecast.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNamespace(t, c.name)
			n.secret("mimecast", map[string]string{"client-id": "demo-client-id", "client-secret": "demo-client-secret", "ca.pem": certificate})
			n.kubectl("create", "configmap", "mimecast-proxy-settings", "--from-literal=MIMECAST_BASE_URL=https://"+sharedMimecast,
				"--from-literal=MIMECAST_CA_FILE=/var/run/mimecast/ca.pem")
			n.awaitInjection()
			n.apply(overlay{
				files: map[string]string{"tool.yaml": readRepository(t, examples+"job/tool.yaml")},
				patches: []string{
					"apiVersion: batch/v1\nkind: Job\nmetadata: {name: any}\nspec: {template: {metadata: {labels: " + c.labels + "}}}\n",
					podPatch("Job", "initContainers:\n- {name: own, image: docker.io/curlimages/curl:8.11.1, command: [sh, -c, echo], securityContext: "+restricted+"}\n"),
					toolArgs("Job", `curl -sS --fail "`+c.url+`/identity/whoami"`),
				},
			})
			n.kubectl("wait", "--for=condition=Complete", "job/legacy-tool", "--timeout=5m")
			p := n.onlyPod(tool)
			if first := p.Spec.InitContainers[0].Name; first != "mimecast-proxy" || len(p.Spec.InitContainers) != 2 {
				t.Errorf("the init containers are %v", p.Spec.InitContainers)
			}
			n.checkEnd(p, 0)
			if text := n.logs(p, "tool"); !strings.Contains(text, found) {
				t.Errorf("the tool got %q", text)
			}
		})
	}
}

// awaitInjection waits until the API server applies the policy, which takes some time after
// its creation.
func (n namespace) awaitInjection() {
	n.t.Helper()
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: any, labels: {mimecast-proxy: inject}}, spec: {
		automountServiceAccountToken: false, containers: [{name: any, image: any, securityContext: ` + restricted + `}]}}`
	await(n.t, "injection", func() bool {
		out, err := tryKubectl(n.t, pod, "-n", n.name, "create", "--dry-run=server", "-o", "jsonpath={.spec.initContainers[*].name}", "-f", "-")
		return err == nil && out == "mimecast-proxy"
	})
}

// shareMimecast runs a simulator for other pods and returns its certificate.
func shareMimecast(t *testing.T) (certificate string) {
	t.Helper()
	n := newNamespace(t, "shared-mimecast")
	certificate, key := selfSigned(t)
	n.secret("tls", map[string]string{"tls.crt": certificate, "tls.key": key})
	kubectl(t, `
apiVersion: v1
kind: Pod
metadata: {name: mimecast, labels: {app: mimecast}}
spec:
  automountServiceAccountToken: false
  containers:
    - name: simulator
      image: docker.io/library/tool:local
      args: [shared, /var/run/tls]
      readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
      securityContext: `+restricted+`
      volumeMounts: [{name: tls, mountPath: /var/run/tls, readOnly: true}]
  volumes: [{name: tls, secret: {secretName: tls}}]
---
apiVersion: v1
kind: Service
metadata: {name: mimecast}
spec:
  clusterIP: `+sharedMimecast+`
  selector: {app: mimecast}
  ports: [{port: 443, targetPort: 8443}]
`, "-n", n.name, "apply", "-f", "-")
	n.kubectl("wait", "--for=condition=Ready", "pod/mimecast", "--timeout=5m")
	return certificate
}

// selfSigned creates a certificate for the simulator's address.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(sharedMimecast)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}
