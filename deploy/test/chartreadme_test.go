package deploy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

var update = flag.Bool("update", false, "write generated documents anew")

// TestChartsReadmeHasEveryValue generates the table of values from the comments in
// values.yaml.
func TestChartsReadmeHasEveryValue(t *testing.T) {
	const path, began = chartPath + "/README.md", "\n## Values\n\n"
	text, err := os.ReadFile(chartPath + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(readme), began)
	if !found {
		t.Fatalf("%s has no heading for values", path)
	}
	want := head + began + "The comments in [values.yaml](values.yaml), as a table.\n\n| value | default | meaning |\n|---|---|---|\n" + rows(t, "", document.Content[0])
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(readme) != want {
		t.Errorf("%s is not what values.yaml says: run this test with -update", path)
	}
}

// rows returns a table row for each value of a mapping, and for each group that has a
// comment.
func rows(t *testing.T, prefix string, mapping *yaml.Node) string {
	t.Helper()
	var table strings.Builder
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name, comment := prefix+key.Value, plainComment(key.HeadComment)
		if isGroup(value) {
			if comment != "" {
				fmt.Fprintf(&table, "| `%s` | | %s |\n", name, comment)
			}
			table.WriteString(rows(t, name+".", value))
			continue
		}
		if comment == "" {
			t.Errorf("%s has no comment", name)
		}
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", name, compact(t, value), comment)
	}
	return table.String()
}

// isGroup reports whether comments describe a mapping's values individually.
func isGroup(value *yaml.Node) bool {
	for i := 0; value.Kind == yaml.MappingNode && i < len(value.Content); i += 2 {
		if value.Content[i].HeadComment != "" {
			return true
		}
	}
	return false
}

// plainComment returns a comment as one table cell.
func plainComment(comment string) string {
	var lines []string
	for line := range strings.Lines(comment) {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
	}
	return strings.ReplaceAll(strings.Join(lines, " "), "|", `\|`)
}

func compact(t *testing.T, value *yaml.Node) string {
	t.Helper()
	if value.Kind == yaml.ScalarNode && value.Value != "" {
		return value.Value
	}
	var v any
	if err := value.Decode(&v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
