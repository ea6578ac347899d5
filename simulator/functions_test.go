package simulator_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

// pages calls a function until there is no next page.
func (r *rig) pages(target string, size int, arg map[string]any) (answers []map[string]any) {
	r.t.Helper()
	page := map[string]any{"pageSize": size}
	for range 1000 {
		answer := r.call(target, string(encode(r.t, map[string]any{"meta": map[string]any{"pagination": page}, "data": []any{arg}})))
		if c := code(answer); c != nil {
			r.t.Fatalf("%s: %v", target, answer)
		}
		answers = append(answers, answer)
		next, more := dig(answer, "meta", "pagination", "next").(string)
		if !more {
			return answers
		}
		page["pageToken"] = next
	}
	r.t.Fatal("the pages never end")
	return nil
}

func TestLogsComeByPagesWholeAndOnce(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now, TokenTTL: 24 * time.Hour}).login()
	for target, log := range map[string]struct {
		path  []any
		total int // in a day
		time  string
	}{
		"/api/audit/get-audit-events":          {[]any{"data"}, 480, "eventTime"},
		"/api/ttp/url/get-logs":                {[]any{"data", 0, "clickLogs"}, 288, "date"},
		"/api/ttp/attachment/get-logs":         {[]any{"data", 0, "attachmentLogs"}, 360, "date"},
		"/api/ttp/impersonation/get-logs":      {[]any{"data", 0, "impersonationLogs"}, 72, "eventTime"},
		"/api/dlp/get-logs":                    {[]any{"data", 0, "dlpLogs"}, 96, "eventTime"},
		"/api/archive/get-archive-search-logs": {[]any{"data", 0, "logs"}, 24, "createTime"},
		"/api/message-finder/search":           {[]any{"data", 0, "trackedEmails"}, 2161, "received"}, // one more at noon exactly
	} {
		seen := map[string]bool{}
		last := c.Now()
		for _, answer := range r.pages(target, 50, map[string]any{"from": "2026-03-04T12:00:00+0000"}) {
			c.Advance(time.Minute) // new entries must not shift the pages
			for _, e := range list(answer, log.path...) {
				seen[string(encode(t, e))] = true
				at, err := time.Parse("2006-01-02T15:04:05-0700", dig(e, log.time).(string))
				if err != nil || at.After(last) {
					t.Fatalf("%s: %v after %v (%v)", target, at, last, err)
				}
				last = at
			}
			if n := dig(answer, "meta", "pagination", "totalCount"); n != float64(log.total) {
				t.Fatalf("%s: totalCount %v, not %d", target, n, log.total)
			}
		}
		if len(seen) != log.total {
			t.Errorf("%s: %d different entries, not %d", target, len(seen), log.total)
		}
		c.mu.Lock()
		c.now = noon
		c.mu.Unlock()
	}
}

func TestLogsHeedWhatIsAskedFor(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	const target = "/api/ttp/url/get-logs"
	hour := map[string]any{"from": "2026-03-05T10:00:00+0000", "to": "2026-03-05T13:00:00+0200", "oldestFirst": true}
	got := list(r.call(target, hour), "data", 0, "clickLogs")
	if len(got) != 12 {
		t.Errorf("%d clicks in an hour, not 12", len(got))
	}
	if first, last := dig(got, 0, "date").(string), dig(got, len(got)-1, "date").(string); first > last {
		t.Errorf("from %s to %s", first, last)
	}
	malicious := r.call(target, map[string]any{"scanResult": "malicious", "route": "all"})
	n := len(list(malicious, "data", 0, "clickLogs"))
	if n == 0 || n == 288 || dig(malicious, "meta", "pagination", "totalCount") != float64(n) {
		t.Errorf("%d malicious clicks of 288", n)
	}
	for _, e := range list(malicious, "data", 0, "clickLogs") {
		if dig(e, "scanResult") != "malicious" {
			t.Errorf("%v", e)
		}
	}
}

