package proxy_test

import (
	"io"
	"net/http"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/problem"
)

func TestNoResetOvertakesTheResponseToAnUpload(t *testing.T) {
	refused := problem.New(event.CredentialsRefused, "refused")
	early := func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Length", "9")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large")
		if req.ProtoMajor == 1 { // otherwise, the upstream's reset would overtake the response
			problem.Discard(w, req.Body)
		}
	}
	for name, c := range map[string]struct {
		http1  bool
		err    error // of the token source
		status int
		code   event.Code
	}{
		"refused credentials":      {false, refused, http.StatusBadGateway, event.CredentialsRefused},
		"Mimecast's 413, HTTP/2":   {false, nil, http.StatusRequestEntityTooLarge, ""},
		"Mimecast's 413, HTTP/1.1": {true, nil, http.StatusRequestEntityTooLarge, ""},
	} {
		for version, framing := range map[string]string{"1.1": "Connection: close\r\n", "1.0": ""} {
			t.Run(name+" to HTTP/"+version, func(t *testing.T) {
				r := newRig(t, setup{http1: c.http1, limit: 1 << 20}, early)
				r.tokens.err = c.err
				head := "POST / HTTP/" + version + "\r\nHost: h\r\n" + framing
				times := 12
				if testing.Short() {
					times = 3
				}
				for i := range times {
					res, err := peer.Upload(r.front.Listener.Addr().String(), head, false, 8<<20)
					if err != nil {
						t.Fatalf("%d: %v", i, err)
					}
					if got := res.Header.Get(problem.Header); res.StatusCode != c.status || got != string(c.code) {
						t.Fatalf("%d: %d %s", i, res.StatusCode, got)
					}
				}
				if testing.Short() {
					return
				}
				if res, err := peer.Upload(r.front.Listener.Addr().String(), head, false, 64<<20); err != nil || res.StatusCode != c.status {
					t.Errorf("64 MiB: %v %v", res, err)
				}
			})
		}
	}
}
