package connection

import (
	"bufio"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestKubernetesSecret(t *testing.T) {
	for _, text := range append(slices.Clone(awkward), `sin'gle`, `end\`) {
		var out strings.Builder
		if err := WriteKubernetesSecret(&out, "mimecast", "siem", credentials("id-"+text, text)); err != nil {
			t.Fatal(err)
		}
		values := map[string]string{}
		for scanner := bufio.NewScanner(strings.NewReader(out.String())); scanner.Scan(); {
			name, value, ok := strings.Cut(strings.TrimSpace(scanner.Text()), ": ")
			if unquoted := ""; ok && json.Unmarshal([]byte(value), &unquoted) == nil {
				value = unquoted
			}
			values[name] = value
		}
		for name, want := range map[string]string{
			"apiVersion": "v1", "kind": "Secret", "name": "mimecast", "namespace": "siem", "type": "Opaque", "client-id": "id-" + text, "client-secret": text,
		} {
			if values[name] != want {
				t.Errorf("%s is %q, not %q:\n%s", name, values[name], want, out.String())
			}
		}
	}
}

func TestKubernetesSecretWithoutNamespace(t *testing.T) {
	var out strings.Builder
	if err := WriteKubernetesSecret(&out, "mimecast", "", sample); err != nil || strings.Contains(out.String(), "namespace") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
