package artifacts

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pinned is a repository and the digest of an image in it.
type pinned struct {
	repository string
	digest     v1.Hash
}

func (p pinned) String() string { return p.repository + "@" + p.digest.String() }

// published is an image index or a chart, its repository, and the statements about it.
type published struct {
	repository string
	tag        string
	object     object
	statements []statement
	signed     []signedStatement
}

// object is a v1.Image or a v1.ImageIndex.
type object interface {
	partial.Describable
	partial.WithRawManifest
}

// buildImages makes an index of all platforms, and another for the FIPS variant.
func (r *release) buildImages(context.Context) error {
	for _, fips := range []bool{false, true} {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		p := published{repository: r.repository(program), tag: r.Version}
		if fips {
			p.tag += "-fips"
		}
		found := false
		for _, b := range r.binaries {
			if b.OS != "linux" || b.FIPS != fips {
				continue
			}
			found = true
			image, err := r.buildImage(b)
			if err != nil {
				return err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add:        image,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: b.OS, Architecture: b.Arch}},
			})
			bill, err := sbomStatement(b.sbom, image)
			if err != nil {
				return err
			}
			p.statements = append(p.statements, bill)
		}
		if !found {
			continue
		}
		p.object = index
		if err := r.addPublished(p, fips); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) addPublished(p published, variant bool) error {
	digest, err := p.object.Digest()
	if err != nil {
		return err
	}
	if !variant && r.image.repository == "" {
		r.image = pinned{p.repository, digest}
	}
	r.oci = append(r.oci, p)
	return nil
}

// repository returns the repository of an image or a chart. Without a registry, it is the
// name alone.
func (r *release) repository(name string) string {
	return strings.TrimPrefix(strings.TrimSuffix(r.Registry, "/")+"/"+name, "/")
}

// buildImage makes the image that the Dockerfile describes: one layer for each COPY, and
// its settings.
func (r *release) buildImage(b binary) (v1.Image, error) {
	layers, err := r.imageFiles(b)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, members := range layers {
		layer, err := newLayer(withDirectories(members), r.time)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = b.OS, b.Arch
	config.Created = v1.Time{Time: r.time}
	config.Config = r.imageConfig()
	return mutate.ConfigFile(image, config)
}

func (r *release) imageFiles(b binary) ([][]member, error) {
	layers := [][]member{
		{{name: "etc/ssl/certs/ca-certificates.crt"}},
		{{name: program, mode: 0o755}},
		{{name: "sbom.cdx.json"}},
		{{name: "licenses/LICENSE"}, {name: "licenses/" + notices}, {name: "licenses/ca-certificates"}},
	}
	sources := map[string]string{
		"etc/ssl/certs/ca-certificates.crt": r.CARoots,
		program:                             b.path,
		"sbom.cdx.json":                     b.sbom,
		"licenses/LICENSE":                  r.Source + "/LICENSE",
		"licenses/" + notices:               r.made("image", notices),
		"licenses/ca-certificates":          r.CALicense,
	}
	for _, members := range layers {
		for i := range members {
			content, err := os.ReadFile(sources[members[i].name])
			if err != nil {
				return nil, err
			}
			members[i].content = content
			members[i].mode = cmp.Or(members[i].mode, 0o644)
		}
	}
	return layers, nil
}

func (r *release) imageConfig() v1.Config {
	return v1.Config{
		User:         "65532:65532",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Healthcheck: &v1.HealthConfig{
			Test: []string{"CMD", "/mimecast-proxy", "healthcheck"}, Interval: 30 * time.Second, Timeout: 6 * time.Second, StartPeriod: 30 * time.Second,
		},
		Entrypoint: []string{"/mimecast-proxy"},
		WorkingDir: "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":       program,
			"org.opencontainers.image.description": description,
			"org.opencontainers.image.licenses":    license,
			"org.opencontainers.image.version":     r.Version,
			"org.opencontainers.image.revision":    r.revision,
		},
	}
}

func newLayer(members []member, at time.Time) (v1.Layer, error) {
	var b bytes.Buffer
	if err := writeTar(&b, members, at); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
}

// describe returns the descriptor that a referrer uses for its subject.
func describe(o partial.Describable) (v1.Descriptor, error) {
	d, err := partial.Descriptor(o)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("digest of an image: %w", err)
	}
	return v1.Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest}, nil
}
