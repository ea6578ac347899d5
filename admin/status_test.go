package admin_test

import (
	"encoding/json"
	"testing"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

func TestStatusIsJSONWithTheTokenAndAShortClientID(t *testing.T) {
	o := full()
	o.Accounts = having(admin.TokenState{Held: true, EverHeld: true, Expiry: time.Unix(1e9, 0)})
	o.Draining = func() bool { return true }
	o.Status = func() admin.Status {
		return admin.Status{Snapshot: event.Snapshot{Version: "v1"}}
	}
	s := serve(t, o)
	res, body := ask(t, s, "GET", "/api/status")
	var got struct {
		Version  string
		Draining bool
		Account  struct {
			ClientID string `json:"client_id"`
		}
		Token struct{ Held bool }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Content-Type") != "application/json" || got.Version != "v1" || !got.Draining || got.Account.ClientID != "abcdef…" || !got.Token.Held {
		t.Errorf("%v %s", res.Header, body)
	}
}
