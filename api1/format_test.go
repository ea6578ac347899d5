package api1_test

import (
	"regexp"
	"strings"
	"testing"

	"mimecast-proxy/api1"
)

// A subject can be any text that a stranger sends.
func TestValuesForgeNoFieldAndNoEvent(t *testing.T) {
	f := newFake(t)
	for _, end := range []string{"|", "\n", "\r", "\r\n", "\x00", "\v", "\f", "\x1c", "\u0085", "\u2028", "\u2029"} {
		f.stream["receipt"] = append(f.stream["receipt"], f.event(map[string]any{
			"subject": "hello" + end + "Sender=forged|datetime=2026", "action": "Acc" + end, "senderEnvelope": "real@example.org", "accountId": "C1" + end + "acc=C2"}))
	}
	c := f.collector()
	_, body, err := ask(&c)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if len(lines) != 11 || strings.ContainsAny(body, "\x00\r\v\f\x1c\u0085\u2028\u2029") {
		t.Fatalf("%d lines: %q", len(lines), body)
	}
	for _, line := range lines {
		fields := strings.Split(line, "|")
		var names []string
		for _, f := range fields {
			name, _, _ := strings.Cut(f, "=")
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != "datetime aCode acc Act Subject Sender" {
			t.Errorf("%s in %q", got, line)
		}
	}
}

func TestFilesLookAsInAPI1(t *testing.T) {
	receipt := map[string]any{
		"action": "Acc", "direction": "Inbound", "senderIp": "203.0.113.7", "messageId": "<1@example.org>", "subject": `say "hi" & <b>`, "senderHeader": "h@example.org",
		"senderEnvelope": "e@example.org", "recipients": "r@example.com", "tlsVersion": "TLSv1.3", "tlsCipher": "X", "spamScore": "7", "spamDetectionLevel": 28, "spamInfo": nil,
		"spamProcessingDetail": `{"dkim":{"allow":true}}`, "rejectionCode": "550", "numberAttachments": "3", "unknown": "left out",
	}
	delivery := map[string]any{"type": "delivery", "delivered": "true", "emailSize": "many", "deliveryTime": " 12 ", "tlsUsed": "Yes", "recipients": []string{"a@example.com", "b@example.com"}}
	impersonation := map[string]any{"type": "impersonation protect", "internalUserName": "Hit", "itemsDetected": "2", "newDomain": true}
	for _, c := range []struct {
		kind, file string
		event      map[string]any
		line, json string
	}{
		{
			"receipt", "receipt", receipt,
			`datetime=2026-03-04T12:06:30+0000|aCode=code|acc=C1|Act=Acc|Dir=Inbound|IP=203.0.113.7|MsgId=<1@example.org>|Subject=say "hi" & <b>|headerFrom=h@example.org|Sender=e@example.org|Rcpt=r@example.com|TlsVer=TLSv1.3|Cphr=X|SpamScore=7|SpamLimit=28|SpamProcessingDetail={"dkim":{"allow":true}}|RejCode=550` + "\n",
			`{"type":"MTA","data":[{"datetime":"2026-03-04T12:06:30+0000","aCode":"code","acc":"C1","Act":"Acc","Dir":"Inbound","IP":"203.0.113.7","MsgId":"<1@example.org>","Subject":"say \"hi\" & <b>","headerFrom":"h@example.org","Sender":"e@example.org","Rcpt":"r@example.com","TlsVer":"TLSv1.3","Cphr":"X","SpamScore":7,"SpamLimit":28,"SpamProcessingDetail":{"dkim":{"allow":true}},"RejCode":"550"}]}` + "\n",
		},
		{
			"delivery", "delivery", delivery,
			"datetime=2026-03-04T12:06:30+0000|aCode=code|acc=C1|Delivered=true|Rcpt=a@example.com, b@example.com|Latency= 12 |Snt=many|UseTls=Yes\n",
			`{"type":"MTA","data":[{"datetime":"2026-03-04T12:06:30+0000","aCode":"code","acc":"C1","Delivered":true,"Rcpt":["a@example.com","b@example.com"],"Latency":12,"Snt":"many","UseTls":"Yes"}]}` + "\n",
		},
		{
			"impersonation protect", "ttp_impersonation", impersonation,
			"datetime=2026-03-04T12:06:30+0000|aCode=code|acc=C1|Hits=2|NewDomain=true|InternalName=true\n",
			`{"type":"MTA","data":[{"datetime":"2026-03-04T12:06:30+0000","aCode":"code","acc":"C1","Hits":"2","NewDomain":true,"InternalName":true}]}` + "\n",
		},
	} {
		f := newFake(t)
		f.stream[c.kind] = []string{f.event(c.event)}
		for _, as := range []struct {
			json            bool
			want, extension string
		}{{false, c.line, "log"}, {true, c.json, "json"}} {
			col := f.collector()
			col.json = as.json
			res, body, err := ask(&col)
			if err != nil || body != as.want {
				t.Errorf("%v:\n got %s\nwant %s", err, body, as.want)
			}
			name := regexp.MustCompile(`^attachment; filename="` + c.file + `_20260304150630\d{3}\.` + as.extension + `"$`)
			if d := res.Header.Get("Content-Disposition"); !name.MatchString(d) {
				t.Error(d)
			}
			if _, ok := res.Header["Mc-Siem-Token"]; !ok || res.Header.Get("Content-Type") != "application/octet-stream" {
				t.Error(res.Header)
			}
		}
	}
}

func TestNothingMoreLooksAsInAPI1(t *testing.T) {
	c := newFake(t).collector()
	res, body, err := ask(&c)
	if err != nil || body != `{"data":[],"fail":[],"meta":{"isLastToken":true,"status":200}}` {
		t.Errorf("%v %s", err, body)
	}
	token := res.Header.Get("mc-siem-token")
	if res.Header.Get("Content-Type") != "application/json" || token == "" || len(token) > 1000 {
		t.Errorf("%d bytes of token, %v", len(token), res.Header)
	}
}

func TestFieldTableHasEachType(t *testing.T) {
	table := api1.FieldTable()
	if n := strings.Count(table, "\n"); n != 12 {
		t.Errorf("%d lines", n)
	}
	for _, want := range []string{"| url protect | `ttp_url` | `reason` = `blockReason`", "`SpamScore` = `spamScore` (int)", "`sourceIp` = `sourceIp` or `senderIp`", "| ReceiptAck |"} {
		if !strings.Contains(table, want) {
			t.Errorf("%s is missing in\n%s", want, table)
		}
	}
}
