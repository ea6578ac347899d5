package artifacts

import (
	"bytes"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

func (b *built) verifier(t *testing.T) (*Verifier, *bytes.Buffer) {
	t.Helper()
	v, err := TrustKey(b.public)
	if err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	v.Out, v.Revision, v.Builder = out, b.revision, builder
	return v, out
}

// reference returns the digest reference of a release's image or chart.
func (b *built) reference(t *testing.T, repository, tag string) name.Digest {
	t.Helper()
	ref, err := name.NewTag(b.registry + "/" + repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	found, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Digest(found.Digest.String())
}

func TestEveryFileIsVerified(t *testing.T) {
	b := releaseOf(t)
	files, err := os.ReadDir(b.signed)
	if err != nil {
		t.Fatal(err)
	}
	verified := 0
	for _, file := range files {
		if file.IsDir() || strings.HasSuffix(file.Name(), bundleExtension) {
			continue
		}
		verified++
		v, out := b.verifier(t)
		if err := v.File(filepath.Join(b.signed, file.Name())); err != nil || !strings.Contains(out.String(), "git+"+source+", revision "+b.revision) {
			t.Errorf("%s: %v\n%s", file.Name(), err, out)
		}
	}
	if verified < 18 {
		t.Errorf("only %d files", verified)
	}
}

func TestImageAndChartAreVerifiedByDigest(t *testing.T) {
	b := releaseOf(t)
	for _, one := range []struct{ repository, tag string }{{program, version}, {program, version + "-fips"}, {"charts/" + program, version}} {
		v, out := b.verifier(t)
		ref := b.reference(t, one.repository, one.tag)
		if err := v.Reference(t.Context(), ref.String()); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		said := out.String()
		if !strings.Contains(said, b.revision) || !strings.Contains(said, builder) {
			t.Errorf("no provenance: %s", said)
		}
		if one.repository == program && (!strings.Contains(said, "linux/amd64") || !strings.Contains(said, "bill of materials with ")) {
			t.Errorf("no bill of materials: %s", said)
		}
	}
}

func TestBillOfMaterialsIsReadBack(t *testing.T) {
	b := releaseOf(t)
	v, _ := b.verifier(t)
	ref := b.reference(t, program, version)
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	said, err := v.statements(t.Context(), ref.Context().Digest(manifest.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	bill, err := said[predicateSBOM].MarshalJSON()
	if err != nil || !bytes.Contains(bill, []byte("pkg:golang/github.com/prometheus/client_golang@")) {
		t.Errorf("%v\n%s", err, bill)
	}
}

func TestWhatIsNotSignedIsRejected(t *testing.T) {
	b := releaseOf(t)
	if err := b.errUnsigned; err == nil || !strings.Contains(err.Error(), "has no trusted signature: do not use it") {
		t.Errorf("an unsigned image: %v", err)
	}
	v, _ := b.verifier(t)
	if err := v.File(filepath.Join(b.unsigned, sums)); err == nil || !strings.Contains(err.Error(), "has no signature: download") {
		t.Errorf("an unsigned file: %v", err)
	}
}

func TestAlteredFileIsRejected(t *testing.T) {
	b := releaseOf(t)
	bundle := filepath.Join(b.signed, program+"_"+version+bundleExtension)
	for _, pattern := range []string{"*.tar.gz", "*.zip", "*.deb", "*.rpm", "*.tgz", "*-gateway.yaml", sums} {
		files, err := filepath.Glob(filepath.Join(b.signed, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		content := read(t, files[0])
		content[len(content)/2] ^= 1
		altered := filepath.Join(t.TempDir(), filepath.Base(files[0]))
		if err := os.WriteFile(altered, content, 0o600); err != nil {
			t.Fatal(err)
		}
		v, out := b.verifier(t)
		if err := v.File(altered, bundle); err == nil || !strings.Contains(err.Error(), "was altered or is not of this release") || out.Len() > 0 {
			t.Errorf("%s: %v %s", pattern, err, out)
		}
	}
}

func TestAlteredImageAndChartAreRejected(t *testing.T) {
	b := releaseOf(t)
	for _, one := range []struct{ repository, tag string }{{program, version}, {"charts/" + program, version}} {
		ref := b.reference(t, one.repository, one.tag)
		found, err := remote.Get(ref)
		if err != nil {
			t.Fatal(err)
		}
		// The same name with another digest.
		note := map[string]string{"altered": "yes"}
		tag := ref.Context().Tag("altered")
		if found.MediaType.IsIndex() {
			index, err := found.ImageIndex()
			if err != nil {
				t.Fatal(err)
			}
			err = remote.WriteIndex(tag, mutate.Annotations(index, note).(v1.ImageIndex))
			if err != nil {
				t.Fatal(err)
			}
		} else {
			image, err := found.Image()
			if err != nil {
				t.Fatal(err)
			}
			if err := remote.Write(tag, mutate.Annotations(image, note).(v1.Image)); err != nil {
				t.Fatal(err)
			}
		}
		v, _ := b.verifier(t)
		if err := v.Reference(t.Context(), tag.String()); err == nil || !strings.Contains(err.Error(), "no trusted signature") {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

func TestRegistryWithAnotherContentIsNoticed(t *testing.T) {
	b := releaseOf(t)
	ref := b.reference(t, "charts/"+program, version)
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	set := func(digest string) { b.host.mu.Lock(); b.host.alter = digest; b.host.mu.Unlock() }
	set(manifest.Layers[0].Digest.String())
	defer set("")
	v, _ := b.verifier(t)
	if err := v.Reference(t.Context(), ref.String()); err == nil || !strings.Contains(err.Error(), "other content") {
		t.Error(err)
	}
}

func TestOtherSignersRevisionsAndBuildersAreRejected(t *testing.T) {
	b := releaseOf(t)
	file, ref := filepath.Join(b.signed, sums), b.reference(t, program, version).String()
	_, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), cryptoutils.SkipPassword)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := TrustKey(public)
	if err != nil {
		t.Fatal(err)
	}
	revision, _ := b.verifier(t)
	revision.Revision = strings.Repeat("0", 40)
	by, _ := b.verifier(t)
	by.Builder = "https://example.com/another"
	for want, v := range map[string]*Verifier{"no trusted sign": stranger, "built from revision": revision, "built by": by} {
		for _, err := range []error{v.File(file), v.Reference(t.Context(), ref)} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
}

func TestKeysOfOtherKindsAreRejected(t *testing.T) {
	wrong, _, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P384(), cryptoutils.SkipPassword)
	if err != nil {
		t.Fatal(err)
	}
	for want, pem := range map[string][]byte{"not ECDSA on P-256": wrong, "cannot be read": []byte("no key")} {
		if _, err := NewKeySigner(pem, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := NewKeylessSigner("", ""); err == nil || !strings.Contains(err.Error(), "-key") {
		t.Error(err)
	}
	if _, err := ReadPackageKey([]byte("no key"), nil); err == nil {
		t.Error("a text is taken for an OpenPGP key")
	}
}