func TestFunctionsFailWithStatus200(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	for _, f := range []struct {
		target string
		body   string
		code   string
	}{
		{"/api/audit/get-audit-events", `{"data":[{"startDateTime":"yesterday"}]}`, "err_validation_invalid_date"},
		{"/api/audit/get-audit-events", `{"data":[{"startDateTime":"2026-03-05T00:00:00+0000","endDateTime":"2026-03-04T00:00:00+0000"}]}`, "err_validation_date_range"},
		{"/api/audit/get-audit-events", `{"meta":{"pagination":{"pageToken":"abc"}}}`, "err_validation_invalid_page_token"},
		{"/api/gateway/get-hold-message-list", `{"meta":{"pagination":{"pageToken":"abc"}}}`, "err_validation_invalid_page_token"},
		{"/api/message-finder/search", `{"data":[{"start":"2025-12-01T00:00:00+0000"}]}`, "err_track_and_trace_invalid_start_date"},
		{"/api/message-finder/get-message-info", `{"data":[{"id":"x"}]}`, "err_track_and_trace_message_not_found"},
		{"/api/gateway/hold-release", `{"data":[{"id":"x"}]}`, "err_gateway_message_not_found"},
		{"/api/archive/get-file", `{"data":[{"id":"x"}]}`, "err_archive_file_not_found"},
		{"/api/archive/get-file", `{"data":[{"id":"x","size":"big"}]}`, "err_validation_invalid_size"},
		{"/api/email/send-email", `{"data":[{"subject":"x"}]}`, "err_validation_null"},
		{"/api/ttp/url/decode-url", `{"data":[{"url":"https://example.org/"}]}`, "err_ttp_url_decode_failed"},
		{"/api/ttp/threat-intel/get-feed", `{"data":[{"token":"x"}]}`, "err_threat_intel_feed_invalid_token"},
	} {
		answer := r.call(f.target, f.body)
		if code(answer) != f.code || dig(answer, "meta", "status") != 200.0 || len(list(answer, "data")) != 0 {
			t.Errorf("%s %s: %v", f.target, f.body, answer)
		}
	}
}

func TestMalformedCallsGet400(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	for _, body := range []string{"{", "[]", `{"data":{}}`, `{"data":[1]}`, `{} {}`, "\xff", `{"meta":{"pagination":{"pageSize":"many"}}}`} {
		res, answer := r.do(r.request("POST", "/api/audit/get-audit-events", strings.NewReader(body)))
		if res.StatusCode != 400 || code(decode(t, answer)) != "err_request_malformed" {
			t.Errorf("%q: status %d, %s", body, res.StatusCode, answer)
		}
	}
	for _, body := range []string{"", " ", "{}", `{"data":[]}`, `{"data":[null]}`, `{"unknown":1}`} {
		if n := len(list(r.call("/api/audit/get-audit-events", body), "data")); n != 100 {
			t.Errorf("%q: %d events, not a page of 100", body, n)
		}
	}
}

func TestMessagesFoundCanBeLookedAtAndFetched(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	found := list(r.call("/api/message-finder/search", map[string]any{}), "data", 0, "trackedEmails")
	id := dig(found, 0, "id")
	info := r.call("/api/message-finder/get-message-info", map[string]any{"id": id})
	subject := dig(found, 0, "subject")
	if dig(info, "data", 0, "recipientInfo", "messageInfo", "subject") != subject {
		t.Errorf("%v is not the message %v", info, found[0])
	}
	res, file := r.do(r.request("POST", "/api/archive/get-file", bytes.NewReader(encode(t, map[string]any{"data": []any{map[string]any{"id": id}}}))))
	if res.Header.Get("Content-Type") != "application/octet-stream" || !strings.Contains(string(file), "Subject: "+subject.(string)) {
		t.Errorf("%v: %s", res.Header, file)
	}
}

