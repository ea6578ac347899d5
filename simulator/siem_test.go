package simulator_test

import (
	"bufio"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// follow fetches all pages of events or batches. It returns the items and the token to
// continue with.
func (r *rig) follow(path, query, token string) (items []any, next string) {
	r.t.Helper()
	for range 1000 {
		q := query
		if token != "" {
			q += "&nextPage=" + url.QueryEscape(token)
		}
		res, answer := r.get(path + "?" + q)
		if res.StatusCode != 200 {
			r.t.Fatalf("%s?%s: status %d: %v", path, q, res.StatusCode, answer)
		}
		items = append(items, list(answer, "value")...)
		token = answer["@nextPage"].(string)
		if answer["isCaughtUp"].(bool) {
			return items, token
		}
	}
	r.t.Fatal("it never catches up")
	return nil, ""
}

// download fetches a batch's file without a token, as clients do, and checks its size
// against the announced one.
func (r *rig) download(file any) []map[string]any {
	r.t.Helper()
	res := r.blob(dig(file, "url").(string), "")
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 200 || float64(res.ContentLength) != dig(file, "size") {
		r.t.Fatalf("status %d, %d bytes, announced %v", res.StatusCode, res.ContentLength, file)
	}
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var events []map[string]any
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		events = append(events, decode(r.t, lines.Bytes()))
	}
	if err := lines.Err(); err != nil {
		r.t.Fatal(err)
	}
	return events
}

func (r *rig) blob(address, authorization string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", address, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func TestStreamHasADayOfEvents(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	for product, most := range map[string]int{"cg": 8640, "ci": 8640} {
		events, _ := r.follow("/siem/v1/events/"+product, "pageSize=100", "")
		if len(events) != most {
			t.Errorf("%s: %d events, not %d", product, len(events), most)
		}
		last := 0.0
		for _, e := range events {
			at := dig(e, "timestamp").(float64)
			if at < last || at > float64(c.Now().UnixMilli()) {
				t.Fatalf("%s: an event at %.0f after one at %.0f", product, at, last)
			}
			last = at
			for _, name := range []string{"type", "subtype", "aggregateId", "processingId", "accountId"} {
				if s, ok := dig(e, name).(string); !ok || s == "" {
					t.Fatalf("%s: %s is missing in %v", product, name, e)
				}
			}
		}
	}
}

func TestStreamGoesOnFromWhereItHadCaughtUp(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now, TokenTTL: 24 * time.Hour}).login()
	const path, query = "/siem/v1/events/cg", "types=receipt"
	first, token := r.follow(path, query, "")
	if len(first) != 2160 {
		t.Errorf("%d receipts in a day, not 2160", len(first))
	}
	if more, same := r.follow(path, query, token); len(more) != 0 || same != token {
		t.Errorf("nothing happened, yet %d events and the token %s instead of %s", len(more), same, token)
	}
	c.Advance(time.Hour)
	more, _ := r.follow(path, query, token)
	if len(more) != 90 {
		t.Errorf("%d receipts in an hour, not 90", len(more))
	}
	// One request for the whole window must return the same as two for its parts.
	all, _ := r.follow(path, query+"&dateRangeStartsAt=2026-03-04T13:00:00Z", "")
	if got := append(first, more...); string(encode(t, got[len(got)-len(all):])) != string(encode(t, all)) {
		t.Error("events change between requests")
	}
}

func TestBatchesHoldTheEventsOfTheStream(t *testing.T) {
	t.Parallel()
	c := newClock()
	bothProtocols(t, simulator.Options{Now: c.Now}, func(t *testing.T, r *rig) {
		r.login()
		// The clock is at noon plus a few seconds, so the batches are complete up to noon.
		for product, kind := range map[string]string{"cg": "url protect", "ci": "mailflow"} {
			query := "dateRangeStartsAt=2026-03-05&pageSize=7&type=" + url.QueryEscape(kind)
			files, _ := r.follow("/siem/v1/batch/events/"+product, query, "")
			var got []map[string]any
			for _, f := range files {
				if !strings.HasPrefix(dig(f, "url").(string), r.BlobURL+"/") || dig(f, "expiry") != "2026-03-05T12:15:07.000Z" {
					t.Fatalf("file %v", f)
				}
				got = append(got, r.download(f)...)
			}
			want, _ := r.follow("/siem/v1/events/"+product, "dateRangeStartsAt=2026-03-05T00:00:00Z&dateRangeEndsAt=2026-03-05T12:00:00Z&types="+url.QueryEscape(kind), "")
			if len(want) < 40 || string(encode(t, got)) != string(encode(t, want)) {
				t.Errorf("%s: %d events in batches, %d in the stream", product, len(got), len(want))
			}
		}
	})
}

