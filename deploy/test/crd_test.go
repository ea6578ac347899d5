package deploy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"mimecast-proxy/mimecast"
)

// definitions are the files that define add-ons' kinds, by API group. They are in the
// modules of crds.mod, which are downloaded but not compiled. The Secrets Store CSI
// driver's definitions are not available as a module.
var definitions = map[string]struct{ module, path string }{
	"argoproj.io":                {"github.com/argoproj/argo-cd/v3", "manifests/crds/application-crd.yaml"},
	"cilium.io":                  {"github.com/cilium/cilium", "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml"},
	"external-secrets.io":        {"github.com/external-secrets/external-secrets", "config/crds/bases/external-secrets.io_externalsecrets.yaml"},
	"networking.istio.io":        {"istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"},
	"secrets-store.csi.x-k8s.io": {},
}

// kindOf returns a document's kind.
func kindOf(t *testing.T, document []byte) schema.GroupVersionKind {
	t.Helper()
	var said metav1.TypeMeta
	if err := yaml.Unmarshal(document, &said); err != nil {
		t.Fatal(err)
	}
	return said.GroupVersionKind()
}

// isAddOns reports whether a document's kind belongs to an add-on.
func isAddOns(t *testing.T, document []byte) bool {
	t.Helper()
	_, ok := definitions[kindOf(t, document).Group]
	return ok
}

// moduleFile reads a file from a module in crds.mod.
func moduleFile(t *testing.T, module, path string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-modfile=crds.mod", "-json", module).Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", module, err, out)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(downloaded.Dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// definition has the fields of a CustomResourceDefinition that these tests need.
type definition struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Served bool
			Schema struct {
				OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
			}
		}
	}
}

// schemaOf returns a kind's published schema, changed to reject unknown fields.
func schemaOf(t *testing.T, kind schema.GroupVersionKind) *jsonschema.Schema {
	t.Helper()
	from := definitions[kind.Group]
	for _, document := range documents(t, moduleFile(t, from.module, from.path)) {
		var d definition
		if err := yaml.Unmarshal(document, &d); err != nil {
			t.Fatal(err)
		}
		if d.Spec.Group != kind.Group || d.Spec.Names.Kind != kind.Kind {
			continue
		}
		for _, v := range d.Spec.Versions {
			if v.Name == kind.Version && v.Served {
				s := v.Schema.OpenAPIV3Schema
				properties := s["properties"].(map[string]any)
				for _, every := range []string{"apiVersion", "kind", "metadata"} { // every object has these
					properties[every] = true
				}
				return compile(t, makeStrict(s))
			}
		}
	}
	t.Fatalf("%s has no %v", from.module, kind)
	return nil
}

func compile(t *testing.T, s any) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("schema.json", toJSON(t, s)); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// toJSON converts a value to the types that the schema library expects.
func toJSON(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	converted, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return converted
}

// makeStrict converts an OpenAPI schema to a JSON Schema. It rejects fields that an API
// server would drop.
func makeStrict(value any) any {
	s, ok := value.(map[string]any)
	if !ok {
		return value
	}
	if s["x-kubernetes-int-or-string"] == true {
		delete(s, "type")
	}
	delete(s, "format")
	properties, _ := s["properties"].(map[string]any)
	for name, property := range properties {
		properties[name] = makeStrict(property)
	}
	if properties != nil && s["additionalProperties"] == nil && s["x-kubernetes-preserve-unknown-fields"] != true {
		s["additionalProperties"] = false
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if s[key] != nil {
			s[key] = makeStrict(s[key])
		}
	}
	return s
}

// secretProviderClass has the CSI driver's documented fields.
type secretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Provider   string            `json:"provider"`
		Parameters map[string]string `json:"parameters"`
	} `json:"spec"`
}

