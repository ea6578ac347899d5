package resend_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"mimecast-proxy/resend"
)

func request(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example/x", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestRewindStartsTheBodyOver(t *testing.T) {
	req := request(t, strings.NewReader("body"))
	for range 3 {
		if _, err := io.CopyN(io.Discard, req.Body, 2); err != nil {
			t.Fatal(err)
		}
		again, err := resend.Rewind(req)
		if err != nil || again == req {
			t.Fatal(again == req, err)
		}
		req = again
	}
	if text, err := io.ReadAll(req.Body); string(text) != "body" || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
}

func TestRewindNeedsGetBodyForABodyAlone(t *testing.T) {
	for _, body := range []io.Reader{nil, http.NoBody} {
		req := request(t, body)
		if again, err := resend.Rewind(req); again != req || err != nil {
			t.Errorf("%v: %v, %v", body, again, err)
		}
	}
	if _, err := resend.Rewind(request(t, io.NopCloser(strings.NewReader("x")))); !errors.Is(err, resend.ErrNoGetBody) {
		t.Error(err)
	}
	failure := errors.New("gone")
	req := request(t, strings.NewReader("x"))
	req.GetBody = func() (io.ReadCloser, error) { return nil, failure }
	if _, err := resend.Rewind(req); !errors.Is(err, failure) {
		t.Error(err)
	}
}

type closer struct {
	io.Reader
	closed int
}

func (c *closer) Close() error { c.closed++; return nil }

func TestCloseBodyClosesWhatThereIs(t *testing.T) {
	resend.CloseBody(request(t, nil))
	body := &closer{Reader: strings.NewReader("x")}
	if resend.CloseBody(request(t, body)); body.closed != 1 {
		t.Error(body.closed)
	}
}
