package deploy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var kubernetes = flag.String("kubernetes", "", "folder with kube-apiserver and kubectl, the bin of deploy/cluster/build; PATH if empty")

// apiServer is a real API server on a real etcd, without nodes and controllers. It
// validates and stores objects, but runs nothing.
type apiServer struct {
	t       *testing.T
	kubectl string
	config  string
}

// programFor returns the path of one of Kubernetes' programs. It skips the test if the
// program is missing.
func programFor(t *testing.T, name string) string {
	t.Helper()
	if *kubernetes != "" {
		name = filepath.Join(*kubernetes, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%v: build Kubernetes by deploy/cluster/build DIRECTORY, install etcd, and set -kubernetes DIRECTORY/bin", err)
	}
	return path
}

// startAPIServer starts etcd and kube-apiserver, which run until the test ends.
func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	server, kubectl := programFor(t, "kube-apiserver"), programFor(t, "kubectl")
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Skipf("%v: it is in Debian's package etcd-server", err)
	}
	dir := t.TempDir()
	const store, peer = "unix://localhost:1", "unix://localhost:2" // Unix sockets in the folder
	runUntilEnd(t, dir, etcd, "--data-dir", dir+"/etcd", "--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)

	port, token := reservePort(t), rand.Text()
	key := writeSigningKey(t, dir)
	for name, text := range map[string]string{
		"tokens.csv": token + `,admin,admin,"system:masters"`,
		"config": fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],
users: [{name: x, user: {token: %s}}], clusters: [{name: x, cluster: {server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true}}]}`, token, port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output := runUntilEnd(t, dir, server, "--etcd-servers", store, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
		"--secure-port", fmt.Sprint(port), "--permit-port-sharing", "--cert-dir", dir+"/certs", "--token-auth-file", dir+"/tokens.csv", "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key, "--service-cluster-ip-range", "10.96.0.0/24")
	a := &apiServer{t: t, kubectl: kubectl, config: filepath.Join(dir, "config")}
	awaitReady(t, a, output)
	return a
}

// runUntilEnd starts a program, kills it when the test ends, and returns its output.
func runUntilEnd(t *testing.T, dir, program string, args ...string) *log {
	t.Helper()
	output := &log{}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return output
}

// reservePort binds a free port without listening, so that no other program takes it. A
// server that sets SO_REUSEPORT can bind it too.
func reservePort(t *testing.T) int {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return address.(*syscall.SockaddrInet4).Port
}

func writeSigningKey(t *testing.T, dir string) (path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "signing")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitReady waits for the server, which can take long on a busy machine.
func awaitReady(t *testing.T, a *apiServer, output *log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	for {
		_, err := a.run(nil, "get", "--raw", "/readyz")
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the API server is not ready: %v\n%s", err, output)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// run runs kubectl.
func (a *apiServer) run(stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(a.t.Context(), a.kubectl, args...)
	cmd.Env = []string{"KUBECONFIG=" + a.config, "HOME=" + filepath.Dir(a.config), "PATH=" + os.Getenv("PATH")}
	// kubectl takes input that begins with a brace for JSON.
	cmd.Dir, cmd.Stdin = root, io.MultiReader(strings.NewReader("---\n"), bytes.NewReader(stdin))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (a *apiServer) must(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	out, err := a.run(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// namespace creates a namespace with a Pod Security level, and the service account that a
// controller would create.
func (a *apiServer) namespace(t *testing.T, name, level string) {
	t.Helper()
	a.must(t, fmt.Appendf(nil, `{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: %s}}}`, name, level), "apply", "-f", "-")
	a.must(t, fmt.Appendf(nil, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: %s}}`, name), "apply", "-f", "-")
}
