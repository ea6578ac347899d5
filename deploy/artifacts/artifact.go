package artifacts

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is an OCI manifest of something other than an image, such as a chart or a
// signature.
type artifact struct {
	manifest, config []byte
	layer            v1.Layer
	digest           v1.Hash // the layer's
}

// content is the content of an artifact.
type content struct {
	artifactType string // empty means the config's type
	configType   types.MediaType
	config       []byte
	layerType    types.MediaType
	layer        []byte
	subject      *v1.Descriptor
	annotations  map[string]string
}

func newArtifact(c content) (v1.Image, error) {
	a := artifact{config: c.config, layer: static.NewLayer(c.layer, c.layerType)}
	configDigest, configSize, err := v1.SHA256(bytes.NewReader(c.config))
	if err != nil {
		return nil, err
	}
	if a.digest, err = a.layer.Digest(); err != nil {
		return nil, err
	}
	a.manifest, err = json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  c.artifactType,
		Config:        v1.Descriptor{MediaType: c.configType, Size: configSize, Digest: configDigest},
		Layers:        []v1.Descriptor{{MediaType: c.layerType, Size: int64(len(c.layer)), Digest: a.digest}},
		Subject:       c.subject,
		Annotations:   c.annotations,
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(a)
}

// MediaType implements partial.CompressedImageCore.
func (artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest implements partial.CompressedImageCore.
func (a artifact) RawManifest() ([]byte, error) { return a.manifest, nil }

// RawConfigFile implements partial.CompressedImageCore.
func (a artifact) RawConfigFile() ([]byte, error) { return a.config, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (a artifact) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if digest == a.digest {
		return a.layer, nil
	}
	return nil, fmt.Errorf("no layer %s", digest)
}
