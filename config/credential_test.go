package config_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

// secretFrom returns the client secret in a file, or the only error.
func secretFrom(t *testing.T, path string) (config.Credential, string) {
	t.Helper()
	environ := []string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET_FILE=" + path}
	if all := faults(t, environ); len(all) > 0 {
		if len(all) > 1 {
			t.Errorf("more than one fault: %q", all)
		}
		return config.Credential{}, all[0]
	}
	cfg, err := config.Parse(environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.ClientSecret, ""
}

func TestOneTrailingNewlineIsNoPartOfASecret(t *testing.T) {
	longest := strings.Repeat("x", 64<<10)
	for content, want := range map[string]string{
		"a": "a", "a\n": "a", "a\r\n": "a", "a b": "a b", longest: longest, "\ufeffa": "a", "\ufeffa\r\n": "a", "a==": "a==", "a+b/c=\n": "a+b/c=", "\u20ac": "\u20ac",
	} {
		c, fault := secretFrom(t, write(t, content))
		if got := c.Value().Reveal(); fault != "" || got != want {
			t.Errorf("%.20q: %s %q", content, fault, got)
		}
	}
}

func TestUnusableSecretFiles(t *testing.T) {
	for content, says := range map[string]string{
		"": "is empty", "\n": "is empty", "\r\n": "is empty", marked + "\n\n": "control character", marked + "\r": "control character",
		marked + "\x00": "control character", marked + "\nmore": "control character", " " + marked: "a blank",
		"\ufeff": "is empty", "\xff\xfea\x00": "is in UTF-16", "\xfe\xff\x00a": "is in UTF-16", "a\x00b\x00": "is in UTF-16", "\x00a\x00b": "is in UTF-16", "caf\xe9": "is not text in UTF-8",
		marked + "\u200b": "the invisible character U+200B", "\u2060" + marked: "the invisible character U+2060", marked + "\u00a0x": "the invisible character U+00A0", marked + "\ufeff": "invisible",
		`"` + marked + `"`: "quotation marks", "'" + marked + "'\n": "quotation marks", "\u201c" + marked + "\u201d": "quotation marks",
		`{"client_secret":"` + marked + `"}`: "is JSON", "{\n \"secret\": \"" + marked + "\"\n}\n": "is JSON",
		"MIMECAST_CLIENT_SECRET=" + marked: "NAME=value", "export SECRET=" + marked + "\nMORE=x\n": "NAME=value", "secret = " + marked: "NAME=value",
		strings.Repeat("x", 64<<10) + "\r\n": "larger than 64KiB", strings.Repeat("x", 64<<10) + "\rx": "larger than 64KiB",
	} {
		if _, fault := secretFrom(t, write(t, content)); !strings.Contains(fault, says) {
			t.Errorf("%.20q: %s", content, fault)
		}
	}
}

func TestSecretFileMustBeAFile(t *testing.T) {
	if _, fault := secretFrom(t, t.TempDir()); !strings.Contains(fault, "not a regular file") {
		t.Error(fault)
	}
}

func TestSecretInPlaceOfItsPathIsNotShown(t *testing.T) {
	_, fault := secretFrom(t, marked) // faults fails if an error shows it
	if !strings.Contains(fault, "its name is not shown") {
		t.Error(fault)
	}
}

func TestNoCredentialHasNoValue(t *testing.T) {
	if c := (config.Credential{}); !c.Value().IsZero() || c.Values() != nil || !c.IsZero() {
		t.Errorf("%v", c.Values())
	}
}

func TestQuotationMarksAroundAPathAreNamed(t *testing.T) {
	if _, fault := secretFrom(t, `"/run/secrets/x"`); !strings.Contains(fault, "begins with a quotation mark") {
		t.Error(fault)
	}
}

func TestBase64OfALineIsWarnedOf(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte(marked + "\n"))
	for _, v := range []string{"MIMECAST_CLIENT_SECRET=" + encoded, "MIMECAST_CLIENT_SECRET=|MIMECAST_CLIENT_SECRET_FILE=" + write(t, encoded)} {
		if got := parse(t, strings.Split(v, "|")...).Warnings; len(got) != 1 || !strings.Contains(got[0], "base64") {
			t.Errorf("%q", got)
		}
	}
}

func keysFrom(t *testing.T, content string) (keys []string, fault string) {
	t.Helper()
	all := environ("PROXY_API_KEY_FILE=" + write(t, content))
	if got := faults(t, all); len(got) > 0 {
		return nil, got[0]
	}
	cfg, err := config.Parse(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range cfg.APIKey.Values() {
		keys = append(keys, k.Reveal())
	}
	return keys, ""
}

func TestKeyFileHoldsAKeyALine(t *testing.T) {
	for content, want := range map[string][]string{
		"one": {"one"}, "one\n": {"one"}, "one\ntwo": {"one", "two"}, "one\r\ntwo\r\n": {"one", "two"}, "\ufeffone\n\n  \ntwo\n\n": {"one", "two"}, "\r\n\r\none\r\n": {"one"},
		strings.Repeat("k\n", 100): slices.Repeat([]string{"k"}, 100),
	} {
		got, fault := keysFrom(t, content)
		if fault != "" || !slices.Equal(got, want) {
			t.Errorf("%.20q: %q %s", content, got, fault)
		}
	}
	for content, says := range map[string]string{
		"": "is empty", "\n \r\n": "is empty", "one\n two\n": "line 2 that begins or ends with a blank", "one\n\nt\x00o": "line 3 that has a control character",
		"one\ntw\u200bo": "line 2 that has the invisible character U+200B", strings.Repeat("k\n", 101): "more than 100 keys", "\xff\xfek\x00": "UTF-16",
	} {
		if got, fault := keysFrom(t, content); !strings.Contains(fault, says) {
			t.Errorf("%.20q: %q %s", content, got, fault)
		}
	}
}

func TestShortKeyAmongManyIsWarnedOf(t *testing.T) {
	long := strings.Repeat("k", 16)
	for content, want := range map[string]int{long: 0, long + "\n" + long + "x": 0, long + "\nshort": 1, "a\nb": 1} {
		if got := parse(t, "PROXY_API_KEY_FILE="+write(t, content)).Warnings; len(got) != want || want > 0 && !strings.Contains(got[0], "fewer than 16 characters") {
			t.Errorf("%q: %q", content, got)
		}
	}
}
