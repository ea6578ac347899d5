package simulator

import (
	"bytes"
	"encoding/json"
	"net/url"
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

func FuzzWindowIsWithinWhatIsKept(f *testing.F) {
	for _, seed := range [][2]string{{"", ""}, {"2001-09-08", "2001-09-09"}, {"2001-09-09T01:00:00Z", "2001-09-09T01:00:30+0100"},
		{"0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"}, {"9999-01-01T00:00:00Z", "9999-12-31T00:00:00Z"}, {"x", ""}} {
		f.Add(seed[0], seed[1])
	}
	now := time.Unix(1e9, 0)
	s := New(Options{Now: func() time.Time { return now }})
	f.Fuzz(func(t *testing.T, from, to string) {
		query := url.Values{"dateRangeStartsAt": {from}, "dateRangeEndsAt": {to}}
		q, err := s.parseSIEMRequest("cg", query, siemKind{back: batchRetention, step: batchEvery, position: ceilMilli})
		oldest := now.Add(-batchRetention - batchEvery).UnixMilli()
		if err == nil && (q.next < oldest || q.next > now.UnixMilli() || q.end < q.next || q.end > now.UnixMilli()) {
			t.Fatalf("from %q to %q: %d to %d", from, to, q.next, q.end)
		}
		x, fail := s.extent(auditLog, &call{Data: []object{{"from": from, "to": to}}})
		if fail == nil && (x.end < x.first || x.end-x.first > int64(logRetention/auditLog.every)+1 || auditLog.at(s, x.end-1).After(now)) {
			t.Fatalf("from %q to %q: entries from %d to %d", from, to, x.first, x.end)
		}
	})
}
