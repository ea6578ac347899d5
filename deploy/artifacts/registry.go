package artifacts

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	bundleType      types.MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	bundleExtension string          = ".sigstore.json"
)

// sign signs the statements about an image or a chart.
func (p *published) sign(ctx context.Context, signer Signer, predicate *structpb.Struct) error {
	if err := p.addStatements(predicate); err != nil {
		return err
	}
	for _, s := range p.statements {
		bundle, err := signer.Sign(ctx, s.text)
		if err != nil {
			return err
		}
		p.signed = append(p.signed, signedStatement{s, bundle})
	}
	return nil
}

// referrer returns the bundle as cosign attaches it: an OCI artifact whose subject is the
// image.
func (s signedStatement) referrer() (v1.Image, error) {
	return newArtifact(content{
		artifactType: string(bundleType),
		configType:   "application/vnd.oci.empty.v1+json", config: []byte("{}"),
		layerType: bundleType, layer: s.bundle, subject: s.subject,
		annotations: map[string]string{
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": s.predicate,
		},
	})
}

// writeLayout writes image, chart and signatures as an OCI layout, which tools such as
// skopeo copy to a registry.
func (r *release) writeLayout(context.Context) error {
	path, err := layout.Write(filepath.Join(r.Dist, "oci"), empty.Index)
	if err != nil {
		return err
	}
	for _, p := range r.oci {
		named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": p.repository + ":" + p.tag})
		if err := appendObject(path, p.object, named); err != nil {
			return err
		}
		for _, s := range p.signed {
			referrer, err := s.referrer()
			if err != nil {
				return err
			}
			if err := path.AppendImage(referrer); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendObject(path layout.Path, o object, options ...layout.Option) error {
	if index, ok := o.(v1.ImageIndex); ok {
		return path.AppendIndex(index, options...)
	}
	return path.AppendImage(o.(v1.Image), options...)
}

// push pushes the artifacts if Registry is set. It pushes the tag last, so that a tag never
// names unsigned content.
func (r *release) push(ctx context.Context) error {
	if r.Registry == "" {
		fmt.Fprintln(r.Log, "skipped, because no -registry is set")
		return nil
	}
	for _, p := range r.oci {
		if err := p.push(ctx); err != nil {
			return err
		}
		subject, err := describe(p.object)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(r.Log, "pushed %s:%s, %s\n", p.repository, p.tag, subject.Digest)
	}
	return nil
}

func (p published) push(ctx context.Context) error {
	options := registryOptions(ctx)
	subject, err := describe(p.object)
	if err != nil {
		return err
	}
	byDigest, err := name.NewDigest(pinned{p.repository, subject.Digest}.String())
	if err != nil {
		return err
	}
	if index, ok := p.object.(v1.ImageIndex); ok {
		err = remote.WriteIndex(byDigest, index, options...)
	} else {
		err = remote.Write(byDigest, p.object.(v1.Image), options...)
	}
	if err != nil {
		return err
	}
	for _, s := range p.signed {
		referrer, err := s.referrer()
		if err != nil {
			return err
		}
		digest, err := referrer.Digest()
		if err != nil {
			return err
		}
		if err := remote.Write(byDigest.Context().Digest(digest.String()), referrer, options...); err != nil {
			return err
		}
	}
	pushed, err := remote.Get(byDigest, options...)
	if err != nil {
		return err
	}
	return remote.Tag(byDigest.Context().Tag(p.tag), pushed, options...)
}

// registryOptions uses docker login's credentials.
func registryOptions(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
}
