package artifacts

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/types/known/structpb"
)

// Verifier verifies downloads against a trusted key or identity. Create it with TrustKey or
// TrustIdentity.
type Verifier struct {
	verifier *verify.Verifier
	identity verify.PolicyOption
	// Revision and Builder must match the provenance. An empty value matches anything.
	Revision, Builder string
	// Out receives a line for everything that was verified.
	Out io.Writer
}

// TrustKey returns a Verifier that trusts signatures by a public key, in PEM.
func TrustKey(pem []byte) (*Verifier, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("the public key cannot be read: %w", err)
	}
	single, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(single, time.Time{}, time.Time{}), nil
	})
	verifier, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	return &Verifier{verifier: verifier, identity: verify.WithKey()}, err
}

// TrustIdentity returns a Verifier that trusts a workflow's identity, certified by an
// authority in trusted.
func TrustIdentity(trusted root.TrustedMaterial, identity, issuer string) (*Verifier, error) {
	verifier, err := verify.NewVerifier(trusted, verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, err
	}
	who, err := verify.NewShortCertificateIdentity(issuer, "", identity, "")
	return &Verifier{verifier: verifier, identity: verify.WithCertificateIdentity(who)}, err
}

// errOther is the error for a bundle that does not verify.
var errOther = errors.New("signed for another file, or by another key")

// statement returns a bundle's statement if the bundle is trusted and is about the digest.
func (v *Verifier) statement(text []byte, digest string) (*intoto.Statement, error) {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(digest)
	if err != nil {
		return nil, err
	}
	result, err := v.verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", sum), v.identity))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOther, err)
	}
	if result.Statement == nil {
		return nil, errors.New("the bundle has no in-toto statement")
	}
	return result.Statement, nil
}

// File verifies a downloaded file against the bundles. Without bundles, it uses all of
// those in the file's directory.
func (v *Verifier) File(path string, bundles ...string) error {
	digest, err := fileDigest(path)
	if err != nil {
		return err
	}
	if len(bundles) == 0 {
		if bundles, err = filepath.Glob(filepath.Join(filepath.Dir(path), "*"+bundleExtension)); err != nil {
			return err
		}
	}
	if len(bundles) == 0 {
		return fmt.Errorf("%s has no signature: download the release's *%s too, or set -bundle", filepath.Base(path), bundleExtension)
	}
	for _, file := range bundles {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		said, err := v.statement(text, digest)
		if errors.Is(err, errOther) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		return v.reportFile(path, digest, said)
	}
	return fmt.Errorf("%s was altered or is not of this release: no trusted signature for its digest. Delete it and download it again", filepath.Base(path))
}

func (v *Verifier) reportFile(path, digest string, said *intoto.Statement) error {
	if said.PredicateType != predicateProvenance {
		return fmt.Errorf("the signature is not of a release: its type is %s", said.PredicateType)
	}
	origin, err := v.checkProvenance(said.Predicate)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(v.Out, "%s: signed, sha256:%s\n%s", filepath.Base(path), digest, origin)
	return nil
}

// checkProvenance compares the provenance with the expected values and returns a
// description of it.
func (v *Verifier) checkProvenance(predicate *structpb.Struct) (string, error) {
	p, err := readProvenance(predicate)
	if err != nil {
		return "", fmt.Errorf("the provenance cannot be read: %w", err)
	}
	if v.Revision != "" && v.Revision != p.revision {
		return "", fmt.Errorf("built from revision %s, not from %s", p.revision, v.Revision)
	}
	if v.Builder != "" && v.Builder != p.builder {
		return "", fmt.Errorf("built by %s, not by %s", p.builder, v.Builder)
	}
	return fmt.Sprintf("  source   %s, revision %s\n  builder  %s\n", p.source, p.revision, p.builder), nil
}

