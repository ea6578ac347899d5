package guard_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
)

// TestTooManyHeaderFieldsAreRejected checks that fields are counted, not distinct names.
func TestTooManyHeaderFieldsAreRejected(t *testing.T) {
	g, err := newGuard(guard.Policy{MaxHeaderFields: 20})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer srv.Close()
	for fields, want := range map[int]string{10: "", 21: string(event.HeadersTooLarge)} {
		req, err := http.NewRequest(http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range fields {
			req.Header.Add("A", "b")
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get(problem.Header); got != want {
			t.Errorf("%d fields: %q, want %q", fields, got, want)
		}
	}
}
