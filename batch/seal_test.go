package batch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/secret"
)

const (
	address = "https://files.example/log.json.gz?X-Amz-Signature=abc"
	current = "c4f0secretofthisaccount"
	list    = "events/cg"
)

var now = time.Date(2026, 3, 4, 15, 6, 30, 0, time.UTC)

func keys(texts ...string) (all []secret.Text) {
	for _, text := range texts {
		all = append(all, secret.New(text))
	}
	return all
}

func sealedWith(t testing.TB, key string, expiry time.Time) string {
	t.Helper()
	aead, err := newAEAD(secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return seal(aead, list, address, expiry, now)
}

func TestSealsOpenWithTheSecretAndTheOneBefore(t *testing.T) {
	sealed := sealedWith(t, current, time.Time{})
	for _, ks := range [][]secret.Text{keys(current), keys("next", current), keys(current, "before")} {
		if got, ok := open(ks, list, sealed, now); !ok || got != address {
			t.Errorf("%q, %v", got, ok)
		}
	}
	for _, ks := range [][]secret.Text{nil, keys("foreign"), keys("", "next", "one more"), keys(current + " ")} {
		if got, ok := open(ks, list, sealed, now); ok {
			t.Errorf("opened with %d others: %s", len(ks), got)
		}
	}
	if again := sealedWith(t, current, time.Time{}); again == sealed {
		t.Error("two seals are the same")
	}
	if strings.ContainsAny(sealed, "+/=.~") || strings.Contains(sealed, "example") {
		t.Errorf("the seal is %s", sealed)
	}
}

func TestNobodySealsWithAnEmptySecret(t *testing.T) {
	if _, err := newAEAD(secret.Text{}); err == nil {
		t.Error("there is a key without a secret")
	}
	var derived []byte
	var err error
	fips140.WithoutEnforcement(func() { derived, err = hkdf.Key(sha256.New, nil, nil, label, 32) })
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := open(keys(""), list, seal(aead, list, address, now, now), now); ok {
		t.Errorf("%s", got)
	}
}

func TestAlteredSealsDoNotOpen(t *testing.T) {
	sealed := sealedWith(t, current, time.Time{})
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	check := func(altered string) {
		t.Helper()
		if got, ok := open(keys(current), list, altered, now); ok {
			t.Errorf("%s opens: %s", altered, got)
		}
	}
	for i := range sealed {
		check(sealed[:i])
		check(sealed[i+1:])
		check(sealed[:i] + "\n" + sealed[i:])
		for j := range alphabet {
			if alphabet[j] != sealed[i] {
				check(sealed[:i] + alphabet[j:j+1] + sealed[i+1:])
			}
		}
	}
	for _, altered := range []string{"", "A", sealed + "A", sealed + "=", sealed + "/", "/" + sealed, sealed + sealed, " " + sealed, sealed + "\r\n"} {
		check(altered)
	}
}

// Another use of the secret, or another version of the content, does not open as a seal.
func TestSealsAreOfThisUseOfTheSecret(t *testing.T) {
	aead, err := newAEAD(secret.New(current))
	if err != nil {
		t.Fatal(err)
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(now.Add(time.Hour).Unix()))
	for name, c := range map[string]struct {
		plain []byte
		label string
		ok    bool
	}{
		"as it is":      {append(plain, address...), label + " " + list, true},
		"no list":       {append(plain, address...), label, false},
		"no label":      {append(plain, address...), "", false},
		"another label": {append(plain, address...), "mimecast-proxy batch URL 2 " + list, false},
		"no URL":        {plain, label + " " + list, false},
		"nothing":       {nil, label + " " + list, false},
	} {
		text := base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, c.plain, []byte(c.label)))
		if _, ok := open(keys(current), list, text, now); ok != c.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

// A client may download only from lists that it may request.
func TestSealsOpenForTheirListAlone(t *testing.T) {
	sealed := sealedWith(t, current, time.Time{})
	for _, other := range []string{"", "events/ci", "events", "events/", "events/cg/", "/events/cg", "events/CG", "cg", "events/cg/x"} {
		if _, ok := open(keys(current), other, sealed, now); ok {
			t.Errorf("%q: opened", other)
		}
	}
}

func TestSealsExpireAWeekAfterTheURL(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for _, c := range []struct {
		name   string
		expiry time.Time
		life   time.Duration
	}{
		{"none stated", time.Time{}, week},
		{"stated", now.Add(15 * time.Minute), 15*time.Minute + week},
		{"stated in the past", now.Add(-time.Hour), week},
	} {
		sealed := sealedWith(t, current, c.expiry)
		if _, ok := open(keys(current), list, sealed, now.Add(c.life-time.Second)); !ok {
			t.Errorf("%s: expired too soon", c.name)
		}
		if _, ok := open(keys(current), list, sealed, now.Add(c.life)); ok {
			t.Errorf("%s: still opens", c.name)
		}
	}
}

func FuzzOnlySealsOpen(f *testing.F) {
	sealed := sealedWith(f, current, time.Time{})
	for _, seed := range []string{sealed, "", "A", sealed[1:], sealed + "==", strings.ToUpper(sealed)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// A corpus may contain seals from other processes.
		if got, ok := open(keys(current, "before"), list, text, now); ok && got != address {
			t.Fatalf("%q opens: %q", text, got)
		}
	})
}
