package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"helm.sh/helm/v3/pkg/chart/loader"
	"sigs.k8s.io/kustomize/api/krusty"
	kustomize "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// The media types of Helm charts in OCI registries.
const (
	chartConfig types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartLayer  types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// buildChart makes the chart and the gateway's manifests. Both name the image by its
// digest.
func (r *release) buildChart(context.Context) error {
	if r.image.repository == "" {
		return errors.New("the chart names the image, but there is none; add a target such as linux/amd64")
	}
	if err := r.writeManifests(); err != nil {
		return err
	}
	chart, err := loader.LoadDir(filepath.Join(r.Source, "deploy/helm", program))
	if err != nil {
		return err
	}
	var files []*loader.BufferedFile
	var members []member
	for _, f := range chart.Raw {
		data, err := r.releasedChartFile(f.Name, f.Data)
		if err != nil {
			return err
		}
		files = append(files, &loader.BufferedFile{Name: f.Name, Data: data})
		members = append(members, member{program + "/" + f.Name, 0o644, data})
	}
	if chart, err = loader.LoadFiles(files); err != nil {
		return err
	}
	archive, err := packTar(members, r.time)
	if err != nil {
		return err
	}
	metadata, err := json.Marshal(chart.Metadata)
	if err != nil {
		return err
	}
	object, err := newArtifact(content{
		configType: chartConfig, config: metadata, layerType: chartLayer, layer: archive,
		annotations: map[string]string{
			"org.opencontainers.image.title":       program,
			"org.opencontainers.image.description": chart.Metadata.Description,
			"org.opencontainers.image.version":     r.Version,
			"org.opencontainers.image.revision":    r.revision,
			"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
		},
	})
	if err != nil {
		return err
	}
	r.oci = append(r.oci, published{repository: r.repository("charts/" + program), tag: r.Version, object: object})
	return r.write(program+"-"+r.Version+".tgz", archive)
}

// replacement is a line of the chart that a release replaces.
type replacement struct {
	line *regexp.Regexp
	text string
}

// releasedChartFile sets the version and the image. It keeps everything else, including
// comments.
func (r *release) releasedChartFile(name string, data []byte) ([]byte, error) {
	var set []replacement
	switch name {
	case "Chart.yaml":
		set = []replacement{
			{regexp.MustCompile(`(?m)^version: .*$`), "version: " + r.Version},
			{regexp.MustCompile(`(?m)^appVersion: .*$`), `appVersion: "` + r.Version + `"`},
		}
	case "values.yaml":
		set = []replacement{{regexp.MustCompile(`(?m)^  repository: .*$`), "  repository: " + r.image.repository}}
		if digest := regexp.MustCompile(`(?m)^  digest: .*$`); digest.Match(data) {
			set = append(set, replacement{digest, "  digest: " + r.image.digest.String()})
		} else {
			set = append(set, replacement{regexp.MustCompile(`(?m)^  tag: .*$`), `  tag: "` + r.Version + "@" + r.image.digest.String() + `"`})
		}
	}
	for _, s := range set {
		if found := s.line.FindAll(data, -1); len(found) != 1 {
			return nil, errors.New("not exactly one line of " + name + " matches " + s.line.String())
		}
		data = s.line.ReplaceAllLiteral(data, []byte(s.text))
	}
	return data, nil
}

// writeManifests renders k8s/gateway. It also writes a kustomize component that sets the
// image for all other shapes.
func (r *release) writeManifests() error {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(r.Source, "k8s/gateway"))
	if err != nil {
		return err
	}
	text, err := resources.AsYaml()
	if err != nil {
		return err
	}
	named := regexp.MustCompile(`(?m)^(\s+(?:- )?image: )` + program + `:\S+$`)
	if !named.Match(text) {
		return errors.New("k8s/gateway has no image " + program)
	}
	text = named.ReplaceAll(text, []byte("${1}"+r.image.String()))
	if err := r.write(program+"-gateway.yaml", text); err != nil {
		return err
	}
	component, err := yaml.Marshal(struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Images     []kustomize.Image `json:"images"`
	}{kustomize.ComponentVersion, kustomize.ComponentKind, []kustomize.Image{{Name: program, NewName: r.image.repository, Digest: r.image.digest.String()}}})
	if err != nil {
		return err
	}
	return r.write(program+"-image.yaml", component)
}
