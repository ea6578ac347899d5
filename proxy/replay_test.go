package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
)

func post(size int64, body io.Reader) *http.Request {
	return &http.Request{ContentLength: size, Body: io.NopCloser(body)}
}

// After waiting too long for 100 Continue, net/http closes the body and then reads from it
// once more.
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
	body.release() // the response began before the body was sent
	if kept != 10 {
		t.Errorf("%d bytes are accounted for while the body is being sent", kept)
	}
	for range 2 { // closing twice is allowed
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

// forgetful is an upstream transport that gets the body again, as net/http does to resend.
// It then fails without closing the body.
type forgetful struct{}

func (forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := r.GetBody(); err != nil {
		return nil, err
	}
	return nil, errors.New("no connection")
}

type noToken struct{}

func (noToken) Authorization() string                        { return "Bearer x" }
func (noToken) Expiry() time.Time                            { return time.Now().Add(time.Hour) }
func (noToken) Expire(account.Token)                         {}
func (noToken) Token(context.Context) (account.Token, error) { return noToken{}, nil }
func (noToken) Renew(_ context.Context, rejected account.Token) (account.Token, error) {
	return rejected, nil
}

func TestBudgetIsGivenBackForABodyThatNobodyCloses(t *testing.T) {
	var kept int64
	transport := Replay(100, NewBudget(1<<20, func(d int64) { kept += d }))(Authenticate(Trace{}))
	req := post(10, strings.NewReader("0123456789"))
	req = req.WithContext(account.NewContext(t.Context(), &account.Account{Tokens: noToken{}, Transport: forgetful{}}, ""))
	req.Header = http.Header{}
	if res, err := transport.RoundTrip(req); err == nil {
		t.Errorf("answered with %v", res)
	}
	if kept != 0 {
		t.Errorf("%d bytes are lost to all later requests", kept)
	}
}

// silent is a body that never sends a byte.
type silent struct{ release chan struct{} }

func (s silent) Read([]byte) (int, error) { <-s.release; return 0, io.ErrUnexpectedEOF }
func (s silent) Close() error             { return nil }

func TestUploadsThatSendNothingTakeNextToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const uploads = 1010
		budget := NewBudget(64<<20, nil)
		release := make(chan struct{})
		for i := range uploads {
			length := int64(-1)
			if i%2 == 0 {
				length = 8 << 20
			}
			go func() {
				_, _ = bufferBody(&http.Request{ContentLength: length, Body: silent{release}}, 8<<20, budget)
			}()
		}
		synctest.Wait()
		if taken := 64<<20 - budget.left.Load(); taken > 2<<20 {
			t.Errorf("they take %d KiB", taken>>10)
		}
		close(release)
	})
}