func TestHoldReleaseChangesTheQueueAndCountsEachExecution(t *testing.T) {
	bothProtocols(t, simulator.Options{HeldMessages: 30}, func(t *testing.T, r *rig) {
		r.login()
		queue := func() (ids []any) {
			for _, answer := range r.pages("/api/gateway/get-hold-message-list", 7, map[string]any{"admin": true}) {
				for _, e := range list(answer, "data") {
					ids = append(ids, dig(e, "id"))
				}
			}
			return ids
		}
		before := queue()
		if len(before) != 30 || before[3] != r.HeldID(3) {
			t.Fatalf("queue %v", before)
		}
		answer := r.call("/api/gateway/hold-release", `{"data":[{"id":"`+r.HeldID(3)+`"},{"id":"`+r.HeldID(4)+`"},{"id":"nothing"}]}`)
		if len(list(answer, "data")) != 2 || dig(answer, "data", 0, "release") != true || len(list(answer, "fail")) != 1 {
			t.Fatalf("release: %v", answer)
		}
		if answer := r.call("/api/gateway/hold-reject", map[string]any{"ids": []any{r.HeldID(5)}, "message": "no"}); dig(answer, "data", 0, "reject") != true {
			t.Fatalf("reject: %v", answer)
		}
		after := queue()
		if len(after) != 27 || after[3] != r.HeldID(6) {
			t.Errorf("after that the queue is %v", after)
		}
		if answer := r.call("/api/gateway/hold-release", map[string]any{"id": r.HeldID(3)}); code(answer) != "err_gateway_message_already_actioned" {
			t.Errorf("a second release: %v", answer)
		}
		if n := r.Executions("hold-release"); n[r.HeldID(3)] != 2 || n[r.HeldID(4)] != 1 || len(n) != 2 {
			t.Errorf("executions %v", n)
		}
		if n := r.Executions("hold-reject"); n[r.HeldID(5)] != 1 {
			t.Errorf("executions %v", n)
		}
	})
}

func TestHoldListPagesStayWhileMessagesAreReleased(t *testing.T) {
	r := start(t, simulator.Options{HeldMessages: 20}).login()
	const target = "/api/gateway/get-hold-message-list"
	first := r.call(target, `{"meta":{"pagination":{"pageSize":10}},"data":[{"admin":true}]}`)
	r.call("/api/gateway/hold-release", map[string]any{"id": r.HeldID(0)})
	next := dig(first, "meta", "pagination", "next").(string)
	second := r.call(target, `{"meta":{"pagination":{"pageSize":10,"pageToken":"`+next+`"}},"data":[{"admin":true}]}`)
	if dig(second, "data", 0, "id") != r.HeldID(10) || len(list(second, "data")) != 10 {
		t.Errorf("the second page begins with another message: %v", second)
	}
	sender := dig(second, "data", 0, "from", "emailAddress").(string)
	for _, e := range list(r.call(target, map[string]any{"searchBy": map[string]any{"fieldName": "sender", "value": sender}}), "data") {
		if dig(e, "from", "emailAddress") != sender {
			t.Errorf("a search for %s found %v", sender, e)
		}
	}
}

func TestArchiveFileIsWhatItsNameAndOffsetSay(t *testing.T) {
	const size = 3<<20 + 5
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		for _, req := range []struct {
			target, body string
			length       int64
		}{
			{"/api/archive/get-file?id=report&size=3145733", "", -1},
			{"/api/archive/get-file", `{"data":[{"id":"report","size":3145733}]}`, -1},
			{"/api/archive/get-file?length=true", `{"data":[{"id":"report","size":"3145733"}]}`, size},
		} {
			res, err := r.client.Do(r.request("POST", req.target, strings.NewReader(req.body)))
			if err != nil {
				t.Fatal(err)
			}
			n, err := simulator.Content("report").Check(res.Body)
			_ = res.Body.Close()
			if err != nil || n != size || res.ContentLength != req.length || res.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: %d bytes, length %d, %v", req.target, n, res.ContentLength, err)
			}
		}
	})
}

func TestContentIsTheSameByWhateverPieces(t *testing.T) {
	whole := make([]byte, 1000)
	if _, err := simulator.Content("a").ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	for off := range 40 {
		for n := range 40 {
			p := make([]byte, n)
			if _, err := simulator.Content("a").ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, whole[off:off+n]) {
				t.Fatalf("%d bytes at %d differ (%v)", n, off, err)
			}
		}
	}
	spoilt := bytes.Clone(whole)
	spoilt[777] ^= 1
	if n, err := simulator.Content("a").Check(bytes.NewReader(spoilt)); n != 777 || err == nil {
		t.Errorf("a wrong byte at 777 was found at %d (%v)", n, err)
	}
	if _, err := simulator.Content("b").Check(bytes.NewReader(whole)); err == nil {
		t.Error("another name has the same content")
	}
}