func TestBatchesOfAllTypesAreWhole(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	files, _ := r.follow("/siem/v1/batch/events/cg", "dateRangeStartsAt=2026-03-05", "")
	if len(files) != 48 {
		t.Fatalf("%d batches in twelve hours, not 48", len(files))
	}
	kinds := map[any]bool{}
	for _, e := range r.download(files[0]) {
		kinds[e["type"]] = true
	}
	if n := len(r.download(files[0])); n != 90 || len(kinds) < 5 {
		t.Errorf("a batch has %d events of the types %v", n, slices.Collect(maps.Keys(kinds)))
	}
}

func TestBlobsWantNoTokenAndExpire(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now, BlobTTL: time.Minute}).login()
	files, _ := r.follow("/siem/v1/batch/events/cg", "dateRangeStartsAt=2026-03-05", "")
	address := dig(files[0], "url").(string)
	check := func(what, address, authorization string, want int, word string) {
		t.Helper()
		res := r.blob(address, authorization)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want || !strings.Contains(string(body), word) {
			t.Errorf("%s: status %d, %v: %.200q", what, res.StatusCode, err, body)
		}
	}
	check("as it is", address, "", 200, "")
	check("with the bearer token", address, "Bearer "+r.token, 400, "Only one auth mechanism")
	check("with any Authorization", address, "x", 400, "InvalidArgument")
	check("another file", strings.Replace(address, "/cg/", "/ci/", 1), "", 403, "SignatureDoesNotMatch")
	check("a longer life", strings.Replace(address, "X-Amz-Expires=60", "X-Amz-Expires=6000", 1), "", 403, "SignatureDoesNotMatch")
	check("no signature", r.BlobURL+"/anything", "", 403, "SignatureDoesNotMatch")
	c.Advance(time.Minute)
	check("after its life", address, "", 403, "Request has expired")
	if n := r.Counts().BlobRequests; n != 7 {
		t.Errorf("%d requests for blobs were counted, not 7", n)
	}
}

func TestSIEMRejectsWhatItCannotUnderstand(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	for _, q := range []string{"pageSize=0", "pageSize=101", "pageSize=x", "type=nonsense", "types=receipt,entities",
		"dateRangeStartsAt=yesterday", "dateRangeEndsAt=5", "nextPage=x", "nextPage=" + url.QueryEscape("LTE="), "nextPage=a%00"} {
		for _, path := range []string{"/siem/v1/events/cg?", "/siem/v1/batch/events/cg?"} {
			if res, answer := r.get(path + q); res.StatusCode != 400 || code(answer) != "err_validation" {
				t.Errorf("%s%s: status %d, %v", path, q, res.StatusCode, answer)
			}
		}
	}
}

func TestSIEMLooksBackNoFurtherThanItKeeps(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	events, _ := r.follow("/siem/v1/events/cg", "types=receipt&dateRangeStartsAt=2020-01-01T00:00:00Z", "")
	if len(events) != 2160 {
		t.Errorf("%d receipts, not a day's 2160", len(events))
	}
	files, _ := r.follow("/siem/v1/batch/events/cg", "type=receipt&dateRangeStartsAt=2020-01-01", "")
	if len(files) != 7*96 {
		t.Errorf("%d batches, not a week's %d", len(files), 7*96)
	}
}

func TestSameSeedAndTimeGiveTheSameData(t *testing.T) {
	read := func(seed uint64) string {
		r := start(t, simulator.Options{Seed: seed, Now: newClock().Now}).login()
		events, _ := r.follow("/siem/v1/events/cg", "types=spam", "")
		all := []any{events, r.call("/api/audit/get-audit-events", map[string]any{}), r.call("/api/gateway/get-hold-message-list", map[string]any{}),
			r.call("/api/ttp/url/get-logs", map[string]any{}), r.call("/api/ttp/threat-intel/get-feed", map[string]any{})}
		return string(encode(t, all))
	}
	one := read(1)
	if read(1) != one {
		t.Error("the same seed gives other data")
	}
	if read(2) == one {
		t.Error("another seed gives the same data")
	}
}

func TestNextPageTokenIsBase64WithPadding(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	_, answer := r.get("/siem/v1/events/cg")
	if token := answer["@nextPage"].(string); !strings.HasSuffix(token, "=") {
		t.Errorf("token %q would not show a client that forgets to escape it", token)
	}
}
