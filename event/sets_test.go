package event_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mimecast-proxy/event"
)

// constants returns the values of the package's constants by type and name.
func constants(t *testing.T) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || spec.Type == nil || len(spec.Values) != 1 {
				return true
			}
			typed, ok := spec.Type.(*ast.Ident)
			literal, isLiteral := spec.Values[0].(*ast.BasicLit)
			if !ok || !isLiteral || literal.Kind != token.STRING {
				return true
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			if found[typed.Name] == nil {
				found[typed.Name] = map[string]string{}
			}
			found[typed.Name][spec.Names[0].Name] = value
			return true
		})
	}
	return found
}

func texts[T ~string](set []T) []string {
	out := make([]string, len(set))
	for i, v := range set {
		out[i] = string(v)
	}
	return out
}

func TestEveryConstantIsInItsListAndViceVersa(t *testing.T) {
	var codes []event.Code
	for _, k := range event.Kinds() {
		codes = append(codes, k.Code)
	}
	var causes []string
	for _, c := range event.Conditions() {
		causes = append(causes, string(c.Cause))
	}
	lists := map[string][]string{
		"Cause":              causes,
		"HealthState":        texts(event.HealthStates),
		"Phase":              texts(event.Phases),
		"Code":               texts(codes),
		"Component":          texts(event.Components),
		"UnauthorizedReason": texts(event.UnauthorizedReasons),
		"RetryOutcome":       texts(event.RetryOutcomes),
		"HoldOutcome":        texts(event.HoldOutcomes),
		"TokenTrigger":       texts(event.TokenTriggers),
		"TokenOutcome":       texts(event.TokenOutcomes),
		"AbortedBy":          texts(event.AbortedBySides),
		"FileVariable":       append(texts(event.FileVariables), string(event.FileOther)),
		"ReloadOutcome":      texts(event.ReloadOutcomes),
		"InterceptOutcome":   texts(event.InterceptOutcomes),
		"PaceOutcome":        texts(event.PaceOutcomes),
	}
	found := constants(t)
	if got, want := slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(lists)); !slices.Equal(got, want) {
		t.Fatalf("the types are %v, and this test knows %v", got, want)
	}
	for name, list := range lists {
		if got, want := slices.Sorted(slices.Values(list)), slices.Sorted(maps.Values(found[name])); !slices.Equal(got, want) {
			t.Errorf("%s: the list has %v, the constants are %v", name, got, want)
		}
	}
}

func TestValuesFromOutsideAreInTheirLists(t *testing.T) {
	if got := event.UnauthorizedReasonOf("token_expired"); got != event.ReasonTokenExpired {
		t.Error(got)
	}
	if got := event.FileVariableOf("PROXY_API_KEY_FILE"); got != event.FileAPIKey {
		t.Error(got)
	}
	if r, f := event.UnauthorizedReasonOf("odd"), event.FileVariableOf("odd"); r != event.ReasonOther || f != event.FileOther {
		t.Error(r, f)
	}
}
