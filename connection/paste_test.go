package connection

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	pastedID     = "w8fDkZbPq2VxRt7LmN3sYc5H"
	pastedSecret = "QhT9+xVb2/Lw8kRz4mNc7PsD1fGj=="
)

func TestParsePaste(t *testing.T) {
	both := func(format string) string {
		return strings.NewReplacer("ID", pastedID, "KEY", pastedSecret).Replace(format)
	}
	tests := map[string]string{
		"two lines":                    both("ID\nKEY"),
		"two lines of Windows":         both("ID\r\nKEY\r\n"),
		"lines with more between":      both("\n\n  ID  \n\n\tKEY\n\n"),
		"a blank":                      both("ID KEY"),
		"a tab":                        both("ID\tKEY"),
		"a no-break space":             both("ID\u00a0KEY"),
		"quoted":                       both(`"ID" 'KEY'`),
		"typographic quotes":           both("“ID”\n‘KEY’"),
		"BOM and zero-width":           both("\ufeffID\u200b\n\u200bKEY\ufeff"),
		"variables":                    "MIMECAST_CLIENT_ID=" + pastedID + "\nMIMECAST_CLIENT_SECRET=" + pastedSecret,
		"variables on one line":        "MIMECAST_CLIENT_ID=" + pastedID + " MIMECAST_CLIENT_SECRET=" + pastedSecret,
		"export":                       "export MIMECAST_CLIENT_ID='" + pastedID + "'\nexport MIMECAST_CLIENT_SECRET=\"" + pastedSecret + "\"\n",
		"export on one line":           "export MIMECAST_CLIENT_ID=" + pastedID + "; export MIMECAST_CLIENT_SECRET=" + pastedSecret,
		"secret first":                 "CLIENT_SECRET=" + pastedSecret + "\nCLIENT_ID=" + pastedID,
		"PowerShell":                   "$env:MIMECAST_CLIENT_ID = \"" + pastedID + "\"\n$env:MIMECAST_CLIENT_SECRET = \"" + pastedSecret + "\"",
		"cmd":                          "set MIMECAST_CLIENT_ID=" + pastedID + "\r\nset MIMECAST_CLIENT_SECRET=" + pastedSecret,
		"the console's labels":         "Client ID: " + pastedID + "\nClient Secret: " + pastedSecret,
		"labels with a tab":            "Client ID\t" + pastedID + "\nClient Secret\t" + pastedSecret,
		"labels on lines of their own": "Client ID\n" + pastedID + "\nClient Secret\n" + pastedSecret,
		"labels with dashes":           "client-id: " + pastedID + "\nclient-secret: " + pastedSecret,
		"JSON":                         `{"client_id": "` + pastedID + `", "client_secret": "` + pastedSecret + `"}`,
		"JSON of JavaScript":           `{"clientId":"` + pastedID + `","clientSecret":"` + pastedSecret + `","region":"eu"}`,
		"part of a JSON document":      "  \"client_id\": \"" + pastedID + "\",\n  \"client_secret\": \"" + pastedSecret + "\",\n",
		"quoted lines of variables":    "\"MIMECAST_CLIENT_ID=" + pastedID + "\"\n\"MIMECAST_CLIENT_SECRET=" + pastedSecret + "\"",
		"URL-encoded names":            "client_id=" + pastedID + "\nclient_secret=" + pastedSecret,
		"the stored document":          string(credentials(pastedID, pastedSecret).Marshal()),
	}
	for name, text := range tests {
		if id, key := ParsePaste(text); id != pastedID || key != pastedSecret {
			t.Errorf("%s: id %q, secret %q", name, id, key)
		}
	}
}

func TestParsePasteOfOneValueOrNone(t *testing.T) {
	tests := map[string]struct{ text, id, secret string }{
		"nothing":              {" \r\n", "", ""},
		"the ID":               {"\ufeff " + pastedID + "\r\n", pastedID, ""},
		"the ID in quotes":     {"'" + pastedID + "'", pastedID, ""},
		"the ID's variable":    {"MIMECAST_CLIENT_ID=" + pastedID, pastedID, ""},
		"another variable":     {"MC_APP_ID=" + pastedID, pastedID, ""},
		"a labeled secret":     {"Client Secret: " + pastedSecret, "", pastedSecret},
		"an ID without its":    {"MIMECAST_CLIENT_ID= MIMECAST_CLIENT_SECRET=" + pastedSecret, "", pastedSecret},
		"a sentence":           {"please paste the ID here", "", ""},
		"JSON of another kind": {`{"token": "abc"}`, "", ""},
		"a list":               {"[1, 2, 3]", "", ""},
	}
	for name, test := range tests {
		if id, key := ParsePaste(test.text); id != test.id || key != test.secret {
			t.Errorf("%s: id %q, secret %q", name, id, key)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		pastedSecret:                        pastedSecret,
		" \t" + pastedSecret + "\r\n":       pastedSecret,
		"\ufeff" + pastedSecret + "\u200b":  pastedSecret,
		`"` + pastedSecret + `"`:            pastedSecret,
		`"'` + pastedSecret + `'"`:          pastedSecret,
		"`" + pastedSecret + "`":            pastedSecret,
		"„" + pastedSecret + "“":            pastedSecret,
		"MIMECAST_CLIENT_SECRET=" + "ab==":  "ab==",
		"export MIMECAST_CLIENT_SECRET='x'": "x",
		"Client Secret: x":                  "x",
		"ABC_DEF==":                         "ABC_DEF==", // base64, not a variable
		"ABCDEF=":                           "ABCDEF=",
		`"x`:                                `"x`, // the quote may be part of the value
		"two words":                         "two words",
	} {
		if got := Clean(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func FuzzParsePaste(f *testing.F) {
	f.Add(pastedID, pastedSecret)
	f.Add("\ufeffClient ID: a", "MIMECAST_CLIENT_SECRET='b'")
	f.Add(`{"client_id":"a",`, `"client_secret":"\"b\""}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, text := range []string{a, b, a + "\n" + b} {
			id, key := ParsePaste(text)
			for _, value := range []string{id, key, Clean(text)} {
				if value != strings.TrimFunc(value, invisible) {
					t.Errorf("%q leaves blanks around %q", text, value)
				}
				if Clean(value) != value {
					t.Errorf("%q: %q is not clean", text, value)
				}
				if len(value) > len(text)*utf8.UTFMax { // encoding/json replaces invalid UTF-8
					t.Errorf("%q grew to %q", text, value)
				}
			}
		}
		if !plausible(a) || !plausible(b) {
			return
		}
		if id, key := ParsePaste(a + "\r\n" + b + "\r\n"); id != a || key != b {
			t.Errorf("%q and %q were read as %q and %q", a, b, id, key)
		}
	})
}

// plausible reports whether a text looks like a credential.
func plausible(text string) bool {
	for _, r := range text {
		if r != '-' && r != '+' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return text != ""
}
