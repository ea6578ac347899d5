package api1

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func FuzzParseCursor(f *testing.F) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	f.Add(newCursor(now).String())
	c := newCursor(now)
	c.Turn, c.Positions[3] = 9, position{Batch: true, Token: "NDU1NA==", Skip: 100, From: 1, Until: 2, At: 3, CaughtUp: true}
	f.Add(c.String())
	f.Add("")
	f.Add("bnVsbA")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := parseCursor(token)
		if err != nil {
			return
		}
		again, err := parseCursor(c.String())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v became %+v: %v", c, again, err)
		}
		for i := range c.Positions { // every next position is in range
			p := c.Positions[i].current(now)
			if !p.isSane() || !p.afterBatches(now).isSane() || !p.afterPage("", false, 1, now.UnixMilli(), now).isSane() {
				t.Errorf("%+v leads to one that is out of range", p)
			}
		}
	})
}

func FuzzPythonToJSON(f *testing.F) {
	for _, s := range []string{`{'data': [{'compress': True, u'token': None, "x": False, 'e': 'a\'b"\x41\u00e9\U0001F600\\n\n'}]}`, `{"a": 1.5e3}`, `'`, `'\`, `'\x4`, "{'a': 'é'}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, ok := pythonToJSON(b)
		if ok && len(out) > 6*len(b)+16 {
			t.Errorf("%d bytes became %d", len(b), len(out))
		}
		_, _ = parseRequest(b)
	})
}

func FuzzTranslate(f *testing.F) {
	f.Add([]byte(`{"timestamp":1772620000000,"aggregateId":"a_1","subject":"a|b\r\nc","spamScore":"7","spamProcessingDetail":"{\"a\":[1]}","recipients":["x",1]}`))
	f.Add([]byte(`{"timestamp":"1e3","spamScore":"0x7","emailSize":"1_000","delivered":"T","internalUserName":"Hit","attachments":[["x"]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err != nil {
			return
		}
		for i := range types {
			pairs := types[i].translate(e)
			line := string(appendLine(nil, pairs))
			if strings.Count(line, "\n") != 1 || strings.Count(line, "|") > max(len(pairs)-1, 0) || strings.ContainsAny(line, "\r\x00\u2028\u0085") {
				t.Errorf("%q", line)
			}
			if o := appendObject(nil, pairs); !json.Valid(o) {
				t.Errorf("%s", o)
			}
		}
	})
}

func TestPythonDictIsReadAsJSONIs(t *testing.T) {
	for python, want := range map[string]request{
		`{'data': [{'type': 'MTA', 'compress': True, 'token': "it's"}]}`:                         {Type: "MTA", Compress: true, Token: "it's"},
		`{u'data': [{u'compress': False, u'token': None, u'fileFormat': u'json'}], u'meta': {}}`: {FileFormat: "json"},
		`{'data': [{'emailAddress': 'a\'b\x41\u00e9\\'}]}`:                                       {EmailAddress: `a'bAé\`},
		`{"data":[{"compress":"true"}]}`:                                                         {Compress: true},
		`{"data":[{"compress":null}]}`:                                                           {},
		" ":                                                                                      {},
	} {
		if got, err := parseRequest([]byte(python)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", python, got, err)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var c caughtUp
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for i := range 3 * maxCaught {
		c.add(caughtKey{kind: i}, now)
	}
	if len(c.at) > maxCaught {
		t.Errorf("%d positions are remembered", len(c.at))
	}
	k := caughtKey{kind: -1}
	c.add(k, now)
	for after, want := range map[time.Duration]bool{0: true, recheck - 1: true, recheck: false, -1: false} {
		if c.has(k, now.Add(after)) != want {
			t.Errorf("after %v", after)
		}
	}
}
