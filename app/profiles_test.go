package app

import (
	"strings"
	"testing"

	"mimecast-proxy/connection"
	"mimecast-proxy/secret"
)

// A running proxy rereads its stored connection. It gets new credentials, or an error if the
// profile was removed or its API address changed.
func TestStoredConnectionIsReadAsItIsNow(t *testing.T) {
	environ := []string{"HOME=" + t.TempDir(), "XDG_CONFIG_HOME=" + t.TempDir(), "AppData=" + t.TempDir()}
	book, err := newBook(environ)
	if err != nil {
		t.Fatal(err)
	}
	save := func(region, key string) {
		t.Helper()
		c := connection.Connection{Profile: "default", Store: connection.File, Region: region}
		if err := book.Save(t.Context(), c, connection.Credentials{ClientID: secret.New("id"), ClientSecret: secret.New(key)}); err != nil {
			t.Fatal(err)
		}
	}
	save("uk", "one")
	stored, err := newProfiles(environ).Find("default")
	if err != nil || stored.Region != "uk" {
		t.Fatal(stored, err)
	}
	for _, c := range []struct {
		change     func()
		key, fails string
	}{
		{func() {}, "one", ""},
		{func() { save("uk", "two") }, "two", ""},
		{func() { save("us", "three") }, "", "restart the proxy"},
		{func() { save("uk", "four") }, "four", ""},
		{func() {
			if err := book.Remove(t.Context(), "default"); err != nil {
				t.Fatal(err)
			}
		}, "", "removed by mimecast-proxy disconnect"},
	} {
		c.change()
		document, err := stored.Read()
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.fails, err)
			}
			continue
		}
		if _, key, parseErr := stored.Parse(document); err != nil || parseErr != nil || key.Reveal() != c.key {
			t.Errorf("%s: %v, %v", c.key, err, parseErr)
		}
	}
}

func TestProfileWithoutAFolderIsNamed(t *testing.T) {
	_, err := Env{}.configure([]string{"MIMECAST_PROFILE=emea"})
	if err == nil || !strings.Contains(err.Error(), "MIMECAST_PROFILE: ") || !strings.Contains(err.Error(), "HOME") && !strings.Contains(err.Error(), "AppData") {
		t.Error(err)
	}
}
