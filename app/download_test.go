package app

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
)

// PROXY_CLIENTS_FILE can change the accounts, so each download must check its own account.
func TestOnlyASimulatorsFilesMayBeOnThisMachine(t *testing.T) {
	files := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(files.Close)
	download := newDownload(config.Config{}, nil)
	t.Cleanup(download.CloseIdleConnections)
	for base, want := range map[string]bool{
		"": false, "https://eu-api.mimecast.com": false, "https://127.0.0.1.example": false,
		"http://127.0.0.1:8443": true, "http://localhost:8443": true, "https://[::1]:8443/x": true,
	} {
		ctx := t.Context()
		if u, err := url.Parse(base); err != nil {
			t.Fatal(err)
		} else if base != "" {
			ctx = account.NewContext(ctx, &account.Account{BaseURL: u}, "")
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, files.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := download.RoundTrip(r)
		if (err == nil) != want {
			t.Errorf("%q: %v", base, err)
		}
		if err == nil {
			_ = res.Body.Close()
		}
	}
}