func TestUploadIsCheckedAgainstItsHeader(t *testing.T) {
	const size = 2<<20 + 1
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(simulator.Content("up"), 0, size)); err != nil {
		t.Fatal(err)
	}
	hash := fmt.Sprintf("%x", sum.Sum(nil))
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login()
		upload := func(arg, kind string) (int, map[string]any) {
			res, body := r.do(r.request("POST", "/api/file/file-upload", io.NewSectionReader(simulator.Content("up"), 0, size), "X-Mc-Arg", arg, "Content-Type", kind))
			return res.StatusCode, decode(t, body)
		}
		const octets = "application/octet-stream"
		good := fmt.Sprintf(`{"data":[{"sha256":"%s","fileSize":%d}]}`, hash, size)
		if status, answer := upload(good, octets); status != 200 || dig(answer, "data", 0, "fileSize") != float64(size) {
			t.Errorf("status %d, %v", status, answer)
		}
		if _, answer := upload(strings.Replace(good, hash, strings.Repeat("0", 64), 1), octets); code(answer) != "err_file_upload_invalid_hash" {
			t.Errorf("another hash: %v", answer)
		}
		if _, answer := upload(strings.Replace(good, "2097153", "1", 1), octets); code(answer) != "err_file_upload_invalid_size" {
			t.Errorf("another size: %v", answer)
		}
		if status, answer := upload("", octets); status != 400 {
			t.Errorf("no x-mc-arg: status %d, %v", status, answer)
		}
		if status, answer := upload(good, "text/plain"); status != 415 {
			t.Errorf("another type: status %d, %v", status, answer)
		}
		if n := r.Executions("file-upload"); n[hash] != 1 || len(n) != 1 {
			t.Errorf("executions %v", n)
		}
	})
}

func TestWritesAreCountedByWhatTheyDo(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	mail := map[string]any{"to": []any{map[string]any{"emailAddress": "a@example.org"}}, "subject": "marker-1"}
	first := dig(r.call("/api/email/send-email", mail), "data", 0, "messageId")
	if first == nil || first == "" {
		t.Error("a mail was sent without a message ID")
	}
	r.call("/api/email/send-email", mail)
	req := r.request("POST", "/api/email/send-email", bytes.NewReader(encode(t, map[string]any{"data": []any{mail}})), "X-Idempotency-Key", "k1")
	r.do(req)
	if n := r.Executions("send-email"); n["marker-1"] != 2 || n["k1"] != 1 {
		t.Errorf("executions %v", n)
	}
	const csv = "email,name\na@example.org,A\n"
	if answer := r.call("/api/user/import-users", csv); dig(answer, "data", 0, "status") != "pending" {
		t.Errorf("import: %v", answer)
	}
	if n := r.Executions("import-users"); n[fmt.Sprintf("%x", sha256.Sum256([]byte(csv)))] != 1 {
		t.Errorf("executions %v", n)
	}
	if answer := r.call("/api/user/import-users", ""); code(answer) != "err_import_users_empty" {
		t.Errorf("empty import: %v", answer)
	}
}

func TestDecodeURLUndoesTheRewriting(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	const target = "https://example.org/a?b=c&d=%2F#e"
	answer := r.call("/api/ttp/url/decode-url", map[string]any{"url": simulator.RewriteURL(target)})
	if dig(answer, "data", 0, "url") != target || dig(answer, "data", 0, "success") != true {
		t.Errorf("%v", answer)
	}
}

