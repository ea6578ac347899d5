package admin_test

import (
	"strings"
	"testing"
)

func TestFilterWorksWithoutScripts(t *testing.T) {
	s := healthy()
	s.Requests[3].Retried = true
	s.Requests[4].Fault, s.Requests[4].Status, s.Requests[4].DurationMS = "mimecast_error", 502, 1500
	srv := serve(t, showing(s, goodToken()))
	for query, want := range map[string]int{
		"": 200, "?q=events/7": 11, "?q=GET+events/42": 1, "?q=000000000063": 1, "?q=502": 1, "?show=retried": 1, "?show=wrong": 1, "?show=slow": 1,
		"?show=retried&q=502": 0, "?show=other": 200, "?q=%22%3E%3Cb%3E": 0,
	} {
		_, body := ask(t, srv, "GET", "/"+query)
		if n := strings.Count(body, `<tr role="row" class=`); n != want {
			t.Errorf("%q: %d rows, want %d", query, n, want)
		}
		if strings.Contains(query, "%3C") && !strings.Contains(body, `value="&#34;&gt;&lt;b&gt;"`) {
			t.Errorf("%q: what was searched for is markup", query)
		}
	}
}
