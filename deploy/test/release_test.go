package deploy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// blob reads a JSON blob of an OCI layout.
func blob(t *testing.T, layout, digest string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

type ociManifest struct {
	Manifests, Layers []struct{ Digest string }
	Config            struct{ Digest string }
}

// releasedImage returns the settings and the files of a release's image.
func releasedImage(t *testing.T, layout string) (settings map[string]any, files map[string][]byte) {
	t.Helper()
	var top, index, manifest ociManifest
	text, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	blob(t, layout, top.Manifests[0].Digest, &index)
	blob(t, layout, index.Manifests[0].Digest, &manifest)
	var config struct{ Config map[string]any }
	blob(t, layout, manifest.Config.Digest, &config)
	files = map[string][]byte{}
	for _, layer := range manifest.Layers {
		packed, err := os.ReadFile(filepath.Join(layout, "blobs", strings.Replace(layer.Digest, ":", "/", 1)))
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		for members := tar.NewReader(z); ; {
			header, err := members.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if header.Typeflag == tar.TypeReg {
				if files[header.Name], err = io.ReadAll(members); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return config.Config, files
}

// The Dockerfile's final stage must match the release's image.
func TestImageOfAReleaseIsTheDockerfiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the image is for Linux")
	}
	platform := "linux/" + runtime.GOARCH
	source, dist := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "dist")
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", root, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(source, "deploy/release"), "-version", "1.2.3", "-targets", platform, "-dist", dist)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	settings, files := releasedImage(t, filepath.Join(dist, "oci"))
	out := build(t, platform, "")
	want := map[string]string{"etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"}
	for _, name := range []string{"mimecast-proxy", "sbom.cdx.json", "licenses/LICENSE", "licenses/" + notices, "licenses/ca-certificates"} {
		want[name] = filepath.Join(out, name)
	}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("files: %v", got)
	}
	for name, path := range want {
		if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, files[name]) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	compareSettings(t, settings)
}

func compareSettings(t *testing.T, settings map[string]any) {
	t.Helper()
	labels := map[string]any{}
	stages := dockerfile(t)
	for _, command := range stages[len(stages)-1].Commands {
		var got, want any
		switch c := command.(type) {
		case *instructions.UserCommand:
			got, want = settings["User"], c.User
		case *instructions.ExposeCommand:
			got, want = settings["ExposedPorts"], map[string]any{c.Ports[0] + "/tcp": map[string]any{}}
		case *instructions.EntrypointCommand:
			got, want = settings["Entrypoint"], []any{c.CmdLine[0]}
		case *instructions.HealthCheckCommand:
			health := settings["Healthcheck"].(map[string]any)
			got = []any{health["Test"], health["Interval"], health["Timeout"], health["StartPeriod"]}
			test := []any{}
			for _, word := range c.Health.Test {
				test = append(test, word)
			}
			want = []any{test, float64(c.Health.Interval), float64(c.Health.Timeout), float64(c.Health.StartPeriod)}
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				labels[strings.Trim(l.Key, `"`)] = strings.ReplaceAll(strings.ReplaceAll(strings.Trim(l.Value, `"`), "$VERSION", "1.2.3"), "$REVISION", revision(t))
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T: %v, want %v", command, got, want)
		}
	}
	if !reflect.DeepEqual(settings["Labels"], labels) {
		t.Errorf("labels: %v, want %v", settings["Labels"], labels)
	}
}

// revision returns the last commit's revision.
func revision(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