// Reference verifies an image or a chart in a registry: its signature, provenance and
// content. For an image, it also verifies each platform's SBOM.
func (v *Verifier) Reference(ctx context.Context, text string) error {
	ref, err := name.ParseReference(strings.TrimPrefix(text, "oci://"), name.StrictValidation)
	if err != nil {
		return err
	}
	found, err := remote.Get(ref, registryOptions(ctx)...)
	if err != nil {
		return fmt.Errorf("%s cannot be fetched: %w", text, err)
	}
	digest := ref.Context().Digest(found.Digest.String())
	said, err := v.statements(ctx, digest)
	if err != nil {
		return err
	}
	if _, ok := said[predicateSignature]; !ok {
		return unsigned(digest, "signature")
	}
	if _, ok := said[predicateProvenance]; !ok {
		return unsigned(digest, "provenance")
	}
	origin, err := v.checkProvenance(said[predicateProvenance])
	if err != nil {
		return fmt.Errorf("%s: %w", digest, err)
	}
	_, _ = fmt.Fprintf(v.Out, "%s: signed\n%s", digest, origin)
	if !found.MediaType.IsIndex() {
		image, err := found.Image()
		if err != nil {
			return err
		}
		return complete(digest, validate.Image(image))
	}
	index, err := found.ImageIndex()
	if err != nil {
		return err
	}
	if err := complete(digest, validate.Index(index)); err != nil {
		return err
	}
	return v.platforms(ctx, digest, index)
}

func unsigned(digest name.Digest, what string) error {
	return fmt.Errorf("%s has no trusted %s: do not use it, take the digest from the release", digest, what)
}

// complete explains that the registry's content does not match the digest.
func complete(digest name.Digest, err error) error {
	if err != nil {
		return fmt.Errorf("%s: the registry has other content, push the release again: %w", digest, err)
	}
	return nil
}

// platforms verifies the SBOM of each image in an index.
func (v *Verifier) platforms(ctx context.Context, digest name.Digest, index v1.ImageIndex) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, image := range manifest.Manifests {
		one := digest.Context().Digest(image.Digest.String())
		said, err := v.statements(ctx, one)
		if err != nil {
			return err
		}
		bill, ok := said[predicateSBOM]
		if !ok {
			return unsigned(one, "bill of materials")
		}
		_, _ = fmt.Fprintf(v.Out, "  %s  %s, bill of materials with %d components\n", image.Platform, image.Digest, len(bill.Fields["components"].GetListValue().GetValues()))
	}
	return nil
}

// statements returns the predicates of all trusted statements about a digest, by type.
func (v *Verifier) statements(ctx context.Context, digest name.Digest) (map[string]*structpb.Struct, error) {
	referrers, err := remote.Referrers(digest, registryOptions(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("the signatures of %s cannot be fetched: %w", digest, err)
	}
	manifest, err := referrers.IndexManifest()
	if err != nil {
		return nil, err
	}
	said := map[string]*structpb.Struct{}
	for _, referrer := range manifest.Manifests {
		text, err := readBundle(ctx, digest.Context().Digest(referrer.Digest.String()))
		if err != nil {
			return nil, err
		}
		if text == nil {
			continue // not ours, such as a scanner's report
		}
		// Anyone who can push can attach a bundle, so untrusted ones are ignored.
		if s, err := v.statement(text, strings.TrimPrefix(digest.DigestStr(), "sha256:")); err == nil {
			said[s.PredicateType] = s.Predicate
		}
	}
	return said, nil
}

// maxBundle limits the size of a bundle from a registry.
const maxBundle = 16 << 20

// readBundle returns a referrer's bundle, or nil if it has none.
func readBundle(ctx context.Context, digest name.Digest) ([]byte, error) {
	image, err := remote.Image(digest, registryOptions(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("the signature %s cannot be fetched: %w", digest, err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		return nil, err
	}
	if mediaType, err := layers[0].MediaType(); err != nil || mediaType != bundleType {
		return nil, err
	}
	content, err := layers[0].Compressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(io.LimitReader(content, maxBundle))
}
