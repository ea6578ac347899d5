package admin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"mimecast-proxy/admin"
)

func TestButtonsDoAndUndo(t *testing.T) {
	var on atomic.Bool
	set := func(v bool) func(context.Context) error {
		return func(context.Context) error { on.Store(v); return nil }
	}
	srv := serve(t, showing(healthy(), goodToken(),
		admin.Action{Name: "slow", Label: "Slow down", Do: set(true), UndoLabel: "Speed up", Undo: set(false), Active: on.Load},
		admin.Action{Name: "fail", Label: "Fail", Do: func(context.Context) error { return errors.New("no such luck") }}))
	for _, c := range []struct {
		path   string
		active bool
		label  string
	}{{"/demo/slow", true, "Speed up"}, {"/demo/slow/undo", false, "Slow down"}} {
		if res, _ := ask(t, srv, "POST", c.path, "Accept", "text/html", "Sec-Fetch-Site", "same-origin"); res.StatusCode != 303 || res.Header.Get("Location") != "/" {
			t.Errorf("%s: %d %v", c.path, res.StatusCode, res.Header)
		}
		if _, body := ask(t, srv, "GET", "/"); on.Load() != c.active || !strings.Contains(body, ">"+c.label+"<") {
			t.Errorf("%s: on %v, or no button %q", c.path, on.Load(), c.label)
		}
	}
	if res, body := ask(t, srv, "POST", "/demo/fail"); res.StatusCode != 502 || !strings.Contains(body, "no such luck") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestForeignPageCannotPushAButton(t *testing.T) {
	action := admin.Action{Name: "revoke", Do: func(context.Context) error { t.Error("pushed"); return nil }}
	srv := serve(t, showing(healthy(), goodToken(), action))
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		if res, _ := ask(t, srv, "POST", "/demo/revoke", header...); res.StatusCode != 403 {
			t.Errorf("%v: %d", header, res.StatusCode)
		}
	}
	if res, _ := ask(t, srv, "GET", "/demo/revoke"); res.StatusCode != 405 {
		t.Errorf("GET: %d", res.StatusCode)
	}
	o := showing(healthy(), goodToken(), action)
	o.Local = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	}
	srv = serve(t, o)
	for _, target := range []string{"GET /", "POST /demo/revoke"} {
		method, path, _ := strings.Cut(target, " ")
		if res, _ := ask(t, srv, method, path); res.StatusCode != 403 {
			t.Errorf("%s from elsewhere: %d", target, res.StatusCode)
		}
	}
}

func TestOnlyDemosHaveButtons(t *testing.T) {
	srv := serve(t, showing(healthy(), goodToken()))
	if _, body := ask(t, srv, "GET", "/"); strings.Contains(body, `method="post"`) || strings.Contains(body, "demo") {
		t.Error("the page of a proxy has a button")
	}
	if res, _ := ask(t, srv, "POST", "/demo/revoke"); res.StatusCode != 404 {
		t.Errorf("%d", res.StatusCode)
	}
}
