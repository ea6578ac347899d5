package problem_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	for code, onPost := range map[problem.Code]bool{
		problem.UpstreamReset: false, problem.UpstreamTimeout: false, problem.ShuttingDown: false,
		problem.UpstreamUnreachable: true, problem.TokenUnavailable: true, problem.TooBusy: true, problem.CredentialsRefused: false,
	} {
		if _, body := get(t, "POST", problem.New(code, "")); strings.Contains(body, `"retryable":true`) != onPost {
			t.Errorf("%s: %s", code, body)
		}
	}
}

func TestStatusAndEnvelopeOfEveryCode(t *testing.T) {
	want := map[problem.Code]struct {
		status    int
		retryable bool
	}{
		problem.BadRequestTarget:    {400, false},
		problem.BadRequestBody:      {400, false},
		problem.APIKeyRequired:      {401, false},
		problem.HostNotAllowed:      {403, false},
		problem.OriginNotAllowed:    {403, false},
		problem.RouteNotAllowed:     {403, false},
		problem.UpgradeNotSupported: {501, false},
		problem.UpstreamUnreachable: {502, true},
		problem.UpstreamTLS:         {502, false},
		problem.UpstreamReset:       {502, true},
		problem.CredentialsRefused:  {502, false},
		problem.TokenUnavailable:    {503, true},
		problem.TooBusy:             {503, true},
		problem.ShuttingDown:        {503, true},
		problem.UpstreamTimeout:     {504, true},
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
	p := problem.New(problem.TooBusy, "wait")
	p.RetryAfter = 1200 * time.Millisecond
	res, _ := get(t, "GET", p)
	if got := res.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
}

func TestHeadHasNoBodyButItsLength(t *testing.T) {
	p := problem.New(problem.TooBusy, "wait")
	_, full := get(t, "GET", p)
	res, body := get(t, "HEAD", p)
	if body != "" || res.ContentLength != int64(len(full)) {
		t.Errorf("HEAD: body %q, length %d, want none and %d", body, res.ContentLength, len(full))
	}
}

func TestCauseIsForTheLogAlone(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:443")
	p := problem.New(problem.UpstreamUnreachable, "cannot connect").Because(cause)
	if want := "upstream_unreachable: cannot connect: dial tcp 10.0.0.7:443"; p.Error() != want || !errors.Is(p, cause) {
		t.Errorf("Error() = %q, want %q", p.Error(), want)
	}
	if _, body := get(t, "GET", p); strings.Contains(body, "10.0.0.7") {
		t.Errorf("the client was told the cause: %s", body)
	}
}

func TestALogLineHasEachTextOnce(t *testing.T) {
	const reason = "cannot reach the token endpoint"
	inner := errors.New("dial tcp: connection refused")
	for want, p := range map[string]*problem.Problem{
		"credentials_refused: Mimecast refused the secret. Correct it.":                                  problem.New(problem.CredentialsRefused, "Mimecast refused the secret. Correct it.").Because(errors.New("Mimecast refused the secret")),
		"token_unavailable: There is no token: " + reason + ". Check DNS.: dial tcp: connection refused": problem.New(problem.TokenUnavailable, "There is no token: %s. Check DNS.", reason).Because(fmt.Errorf(reason+": %w", inner)),
		"upstream_reset: It ended.: dial tcp: connection refused":                                        problem.New(problem.UpstreamReset, "It ended.").Because(inner),
		"upstream_reset: It ended.: reading: dial tcp: connection refused":                               problem.New(problem.UpstreamReset, "It ended.").Because(fmt.Errorf("reading: %w", inner)),
	} {
		if got := p.Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestWireBearsTheLogsID(t *testing.T) {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(problem.New(problem.BadRequest, "no").Wire("abc"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if id := res.Header.Get("X-Request-Id"); id != "abc" {
		t.Errorf("id %q", id)
	}
}
