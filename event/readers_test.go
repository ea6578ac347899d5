package event_test

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

// readers are the users of the table of codes. Each returns what it renders for a row, and
// the texts that must be in it.
var readers = map[string]func(*testing.T, event.Kind) (text string, want []string){
	"error response": response,
	"log":            logLine,
	"metrics":        metrics,
	"snapshot":       snapshot,
	"status page":    page,
}

func TestEveryReaderHasEveryCode(t *testing.T) {
	for name, read := range readers {
		t.Run(name, func(t *testing.T) {
			for _, k := range event.Kinds() {
				text, wanted := read(t, k)
				for _, want := range wanted {
					if !strings.Contains(text, want) {
						t.Errorf("%s: no %q in %s", k.Code, want, text)
					}
				}
			}
		})
	}
}

func response(_ *testing.T, k event.Kind) (string, []string) {
	if k.Status == 0 {
		return "", nil
	}
	w := httptest.NewRecorder()
	problem.New(k.Code, "").ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var text bytes.Buffer
	_ = w.Result().Write(&text)
	return text.String(), []string{" " + http.StatusText(k.Status), string(k.Code), "error=" + k.ErrorType}
}

// passedOn are the statuses of responses of Mimecast that are passed on and get a code.
var passedOn = map[event.Code]int{
	event.MimecastUnauthorized: 401, event.MimecastForbidden: 403, event.MimecastRateLimited: 429, event.MimecastError: 500,
}

// after returns the telemetry and the log of a proxy after one request that ended with k.
func after(t *testing.T, k event.Kind) (tel *telemetry.Telemetry, log string) {
	t.Helper()
	var out bytes.Buffer
	tel, err := telemetry.New(telemetry.Options{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch status := passedOn[k.Code]; {
		case k.Rejection:
			tel.Denied(r.Context(), k.Code, false)
		case status != 0:
			tel.Answered(r.Context(), status, http.Header{}, 0)
			w.WriteHeader(status)
		default:
			tel.Failed(r.Context(), problem.New(k.Code, "%s", k.Summary))
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	return tel, out.String()
}

func logLine(t *testing.T, k event.Kind) (string, []string) {
	_, log := after(t, k)
	want := []string{`"error":"` + string(k.Code) + ": " + k.Summary}
	if k.Rejection || passedOn[k.Code] != 0 {
		want = append(want, k.Remedy)
	}
	return log, want
}

func metrics(t *testing.T, k event.Kind) (string, []string) {
	if !k.Rejection {
		return "", nil
	}
	tel, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	tel.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String(), []string{`mimecast_proxy_requests_denied_total{reason="` + string(k.Code) + `"} 0`}
}

func snapshot(t *testing.T, k event.Kind) (string, []string) {
	tel, _ := after(t, k)
	text, err := json.Marshal(tel.Snapshot().Faults)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), []string{`"code":"` + string(k.Code) + `","component":"` + string(k.Component) + `"`}
}

func page(t *testing.T, k event.Kind) (string, []string) {
	tel, _ := after(t, k)
	h := admin.Handler(admin.Options{
		Accounts: func() []admin.Account {
			return []admin.Account{{Token: admin.TokenState{Held: true, Valid: true, EverHeld: true}}}
		},
		Status: func() admin.Status { return admin.Status{Snapshot: tel.Snapshot()} },
		Local:  func(next http.Handler) http.Handler { return next },
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return html.UnescapeString(w.Body.String()), []string{k.Summary, k.Remedy}
}

func TestEveryOutcomeHasASummary(t *testing.T) {
	for _, o := range event.RetryOutcomes {
		if o.Summary() == "" {
			t.Errorf("%s has none", o)
		}
	}
	for _, trigger := range event.TokenTriggers {
		if trigger.Summary() == "" {
			t.Errorf("%s has none", trigger)
		}
	}
}
