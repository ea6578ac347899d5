package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
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

// silent is a body of which nothing comes.
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

// letters is an endless body of one letter.
type letters byte

func (l letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(l)
	}
	return len(b), nil
}

// net/http may still read a body when it has closed it, or given it up for another
// attempt. The blocks are then those of another client's body.
func TestBodyThatWasGivenUpGivesNothingOfAnotherOne(t *testing.T) {
	const size = 4 * maxBlock
	budget := NewBudget(math.MaxInt64, nil)
	buffer := func(l letters) *replayBody {
		body, err := bufferBody(post(size, io.LimitReader(l, size)), size, budget)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	for range 30 {
		body := buffer('a')
		sending, err := body.open()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error)
		go func() {
			buf := make([]byte, 1<<10)
			for {
				n, err := sending.Read(buf)
				if i := strings.IndexFunc(string(buf[:n]), func(r rune) bool { return r != 'a' }); i >= 0 {
					t.Errorf("it gave %q", buf[i])
				}
				if err != nil {
					read <- err
					return
				}
			}
		}()
		body.closeAttempt()
		body.release()
		other := buffer('b')
		if err := <-read; !errors.Is(err, errBodyConsumed) && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if n, err := sending.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errBodyConsumed) {
			t.Errorf("after its end it gave %d bytes, %v", n, err)
		}
		if _, err := body.open(); !errors.Is(err, errBodyConsumed) {
			t.Errorf("it could be opened after its end: %v", err)
		}
		other.release()
	}
}

func TestLargeBodiesTakeTheBlocksOfEarlierOnes(t *testing.T) {
	const size = 4 << 20
	budget := NewBudget(math.MaxInt64, nil)
	buf := make([]byte, 64<<10)
	keep := func() {
		body, err := bufferBody(post(size, io.LimitReader(letters('a'), size)), size, budget)
		if err != nil {
			t.Fatal(err)
		}
		sending, err := body.open()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, sending, buf); n != size || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if err := sending.Close(); err != nil {
			t.Fatal(err)
		}
		body.release()
	}
	var before, after runtime.MemStats
	keep()
	runtime.ReadMemStats(&before)
	const bodies = 20
	for range bodies {
		keep()
	}
	runtime.ReadMemStats(&after)
	// The race detector makes a pool lose a quarter of what it gets.
	if each := (after.TotalAlloc - before.TotalAlloc) / bodies; each > size/2 {
		t.Errorf("each body of %d KiB takes %d KiB of new memory", size>>10, each>>10)
	}
}
