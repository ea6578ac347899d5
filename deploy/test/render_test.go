// Package deploy_test checks what kustomize and Helm render against Kubernetes' own types,
// public policies and each other. It is a separate module, so that the program does not
// depend on Kubernetes.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	manifests = "../../k8s"
	chartPath = "../helm/mimecast-proxy"
)

// entryPoints returns the directories to use with kubectl kustomize.
func entryPoints(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(manifests, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("kind: Kustomization")) {
			found = append(found, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(found) < 6 {
		t.Fatalf("%v: %v", found, err)
	}
	return found
}

// kustomize renders a directory as kubectl kustomize does.
func kustomize(t *testing.T, dir string) []byte {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	text, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// values are an installation's Helm values.
type values = map[string]any

// helm renders the chart as helm template mimecast-proxy does, without helm test's objects.
func helm(v values) ([]byte, error) { return helmIn("mimecast", v) }

func helmIn(namespace string, v values) ([]byte, error) {
	files, err := helmFiles(namespace, v)
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for name, text := range files {
		if !strings.HasSuffix(name, "NOTES.txt") && !strings.Contains(name, "/templates/tests/") {
			all.WriteString("\n---\n" + text)
		}
	}
	return all.Bytes(), nil
}

// helmFiles returns the chart's rendered templates by name.
func helmFiles(namespace string, v values) (map[string]string, error) {
	chart, err := loader.Load(chartPath)
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "mimecast-proxy", Namespace: namespace, IsInstall: true}
	rendered, err := chartutil.ToRenderValues(chart, v, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(chart, rendered)
}

// with returns v with more values.
func with(v, more values) values {
	all := maps.Clone(v)
	maps.Copy(all, more)
	return all
}

func mustHelm(t *testing.T, v values) []byte { t.Helper(); return mustHelmIn(t, "mimecast", v) }

func mustHelmIn(t *testing.T, namespace string, v values) []byte {
	t.Helper()
	text, err := helmIn(namespace, v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tool returns an example's workload as it is without the proxy.
func tool(t *testing.T, kind string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(manifests, "examples", kind, "tool.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := sigsyaml.UnmarshalStrict(text, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// documents splits YAML into documents and drops empty ones.
func documents(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var found [][]byte
	for r := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text))); ; {
		document := make([]byte, len(text)+1)
		n, err := r.Read(document)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if document = document[:n]; len(bytes.Trim(document, "-\n \t")) > 0 {
			found = append(found, document)
		}
	}
}

// everything returns all renderings by name.
func everything(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, dir := range entryPoints(t) {
		all["kustomize "+strings.TrimPrefix(dir, manifests+"/")] = kustomize(t, dir)
	}
	full := values{"networkPolicy": values{"enabled": true}}
	all["helm gateway"] = mustHelm(t, full)
	all["helm gateway-clients"] = mustHelm(t, with(full, values{"credentialsSecret": "", "clients": values{"existingSecret": "mimecast-clients"}}))
	for _, kind := range []string{"deployment", "job", "cronjob"} {
		all["helm "+kind] = mustHelm(t, with(full, values{"shape": "sidecar", "sidecar": values{"workloads": []any{tool(t, kind)}}}))
	}
	return all
}

// names returns the keys of m, sorted.
func names[T any](m map[string]T) []string {
	var found []string
	for name := range m {
		found = append(found, name)
	}
	slices.Sort(found)
	return found
}
