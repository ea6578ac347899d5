package account_test

import (
	"net/http"
	"testing"

	"mimecast-proxy/account"
)

func TestAClientIsItsNameOrItsAddress(t *testing.T) {
	req := &http.Request{RemoteAddr: "[fe80::1]:80"}
	if c := account.ClientOf(req); c != "fe80::1" {
		t.Error(c)
	}
	if c := account.ClientOf(req.WithContext(account.NewContext(t.Context(), nil, "splunk"))); c != "splunk" {
		t.Error(c)
	}
	if c := account.ClientOf(&http.Request{RemoteAddr: "@"}); c != "@" {
		t.Error(c)
	}
}