func TestThreatFeedGoesOnByAHeader(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	seen, token := map[any]bool{}, ""
	for range 3 {
		res, body := r.do(r.request("POST", "/api/ttp/threat-intel/get-feed", bytes.NewReader(encode(t, map[string]any{"data": []any{map[string]any{"feedType": "malware_customer", "token": token}}}))))
		answer := decode(t, body)
		if token = res.Header.Get("X-Mc-Threat-Feed-Next-Token"); answer["type"] != "bundle" || token == "" {
			t.Fatalf("%v: %v", res.Header, answer)
		}
		for _, o := range list(answer, "objects") {
			seen[dig(o, "id")] = true
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d indicators, not 60", len(seen))
	}
	if answer := r.call("/api/ttp/threat-intel/get-feed", map[string]any{"token": token}); code(answer) != "err_threat_intel_feed_no_result_found" {
		t.Errorf("after the last: %v", answer)
	}
}

func TestPoliciesAreARESTCollection(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	const path = "/policy-management/cloud-gateway/v1/blocked-senders/policies"
	ask := func(method, target, body string) (int, map[string]any) {
		res, answer := r.do(r.request(method, target, strings.NewReader(body)))
		return res.StatusCode, decode(t, answer)
	}
	status, made := ask("POST", path, `{"description":"new"}`)
	id, _ := made["id"].(string)
	if status != 201 || id == "" {
		t.Fatalf("create: %d %v", status, made)
	}
	if status, got := ask("PATCH", path+"/"+id, `{"enabled":false,"id":"x"}`); status != 200 || got["enabled"] != false || got["id"] != id {
		t.Errorf("patch: %d %v", status, got)
	}
	if status, got := ask("GET", path+"/"+id, ""); status != 200 || got["description"] != "new" || got["enabled"] != false {
		t.Errorf("get: %d %v", status, got)
	}
	if _, all := ask("GET", path, ""); len(list(all, "policies")) != 4 {
		t.Errorf("list: %v", all)
	}
	if status, _ := ask("DELETE", path+"/"+id, ""); status != 204 {
		t.Errorf("delete: %d", status)
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		if status, got := ask(method, path+"/"+id, "{}"); status != 404 || dig(got, "errors", 0, "code") != "not_found" {
			t.Errorf("%s of what is gone: %d %v", method, status, got)
		}
	}
	if status, got := ask("POST", path, "[]"); status != 400 || dig(got, "errors", 0, "code") != "invalid_body" {
		t.Errorf("no object: %d %v", status, got)
	}
	for name, want := range map[string]int{"create-policy": 1, "update-policy": 1, "delete-policy": 2} {
		if n := r.Executions(name)[id]; n != want {
			t.Errorf("%s was executed %d times, not %d", name, n, want)
		}
	}
}

func TestRESTPagesByToken(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	seen, token := map[any]bool{}, ""
	for range 3 {
		_, answer := r.get("/partner/v1/customers?pageSize=5&pageToken=" + url.QueryEscape(token))
		for _, c := range list(answer, "data") {
			seen[dig(c, "code")] = true
		}
		token, _ = dig(answer, "meta", "pagination", "nextPageToken").(string)
	}
	if len(seen) != 12 || token != "" {
		t.Errorf("%d customers, then the token %q", len(seen), token)
	}
	for c := range seen {
		if res, got := r.get("/partner/v1/customers/" + c.(string)); res.StatusCode != 200 || got["code"] != c {
			t.Errorf("%v: %d %v", c, res.StatusCode, got)
		}
	}
	for _, target := range []string{"/partner/v1/customers/none", "/partner/v1/customers?pageToken=x", "/threats/v1/events?pageToken=x"} {
		if res, got := r.get(target); res.StatusCode < 400 || dig(got, "errors", 0, "code") == nil {
			t.Errorf("%s: %d %v", target, res.StatusCode, got)
		}
	}
}

func TestAccountIsTold(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	_, own := r.get("/identity/whoami")
	if dig(own, "account-codes", "cg") != dig(own, "home-account", "code") {
		t.Errorf("%v", own)
	}
	if _, other := r.get("/identity/whoami", "x-mc-accountcode", "CCHILD1"); dig(other, "account-codes", "cg") != "CCHILD1" {
		t.Errorf("%v", other)
	}
	account := r.call("/api/account/get-account", map[string]any{})
	if dig(account, "data", 0, "accountCode") != dig(own, "home-account", "code") {
		t.Errorf("%v", account)
	}
	if n := len(list(r.call("/api/audit/get-categories", map[string]any{}), "data")); n == 0 {
		t.Error("no audit categories")
	}
}

func TestSizesAreRead(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1048576": 1 << 20, "512KiB": 512 << 10, "1.5 GiB": 3 << 29, "2kb": 2000, "10B": 10} {
		if got, err := simulator.ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), not %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "1 parsec", "NaN", "Inf", "1e30", "99999999TiB"} {
		if got, err := simulator.ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
