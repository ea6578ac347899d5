package admin_test

import (
	"strings"
	"testing"
)

func TestFilterWorksWithoutScripts(t *testing.T) {
	s := healthy()
	s.Requests[3].Retried = true
	s.Requests[4].Fault, s.Requests[4].Status, s.Requests[4].DurationMS = "mimecast_error", 502, 1500
	s.Requests[5].Client, s.Requests[5].Account, s.Requests[5].Route, s.Requests[5].TraceID, s.Requests[5].Peer, s.Requests[5].Error = "splunk", "emea", "GET /siem/", "4bf92f3577b34da6", "peer", "hidden"
	srv := serve(t, showing(s, goodToken()))
	for query, want := range map[string]int{
		"": 200, "?q=events/7": 11, "?q=GET+events/42": 1, "?q=000000000063": 1, "?q=502": 1, "?show=retried": 1, "?show=wrong": 1, "?show=slow": 1,
		"?show=retried&q=502": 0, "?show=other": 200, "?q=%22%3E%3Cb%3E": 0,
		"?q=splunk": 1, "?q=account+emea": 1, "?q=4bf92f35": 1, "?q=server+error": 1, "?q=mimecast_error": 1, "?q=retried": 1, "?q=hidden": 0, "?q=peer": 0,
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

// TestSearchFindsWhatARowShows checks that every searchable word is visible in the row.
func TestSearchFindsWhatARowShows(t *testing.T) {
	s := healthy()
	r := &s.Requests[0]
	r.Retried, r.Fault, r.Component, r.Error = true, "mimecast_error", "mimecast", "unseen-error"
	r.Client, r.Peer, r.Account, r.Route, r.TraceID, r.Method, r.Path = "splunk", "unseen-peer", "emea", "GET /route/", "trace4bf9", "PATCH", "/only/here"
	srv := serve(t, showing(s, goodToken()))
	for _, word := range []string{"splunk", "emea", "/route/", "trace4bf9", "PATCH", "/only/here", "mimecast_error", "retried", "server error", "unseen-error", "unseen-peer"} {
		_, body := ask(t, srv, "GET", "/?q="+strings.ReplaceAll(word, " ", "+"))
		_, list, _ := strings.Cut(body, `<div id="list"`)
		list, _, _ = strings.Cut(list, `id="codes"`)
		found := strings.Count(list, `<tr role="row" class=`) > 0
		if shown := strings.Contains(list, "/only/here") && strings.Contains(list, word); found != shown || strings.HasPrefix(word, "unseen") == found {
			t.Errorf("%q: found %v, shown %v", word, found, shown)
		}
	}
}
