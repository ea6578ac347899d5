package artifacts

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Predicate types. cosign sign writes the first one.
const (
	predicateSignature  = "https://sigstore.dev/cosign/sign/v1"
	predicateProvenance = "https://slsa.dev/provenance/v1"
	predicateSBOM       = "https://cyclonedx.org/bom"
)

// statement is an in-toto statement and the image or chart to attach it to. Statements
// about files are not attached.
type statement struct {
	text      []byte
	predicate string
	subject   *v1.Descriptor
}

func newStatement(predicateType string, predicate *structpb.Struct, subject *v1.Descriptor, subjects ...*intoto.ResourceDescriptor) (statement, error) {
	s := &intoto.Statement{Type: intoto.StatementTypeUri, Subject: subjects, PredicateType: predicateType, Predicate: predicate}
	if err := s.Validate(); err != nil {
		return statement{}, err
	}
	text, err := stableJSON(s)
	return statement{text, predicateType, subject}, err
}

// stableJSON removes the random spaces from protojson's output.
func stableJSON(m proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = json.Compact(&b, text)
	return b.Bytes(), err
}

// sbomStatement returns a statement with an image's SBOM.
func sbomStatement(file string, image v1.Image) (statement, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return statement{}, err
	}
	bill := &structpb.Struct{}
	if err := protojson.Unmarshal(text, bill); err != nil {
		return statement{}, err
	}
	subject, err := describe(image)
	if err != nil {
		return statement{}, err
	}
	return newStatement(predicateSBOM, bill, &subject, resource(program, subject.Digest.Hex))
}

func resource(name, digest string) *intoto.ResourceDescriptor {
	return &intoto.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": digest}}
}

// provenance returns the revision, builder, Go version and settings of the build.
func (r *release) provenance() (*structpb.Struct, error) {
	targets := make([]any, len(r.Targets))
	for i, t := range r.Targets {
		targets[i] = t.OS + "/" + t.Arch
		if t.FIPS {
			targets[i] = t.OS + "/" + t.Arch + "/fips"
		}
	}
	external, err := structpb.NewStruct(map[string]any{"version": r.Version, "targets": targets})
	if err != nil {
		return nil, err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": r.goVersion, "goflags": r.goFlags, "fipsModule": fipsModule})
	if err != nil {
		return nil, err
	}
	p := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{
			BuildType: r.SourceURL + "#deploy/release/v1", ExternalParameters: external, InternalParameters: internal,
			ResolvedDependencies: []*intoto.ResourceDescriptor{{Uri: "git+" + r.SourceURL, Digest: map[string]string{"gitCommit": r.revision}}},
		},
		RunDetails: &provenance.RunDetails{Builder: &provenance.Builder{Id: r.Builder}},
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	predicate := &structpb.Struct{}
	return predicate, protojson.Unmarshal(text, predicate)
}

// fileStatement returns the provenance of all files.
func (r *release) fileStatement(predicate *structpb.Struct) (statement, error) {
	names, err := r.files()
	if err != nil {
		return statement{}, err
	}
	var subjects []*intoto.ResourceDescriptor
	for _, name := range names {
		digest, err := fileDigest(filepath.Join(r.Dist, name))
		if err != nil {
			return statement{}, err
		}
		subjects = append(subjects, resource(name, digest))
	}
	return newStatement(predicateProvenance, predicate, nil, subjects...)
}

// addStatements adds a signature statement and the provenance to an image or a chart.
func (p *published) addStatements(predicate *structpb.Struct) error {
	subject, err := describe(p.object)
	if err != nil {
		return err
	}
	for _, said := range []struct {
		predicateType string
		predicate     *structpb.Struct
	}{{predicateSignature, &structpb.Struct{}}, {predicateProvenance, predicate}} {
		s, err := newStatement(said.predicateType, said.predicate, &subject, resource(p.repository, subject.Digest.Hex))
		if err != nil {
			return err
		}
		p.statements = append(p.statements, s)
	}
	return nil
}

// origin is the content of a provenance.
type origin struct{ source, revision, builder string }

func readProvenance(predicate *structpb.Struct) (origin, error) {
	text, err := protojson.Marshal(predicate)
	if err != nil {
		return origin{}, err
	}
	p := &provenance.Provenance{}
	// Other builders may add fields.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, p); err != nil {
		return origin{}, err
	}
	if err := p.Validate(); err != nil {
		return origin{}, err
	}
	o := origin{builder: p.GetRunDetails().GetBuilder().GetId()}
	for _, d := range p.GetBuildDefinition().GetResolvedDependencies() {
		if revision := d.GetDigest()["gitCommit"]; revision != "" {
			o.source, o.revision = d.GetUri(), revision
			return o, nil
		}
	}
	return origin{}, errors.New("it names no revision")
}
