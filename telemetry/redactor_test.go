package telemetry_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

// encodings are ways in which a peer or a library may encode a secret that it repeats.
var encodings = []struct {
	name   string
	encode func(string) string
}{
	{"plain", func(s string) string { return s }},
	{"quoted", strconv.Quote},
	{"quoted twice", func(s string) string { return strconv.Quote(strconv.Quote(s)) }},
	{"quoted in ASCII", strconv.QuoteToASCII},
	{"JSON", asJSON},
	{"JSON twice", func(s string) string { return asJSON(asJSON(s)) }},
	{"JSON of PHP", func(s string) string { return strings.ReplaceAll(asJSON(s), "/", `\/`) }},
	{"a query", url.QueryEscape},
	{"a path", url.PathEscape},
	{"a query twice", func(s string) string { return url.QueryEscape(url.QueryEscape(s)) }},
	{"a quoted query", func(s string) string { return strconv.Quote(url.QueryEscape(s)) }},
	{"all escaped", func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02x", s[i])
		}
		return b.String()
	}},
	{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"base64 of URLs", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }},
	{"Basic", func(s string) string { return base64.StdEncoding.EncodeToString([]byte("id:" + s)) }},
	{"Basic, as RFC 6749 has it", func(s string) string { return base64.StdEncoding.EncodeToString([]byte("an:" + url.QueryEscape(s))) }},
	{"within base64", func(s string) string { return base64.URLEncoding.EncodeToString([]byte("Bearer " + s + "!!")) }},
	{"escaped base64", func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s))) }},
	{"hexadecimal", func(s string) string { return hex.EncodeToString([]byte(s)) }},
	{"HEXADECIMAL", func(s string) string { return fmt.Sprintf("%X", s) }},
}

func asJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// forms returns the texts that reveal a secret. It omits the ends of base64 and quotes,
// which other text can share.
func forms(s string) []string {
	all := []string{s}
	for _, e := range encodings {
		all = append(all, strings.Trim(e.encode(s), `"=\`))
	}
	for _, cut := range []string{"id:", "an:", "Bearer "} {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			whole := e.EncodeToString([]byte(cut + s))
			all = append(all, whole[(len(cut)*8+5)/6:(len(cut)+len(s))*8/6])
		}
	}
	return all
}

// awkward are secrets that the encodings change.
var awkward = []string{
	`before-an-amper\&sand`,
	"s3cr3t-value", `qu"ote\back/slash<&>`, "100%25 sure%", "%2525%25", `at-the-tail\`, `\at-the-head`, `"both-ends"`, "a+b c=d&e;f", `\u0041\x41%41`, "pässwörd😀", "7f7f7f7f%7f", "u0041xyz", `back\\\\\slashes`,
	"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln_-",
}

func TestRedactorKnowsEveryEncoding(t *testing.T) {
	for _, s := range awkward {
		r := new(telemetry.Redactor)
		r.Set("client secret", secret.New(s))
		for _, e := range encodings {
			for _, around := range [][2]string{{"", ""}, {"before ", " after"}, {"%", "25"}, {`\`, `"`}, {"%2", "f"}, {`\u004`, "41"}, {`{"a":"`, `"}`}} {
				text := around[0] + e.encode(s) + around[1]
				got := r.Redact(text)
				for _, form := range forms(s) {
					if strings.Contains(got, form) {
						t.Errorf("%s of %q: %q shows %q", e.name, s, got, form)
						break
					}
				}
				if got == text {
					t.Errorf("%s of %q: %q stays", e.name, s, text)
				}
			}
		}
	}
}

// Secrets with a common prefix must not hide each other.
func TestRedactorKnowsEachOfManySecrets(t *testing.T) {
	for _, s := range awkward {
		alone, many := new(telemetry.Redactor), new(telemetry.Redactor)
		alone.Set("client secret", secret.New(s))
		var others []secret.Text
		for n := range len(s) + 1 {
			for _, end := range []string{"~#0#~", "!#1#!", "#~#~#", "###!!!", "\x02!~#"} {
				others = append(others, secret.New(s[:n]+end))
			}
		}
		many.Set("client secret", append(others, secret.New(s))...)
		for _, e := range encodings {
			for _, around := range [][2]string{{"", ""}, {"before ", " after"}, {`{"a":"`, `"}`}, {"x/", "/y"}} {
				text := around[0] + e.encode(s) + around[1]
				if got, want := many.Redact(text), alone.Redact(text); got != want {
					t.Errorf("%s of %q: %q, and alone %q", e.name, s, got, want)
				}
			}
		}
	}
}

func TestRedactorForgetsOnlyWhatNoSecretHas(t *testing.T) {
	r := new(telemetry.Redactor)
	both, one, another := secret.New("of-both-kinds"), secret.New("of-one-kind"), secret.New("of-another")
	r.Set("a", both, both, one)
	r.Set("b", both)
	r.Set("a", another)
	r.Set("a")
	if got := r.Redact("of-both-kinds of-one-kind of-another"); got != "[redacted] of-one-kind [redacted]" {
		t.Error(got)
	}
	r.Set("b", secret.New("x"))
	r.Set("b")
	r.Set("a", secret.New("y"))
	if got := r.Redact("of-both-kinds of-another"); got != "of-both-kinds of-another" {
		t.Error(got)
	}
}

func TestRedactorLeavesTheRest(t *testing.T) {
	r := new(telemetry.Redactor)
	r.Set("api key", secret.New("4711"), secret.New("abc"), secret.New("x"), secret.New(""), secret.Text{}, secret.New("longer-than-that"))
	for text, want := range map[string]string{
		"":                              "",
		"abc":                           "abc", // below the minimum length
		"key 4711, 47110 and x4711":     "key [redacted], 47110 and x4711",
		`"4711"`:                        `"[redacted]"`,
		"xlonger-than-thatx":            "x[redacted]x",
		"longer-than-tha":               "longer-than-tha",
		"longer-than-thatlonger-than-t": "[redacted]longer-than-t",
		html.EscapeString("a & b"):      "a &amp; b",
		`C:\dir\new 50% +1 %zz \u12`:    `C:\dir\new 50% +1 %zz \u12`,
	} {
		if got := r.Redact(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var none *telemetry.Redactor
	if none.Redact("x") != "x" || new(telemetry.Redactor).Redact("y") != "y" {
		t.Error("redacts without a secret")
	}
}

func TestRedactorRemembersWhatWasReplaced(t *testing.T) {
	r := new(telemetry.Redactor)
	text := func(n int) secret.Text { return secret.New(fmt.Sprintf("secret-%04d.", n)) }
	shown := func(n int) bool { return r.Redact(text(n).Reveal()) != "[redacted]" }
	for n := range 20 {
		r.Add(text(n))
		r.Add(text(n)) // replaces no other token
	}
	if shown(19) || shown(4) || !shown(3) {
		t.Error("not the last 16 tokens are remembered")
	}
	r.Set("key", text(100))
	r.Set("key", text(101))
	r.Set("key", text(101)) // no change
	if shown(100) || shown(101) {
		t.Error("a key that was just replaced shows")
	}
	r.Set("key", text(102))
	r.Set("other")
	if !shown(100) || shown(101) || shown(102) {
		t.Error("not the last two keys are remembered")
	}
}

// manySecrets returns a Redactor that knows 1,000 keys, and the secrets and last two
// tokens of 50 accounts.
func manySecrets() *telemetry.Redactor {
	text := func(kind string, n int) secret.Text {
		return secret.New(fmt.Sprintf("%x", sha256.Sum256([]byte(kind+strconv.Itoa(n)))))
	}
	r := new(telemetry.Redactor)
	var keys []secret.Text
	for n := range 1000 {
		keys = append(keys, secret.New("mcp_"+text("key", n).Reveal()))
	}
	r.Set("API key", keys...)
	for n := range 50 {
		kind := strconv.Itoa(n)
		r.Set("client secret of "+kind, text("secret", n))
		r.Set("token of "+kind, text("token", n))
		r.Set("token of "+kind, text("next token", n))
	}
	return r
}

func BenchmarkRedact(b *testing.B) {
	r := manySecrets()
	line := `{"level":"info","time":"2026-03-01T03:00:00.000Z","msg":"request","request_id":"24a37735b64d4ba5","method":"GET","path":"/siem/v1/events/cg","status":200,"duration_ms":12.345,"bytes_in":0,"bytes_out":5120,"upstream_ms":11.9,"retried":false,"client":"127.0.0.1","mimecast_request_id":"24a37735-b64d-4ba5-bc7b-000000000000"}`
	for name, text := range map[string]string{"line": line, "escaped": strconv.Quote(line), "alike": strings.Repeat("mcp_", len(line)/4)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r.Redact(text)
			}
		})
	}
}

func BenchmarkNewToken(b *testing.B) {
	r := manySecrets()
	n := 0
	for b.Loop() {
		n++
		r.Set("token of 7", secret.New(strings.Repeat(strconv.Itoa(n), 100)))
	}
}

// Backslashes must be counted once per run, since any peer can send a text of only
// backslashes.
func TestRunsOfBackslashesCostTheirLength(t *testing.T) {
	r := new(telemetry.Redactor)
	r.Set("client secret", secret.New(`se\cret"0123456789`))
	r.Set("API key", secret.New(`\\key-of-the-proxy`))
	cost := func(n int) time.Duration {
		text := strings.Repeat(`\`, n) + "x"
		least := time.Hour
		for range 5 {
			began := time.Now()
			r.Redact(text)
			least = min(least, time.Since(began))
		}
		return least
	}
	// For 16 times the length, quadratic time would be 256 times as long.
	if short, long := cost(4<<10), cost(64<<10); long > 80*short+10*time.Millisecond {
		t.Errorf("4 KiB take %v, 64 KiB %v", short, long)
	}
	for _, form := range []string{`se\cret"0123456789`, `se\\cret\"0123456789`, `\\key-of-the-proxy`, `\\\\key-of-the-proxy`} {
		for _, n := range []int{0, 1, 2, 63, 64, 65, 66, 1000, 1001} {
			if got := r.Redact(strings.Repeat(`\`, n) + form + `\`); strings.Contains(got, "key-of") || strings.Contains(got, "cret") {
				t.Errorf("%d backslashes before %s: %q", n, form, got)
			}
		}
	}
}
