package mimecast_test

import (
	"testing"

	"mimecast-proxy/mimecast"
)

func TestIdentityIsWhatTheResponseSays(t *testing.T) {
	for body, want := range map[string]mimecast.Identity{
		`{"home-account":{"code":"C1","name":"Harbour Mills Ltd","region":"eu"}}`: {Name: "Harbour Mills Ltd", Region: "eu"},
		`{"home-account":{"code":"C1"},"account-codes":{"cg":"C2"}}`:              {Name: "C1"},
		`{"account-codes":{"cg":"C2","x1":null}}`:                                 {Name: "C2"},
		`{"account-codes":{"cg":5}}`:                                              {},
		`{"home-account":[]}`:                                                     {},
		`not JSON`:                                                                {},
		``:                                                                        {},
	} {
		if got := mimecast.ParseIdentity([]byte(body)); got != want {
			t.Errorf("%s: %+v", body, got)
		}
	}
}