func TestExamplesOfAddOnsAreOfTheirPublishedKinds(t *testing.T) {
	if testing.Short() {
		t.Skip("it downloads the definitions")
	}
	seen := map[string]int{}
	for _, dir := range entryPoints(t) {
		for _, document := range documents(t, kustomize(t, dir)) {
			kind := kindOf(t, document)
			if !isAddOns(t, document) {
				continue
			}
			seen[kind.Group]++
			if definitions[kind.Group].module == "" {
				var class secretProviderClass
				if err := yaml.UnmarshalStrict(document, &class); err != nil || class.Spec.Provider == "" {
					t.Errorf("%s: %v", dir, err)
				}
				continue
			}
			var object map[string]any
			if err := yaml.Unmarshal(document, &object); err != nil {
				t.Fatal(err)
			}
			s := schemaOf(t, kind)
			if err := s.Validate(toJSON(t, object)); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
			object["spec"].(map[string]any)["nonsense"] = true
			if s.Validate(toJSON(t, object)) == nil {
				t.Errorf("%v: its schema takes any field", kind)
			}
		}
	}
	if len(seen) != len(definitions) {
		t.Errorf("only %v", seen)
	}
}

// Policies by host name allow exactly the hosts of API 2.0.
func TestPoliciesByNameAllowMimecast(t *testing.T) {
	for example, field := range map[string]string{"cilium": "matchName: ", "istio": "  - "} {
		text := string(kustomize(t, filepath.Join(manifests, "examples", example)))
		for region, url := range mimecast.BaseURLs {
			if !strings.Contains(text, field+strings.TrimPrefix(url, "https://")+"\n") {
				t.Errorf("%s: region %s is not allowed", example, region)
			}
		}
	}
	for _, p := range networkPolicies(t, kustomize(t, filepath.Join(manifests, "examples", "cilium")), "mimecast-proxy") {
		for _, rule := range p.Spec.Egress {
			for _, port := range rule.Ports {
				if port.Port.IntValue() == 443 {
					t.Error("port 443 is open to any address")
				}
			}
		}
	}
}

// The commands of exec probes check the same endpoints as HTTP probes.
func TestExecProbesAskTheSame(t *testing.T) {
	proxy := proxyOf(t, gatewayPod(t, kustomize(t, filepath.Join(manifests, "examples", "istio"))).Spec)
	for probe, command := range map[string][]string{
		"startup": proxy.StartupProbe.Exec.Command, "liveness": proxy.LivenessProbe.Exec.Command,
	} {
		if !slices.Equal(command, []string{"/mimecast-proxy", "healthcheck", "--probe", probe}) {
			t.Errorf("%s: %v", probe, command)
		}
	}
	if proxy.ReadinessProbe != nil || proxy.StartupProbe.TimeoutSeconds < 5 || proxy.LivenessProbe.TimeoutSeconds < 5 {
		t.Errorf("%+v", proxy)
	}
}

// Vault Agent and the CSI driver write the files to the paths in the variables.
func TestCredentialsAreWhereTheVariablesSay(t *testing.T) {
	vault := gatewayPod(t, kustomize(t, filepath.Join(manifests, "examples", "vault-agent")))
	env := variables(proxyOf(t, vault.Spec))
	for _, file := range []string{"client-id", "client-secret"} {
		path := vault.Annotations["vault.hashicorp.com/secret-volume-path"] + "/" + file
		name := "MIMECAST_" + strings.ToUpper(strings.ReplaceAll(file, "-", "_")) + "_FILE"
		if env[name] != path || vault.Annotations["vault.hashicorp.com/agent-inject-secret-"+file] == "" {
			t.Errorf("%s is %s, and not %s", name, env[name], path)
		}
	}
	csi := gatewayPod(t, kustomize(t, filepath.Join(manifests, "examples", "secrets-store-csi"))).Spec
	for _, v := range csi.Volumes {
		if v.Name == "mimecast" && (v.CSI == nil || v.Secret != nil) {
			t.Errorf("%+v", v)
		}
	}
}
