package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

func get(t *testing.T, method string, p *problem.Problem) (*http.Response, string) {
	t.Helper()
	srv := httptest.NewServer(p)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestWhatMayHaveBeenCarriedOutIsRetryableOnlyWhereItReads(t *testing.T) {
	for code, onPost := range map[event.Code]bool{
		event.UpstreamReset: false, event.UpstreamTimeout: false, event.ShuttingDown: false,
		event.UpstreamUnreachable: true, event.TokenUnavailable: true, event.TooBusy: true, event.CredentialsRefused: false,
	} {
		if _, body := get(t, "POST", problem.New(code, "")); strings.Contains(body, `"retryable":true`) != onPost {
			t.Errorf("%s: %s", code, body)
		}
	}
}

func TestStatusAndEnvelopeOfTheContractsCodes(t *testing.T) {
	want := map[event.Code]struct {
		status    int
		retryable bool
	}{
		event.BadRequestTarget:    {400, false},
		event.BadRequestBody:      {400, false},
		event.BadRequest:          {400, false},
		event.HeadersTooLarge:     {431, false},
		event.APIKeyRequired:      {401, false},
		event.HostNotAllowed:      {403, false},
		event.OriginNotAllowed:    {403, false},
		event.RouteNotAllowed:     {403, false},
		event.UpgradeNotSupported: {501, false},
		event.UpstreamUnreachable: {502, true},
		event.UpstreamTLS:         {502, false},
		event.UpstreamReset:       {502, true},
		event.CredentialsRefused:  {502, false},
		event.TokenUnavailable:    {503, true},
		event.TooBusy:             {503, true},
		event.ShuttingDown:        {503, true},
		event.UpstreamTimeout:     {504, true},
		event.ClientGone:          {499, false},
	}
	for code, w := range want {
		res, body := get(t, "GET", problem.New(code, "do %s", "this"))
		var got struct {
			Fail []struct {
				Code, Message string
				Retryable     bool
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v in %q", code, err, body)
		}
		if res.StatusCode != w.status || len(got.Fail) != 1 || got.Fail[0].Code != string(code) ||
			got.Fail[0].Retryable != w.retryable || got.Fail[0].Message != "do this" {
			t.Errorf("%s: %d %s", code, res.StatusCode, body)
		}
		if res.Header.Get(problem.Header) != string(code) || res.Header.Get(problem.StatusHeader) == "" {
			t.Errorf("%s: headers %v", code, res.Header)
		}
		if res.Header.Get("Retry-After") != "" {
			t.Errorf("%s: Retry-After though none was set", code)
		}
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	p := problem.New(event.TooBusy, "wait")
	p.RetryAfter = 1200 * time.Millisecond
	res, _ := get(t, "GET", p)
	if got := res.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
}

func TestHeadHasNoBodyButItsLength(t *testing.T) {
	p := problem.New(event.TooBusy, "wait")
	_, full := get(t, "GET", p)
	res, body := get(t, "HEAD", p)
	if body != "" || res.ContentLength != int64(len(full)) {
		t.Errorf("HEAD: body %q, length %d, want none and %d", body, res.ContentLength, len(full))
	}
}

func TestCauseIsForTheLogAlone(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:443")
	p := problem.New(event.UpstreamUnreachable, "cannot connect").Because(cause)
	if want := "upstream_unreachable: cannot connect: dial tcp 10.0.0.7:443"; p.Error() != want || !errors.Is(p, cause) {
		t.Errorf("Error() = %q, want %q", p.Error(), want)
	}
	if _, body := get(t, "GET", p); strings.Contains(body, "10.0.0.7") {
		t.Errorf("the client got the cause: %s", body)
	}
}

func TestALogLineHasEachTextOnce(t *testing.T) {
	const reason = "cannot reach the token endpoint"
	inner := errors.New("dial tcp: connection refused")
	for want, p := range map[string]*problem.Problem{
		"credentials_refused: Mimecast refused the secret. Correct it.":                                  problem.New(event.CredentialsRefused, "Mimecast refused the secret. Correct it.").Because(errors.New("Mimecast refused the secret")),
		"token_unavailable: There is no token: " + reason + ". Check DNS.: dial tcp: connection refused": problem.New(event.TokenUnavailable, "There is no token: %s. Check DNS.", reason).Because(fmt.Errorf(reason+": %w", inner)),
		"upstream_reset: It ended.: dial tcp: connection refused":                                        problem.New(event.UpstreamReset, "It ended.").Because(inner),
		"upstream_reset: It ended.: reading: dial tcp: connection refused":                               problem.New(event.UpstreamReset, "It ended.").Because(fmt.Errorf("reading: %w", inner)),
	} {
		if got := p.Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
