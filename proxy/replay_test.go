package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func post(size int64, body io.Reader) *http.Request {
	return &http.Request{ContentLength: size, Body: io.NopCloser(body)}
}

// net/http gives up a body that waits for 100 Continue by closing it, and then
// reads from it once more, when it has waited long enough.
func TestBodyThatWasGivenUpUnreadCanStillBeSent(t *testing.T) {
	body, err := bufferBody(post(10, strings.NewReader("0123456789")), 4, NewBudget(1<<20, nil))
	if err != nil {
		t.Fatal(err)
	}
	first, err := body.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := first.Read(make([]byte, 4)); n != 0 || !errors.Is(err, errBodyConsumed) {
		t.Errorf("after its end it gave %d bytes, %v", n, err)
	}
	second, err := body.open()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(second); err != nil || string(got) != "0123456789" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := body.open(); !errors.Is(err, errBodyConsumed) {
		t.Errorf("a body that was read: %v", err)
	}
}

func TestBudgetIsGivenBackWhenNobodyHasTheBodyAnyMore(t *testing.T) {
	var kept int64
	body, err := bufferBody(post(10, strings.NewReader("0123456789")), 100, NewBudget(1<<20, func(d int64) { kept += d }))
	if err != nil {
		t.Fatal(err)
	}
	sending, err := body.open()
	if err != nil {
		t.Fatal(err)
	}
	body.release() // the answer began before the body was sent
	if kept != 10 {
		t.Errorf("%d bytes are accounted for while the body is being sent", kept)
	}
	for range 2 { // closing twice is no error
		if err := sending.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept != 0 {
		t.Errorf("%d bytes are accounted for at the end", kept)
	}
}

func TestNoLimitIsTooLarge(t *testing.T) {
	body, err := bufferBody(post(3, strings.NewReader("abc")), math.MaxInt64, NewBudget(math.MaxInt64, nil))
	if err != nil || !body.whole() || body.size != 3 {
		t.Errorf("%v, %d bytes kept", err, body.size)
	}
}

// forgetful is an upstream transport that asks for the body again, as net/http
// does to resend, finds no connection, and closes nothing.
type forgetful struct{}

func (forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := r.GetBody(); err != nil {
		return nil, err
	}
	return nil, errors.New("no connection")
}

type noToken struct{}

func (noToken) Authorization() string                                  { return "Bearer x" }
func (noToken) Expiry() time.Time                                      { return time.Now().Add(time.Hour) }
func (noToken) Expire(Token)                                           {}
func (noToken) Token(context.Context) (Token, error)                   { return noToken{}, nil }
func (noToken) Renew(_ context.Context, rejected Token) (Token, error) { return rejected, nil }

func TestBudgetIsGivenBackForABodyThatNobodyCloses(t *testing.T) {
	var kept int64
	transport := &Transport{Base: forgetful{}, Source: noToken{}, ReplayLimit: 100, Budget: NewBudget(1<<20, func(d int64) { kept += d })}
	req := post(10, strings.NewReader("0123456789"))
	req.Header = http.Header{}
	if res, err := transport.RoundTrip(req); err == nil {
		t.Errorf("answered with %v", res)
	}
	if kept != 0 {
		t.Errorf("%d bytes are lost to all later requests", kept)
	}
}
