package secret_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"mimecast-proxy/secret"
)

const marked = "s3cr3t-marked"

// holder also has a secret in an unexported field, which fmt reads without calling a
// method.
type holder struct {
	Open   secret.Text
	closed secret.Text
	ptr    *secret.Text
}

func TestNoPrinterShowsTheText(t *testing.T) {
	text := secret.New(marked)
	h := holder{Open: text, closed: text, ptr: &text}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%U"} {
		for _, v := range []any{text, &text, h, &h, []secret.Text{text}, map[string]holder{"k": h}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if err := xml.NewEncoder(&out).Encode(text); err != nil {
		t.Fatal(err)
	}
	log := zerolog.New(&out)
	log.Info().Interface("h", h).Any("t", text).Stringer("s", text).Msg("")
	slog.New(slog.NewJSONHandler(&out, nil)).Info("", "h", h, "t", text)
	slog.New(slog.NewTextHandler(&out, nil)).Info("", "h", h, "t", text)
	fmt.Fprint(&out, fmt.Errorf("with %v and %w", text, fmt.Errorf("%#v", h)))

	for _, leak := range []string{marked, fmt.Sprintf("%x", marked), fmt.Sprintf("%X", marked)} {
		if strings.Contains(out.String(), leak) {
			t.Fatalf("%q was printed:\n%s", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), `"Open":"[redacted]"`) {
		t.Error("JSON does not say that a secret was there")
	}
}

func TestZeroValueIsEmpty(t *testing.T) {
	var zero secret.Text
	if !zero.IsZero() || zero.Reveal() != "" || zero.String() != "" {
		t.Errorf("zero value: IsZero %v, Reveal %q, String %q", zero.IsZero(), zero.Reveal(), zero.String())
	}
}

func TestEqual(t *testing.T) {
	a, b := secret.New("k"), secret.New("k")
	if !a.Equal(b) || a.Equal(secret.New("l")) || a.Equal(secret.Text{}) || !(secret.Text{}).Equal(secret.New("")) {
		t.Error("Equal disagrees with ==")
	}
}
