package quota

import (
	"strings"
	"testing"
)

func TestEverySpellingIsOneFunction(t *testing.T) {
	const siem = "/siem/v1/events/cg"
	for _, raw := range []string{
		siem, "/%73iem/v1/events/cg", "/siem/v1/events/c%67", "/siem/%761/events/cg", siem + "/", siem + "//", "/siem//v1/events/cg",
		"/siem%2Fv1%2fevents/cg", "/siem/v1/events/cg%2f", "/siem/./v1/events/cg", "/siem" + strings.Repeat("/", 1000) + "v1/events/cg",
	} {
		if got := cleanPath(raw); got != siem {
			t.Errorf("%q is %q", raw, got)
		}
	}
	for raw, want := range map[string]string{"": "/", "/": "/", "/a%zz/": "/a%zz", "/%2573iem": "/%73iem", "/" + strings.Repeat("x", 1000): "/" + strings.Repeat("x", maxPath-1)} {
		if got := cleanPath(raw); got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	f.Add("/siem/%2e%2e/x")
	f.Add("//")
	f.Fuzz(func(t *testing.T, raw string) {
		clean := cleanPath(raw)
		if len(clean) > maxPath || clean == "" {
			t.Errorf("%q is %q", raw, clean)
		}
		if !strings.ContainsAny(raw, "%") && cleanPath(raw+"/") != clean {
			t.Errorf("%q is another function with a slash", raw)
		}
	})
}
