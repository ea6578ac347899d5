package deploy_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

var kyverno = flag.String("kyverno", "", "Kyverno's command line: go build -modfile=kyverno.mod -o FILE github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno")

// TestKyvernoMakesTheSamePod applies the policy with Kyverno. Kyverno's modules are in
// kyverno.mod, since only the daily workflow builds it.
func TestKyvernoMakesTheSamePod(t *testing.T) {
	if *kyverno == "" {
		t.Skip("build Kyverno's command line and set -kyverno FILE; see go test -args -help")
	}
	for _, p := range toolPods(t) {
		for _, more := range [][]string{{inject}, {inject, interceptToo}, {"mimecast-proxy=none"}, {interceptToo}} {
			original := labeled(p, more...)
			if diff := cmp.Diff(admit(t, original.DeepCopy()), applyKyverno(t, original)); diff != "" {
				t.Errorf("%s %v: the policy of admission (-) and Kyverno's (+) differ:\n%s", p.Name, more, diff)
			}
		}
		withSidecar := admit(t, labeled(p, inject, interceptToo))
		if diff := cmp.Diff(withSidecar, applyKyverno(t, withSidecar)); diff != "" {
			t.Errorf("%s: a second time:\n%s", p.Name, diff)
		}
	}
}

// applyKyverno returns the pod after Kyverno's changes.
func applyKyverno(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "pod.yaml"), filepath.Join(dir, "mutated.yaml")
	text, err := sigsyaml.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), *kyverno, "apply", filepath.Join(injection, "kyverno.yaml"), "--resource", in, "--output", out)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	text, err = os.ReadFile(out)
	if os.IsNotExist(err) || len(text) == 0 {
		return p // unchanged
	}
	if err != nil {
		t.Fatal(err)
	}
	mutated := &corev1.Pod{}
	if err := sigsyaml.UnmarshalStrict(documents(t, text)[0], mutated); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	mutated.Namespace = p.Namespace // without one, the command line sets default
	return mutated
}
