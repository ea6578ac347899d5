package simulator

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func FuzzCallIsReadOrRejected(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"data":[{"id":"a"}]}`, `{"meta":{"pagination":{"pageSize":2,"pageToken":"x"}},"data":[{}]}`, `{"data":[null,{}]}`, `{"data":{}}`} {
		f.Add([]byte(seed))
	}
	functions := New(Options{HeldMessages: 3, Now: func() time.Time { return time.Unix(1e9, 0) }}).functions()
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseCall(bytes.NewReader(body))
		if err != nil {
			return
		}
		if n := c.Meta.Pagination.PageSize; n < 1 || n > maxPage {
			t.Fatalf("a page of %d", n)
		}
		for name, call := range functions {
			if res := call(c); len(res.data)+len(res.fail) > 2*len(c.Data)+len(body)+maxPage {
				t.Fatalf("%s: %d items for %q", name, len(res.data), body)
			} else if _, err := json.Marshal(res.data); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

func FuzzTokenIsRejectedUnlessIssued(f *testing.F) {
	now := time.Unix(1e9, 0)
	i := issuer{key: randomKey(), ttl: time.Hour}
	token, _ := i.issue("app", now)
	for _, seed := range []string{"", "Bearer ", "Bearer a.b.c", "Bearer ..", "Basic eA==", "Bearer " + token[:20]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if app, no := i.authenticate([]string{header}, now); no == nil {
			t.Fatalf("%q speaks for %q", header, app)
		}
		if app, no := i.authenticate([]string{"Bearer " + token}, now); no != nil || app != "app" {
			t.Fatal("the token that was issued is refused")
		}
	})
}

func FuzzIdentifiersAreOpaque(f *testing.F) {
	s := New(Options{Seed: 7})
	f.Add("held", "12")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, kind, text string) {
		id := s.seal(kind, text)
		if got, ok := s.unseal(kind, id); !ok || got != text {
			t.Fatalf("%q became %q", text, got)
		}
		if _, ok := s.unseal(kind+"x", id); ok {
			t.Fatal("an identifier of one kind is taken as another")
		}
		if _, ok := s.unseal(kind, text); ok {
			t.Fatalf("%q was never given", text)
		}
	})
}

func FuzzFaultIsReadOrRejected(f *testing.F) {
	for _, seed := range []string{`{"status":500,"count":3}`, `{"name":"slow","delay":"1s"}`, `{"token":{"expires_in":null}}`, `{"cut":"body","cutAfter":5}`, `{`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		fault, err := ParseFault(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(fault)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFault(again); err != nil {
			t.Fatalf("%s became %s: %v", text, again, err)
		}
	})
}

func FuzzBlobPathIsReadOrRejected(f *testing.F) {
	f.Add(blob{"cg", 5, 900_005, []string{"receipt", "url protect"}}.path())
	f.Add("////")
	f.Fuzz(func(t *testing.T, path string) {
		if b, ok := parseBlob(path); ok && b.path() != path {
			t.Fatalf("%q was read as %q", path, b.path())
		}
	})
}
