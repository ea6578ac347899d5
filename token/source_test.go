package token_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/event"
	"mimecast-proxy/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is a token endpoint in a synctest bubble. It takes time, fails on request, and
// counts.
type endpoint struct {
	takes, ttl time.Duration
	fail       atomic.Pointer[token.Error]
	changed    atomic.Bool
	fetches    atomic.Int64
	underWay   atomic.Int64
	mostAtOnce atomic.Int64
}

func (e *endpoint) Fetch(ctx context.Context) (*token.Token, error) {
	e.mostAtOnce.Store(max(e.mostAtOnce.Load(), e.underWay.Add(1)))
	defer e.underWay.Add(-1)
	e.changed.Store(false)
	n, began := e.fetches.Add(1), time.Now()
	select {
	case <-time.After(e.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := e.fail.Load(); err != nil {
		return nil, err
	}
	return token.New(fmt.Sprintf("token-%d", n), began, began.Add(e.ttl)), nil
}

func (e *endpoint) Changed() bool { return e.changed.Load() }

// bubble runs f in a synctest bubble, with a running Source.
func bubble(t *testing.T, e *endpoint, f func(t *testing.T, s *token.Source)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &token.Source{Fetcher: e}
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		f(t, s)
		stop()
		<-done
	})
}

func must(t *testing.T, tok *token.Token, err error) *token.Token {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestRenewalCostsNoRequestAnyWait(t *testing.T) {
	e := &endpoint{takes: 500 * time.Millisecond, ttl: 10 * time.Second}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		must(t, tok, err)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			began := time.Now()
			tok, err := s.Token(t.Context())
			if must(t, tok, err); time.Since(began) != 0 {
				t.Fatalf("waited %v for a token", time.Since(began))
			}
		}
		if n := e.fetches.Load(); n < 6 || n > 10 {
			t.Errorf("%d fetches in a minute of tokens that live 10 s", n)
		}
	})
}

func TestRealLifetimeIsRenewedFiveMinutesEarly(t *testing.T) {
	e := &endpoint{ttl: 1799 * time.Second}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		first := must(t, tok, err)
		time.Sleep(1799*time.Second - 5*time.Minute - time.Second)
		if tok, _ := s.Token(t.Context()); tok != first {
			t.Error("renewed too early")
		}
		time.Sleep(2 * time.Second)
		if tok, _ := s.Token(t.Context()); tok == first {
			t.Error("not renewed with five minutes left")
		}
	})
}

func TestAnyNumberOfWaitersCauseOneFetch(t *testing.T) {
	e := &endpoint{takes: time.Second, ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if tok, err := s.Token(t.Context()); err != nil || tok.Authorization() != "Bearer token-1" {
					t.Error(tok, err)
				}
			})
		}
		wg.Wait()
		if e.fetches.Load() != 1 {
			t.Errorf("%d fetches", e.fetches.Load())
		}
	})
}

func TestImpatientCallerDoesNotKillTheFetch(t *testing.T) {
	e := &endpoint{takes: time.Second, ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		tok, err := s.Token(t.Context())
		if must(t, tok, err); e.fetches.Load() != 1 {
			t.Errorf("%d fetches", e.fetches.Load())
		}
	})
}

func TestFiftyRejectionsCauseOneFetch(t *testing.T) {
	e := &endpoint{takes: time.Second, ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		old := must(t, tok, err)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if tok, err := s.Renew(t.Context(), old); err != nil || tok == old {
					t.Error(tok, err)
				}
			})
		}
		wg.Wait()
		// A late request that left with the old token.
		if tok, err := s.Renew(t.Context(), old); err != nil || tok == old {
			t.Error(tok, err)
		}
		if e.fetches.Load() != 2 {
			t.Errorf("%d fetches, want the first and one renewal", e.fetches.Load())
		}
	})
}

func TestRejectionThatAFreshTokenDoesNotCureCostsOneFetchIn10s(t *testing.T) {
	e := &endpoint{takes: 10 * time.Millisecond, ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		for range 600 { // a minute of requests that all get 401
			tok, err := s.Token(t.Context())
			if _, err = s.Renew(t.Context(), must(t, tok, err)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := e.fetches.Load(); n < 6 || n > 8 {
			t.Errorf("%d fetches in a minute, want the first and one each 10 s", n)
		}
	})
}

func TestFreshlyRenewedTokenIsHandedBack(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		tok, err = s.Renew(t.Context(), must(t, tok, err))
		fresh := must(t, tok, err)
		if tok, err := s.Renew(t.Context(), fresh); tok != fresh || err != nil {
			t.Errorf("got %v, %v", tok, err)
		}
		time.Sleep(10 * time.Second)
		if tok, err := s.Renew(t.Context(), fresh); tok == fresh || err != nil {
			t.Errorf("after 10 s: got %v, %v", tok, err)
		}
	})
}

func TestHeldTokenIsUsedToItsEndWhileTheEndpointFails(t *testing.T) {
	e := &endpoint{ttl: 30 * time.Minute}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		first := must(t, tok, err)
		e.fail.Store(&token.Error{Outcome: event.TokenFailed, Reason: "down"})
		time.Sleep(time.Until(first.Expiry()) - time.Nanosecond)
		if tok, err := s.Token(t.Context()); tok != first || err != nil {
			t.Errorf("just before expiry: %v, %v", tok, err)
		}
		if n := e.fetches.Load(); n < 8 || n > 20 {
			t.Errorf("%d fetches in five minutes of failures", n)
		}
		time.Sleep(time.Second)
		_, err = s.Token(t.Context())
		got, ok := errors.AsType[*token.Error](err)
		if !ok || got.RetryAfter <= 0 || got.RetryAfter > time.Minute {
			t.Errorf("after expiry: %v", err)
		}
		e.fail.Store(nil)
		time.Sleep(time.Minute)
		tok, err = s.Token(t.Context())
		must(t, tok, err)
	})
}

func TestFailingEndpointIsNotAskedOncePerRequest(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	e.fail.Store(&token.Error{Outcome: event.TokenRefused, Reason: "refused"})
	bubble(t, e, func(t *testing.T, s *token.Source) {
		for range 6000 {
			if _, err := s.Token(t.Context()); err == nil {
				t.Fatal("a token from nowhere")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := e.fetches.Load(); n > 10 {
			t.Errorf("%d fetches in a minute", n)
		}
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	e.fail.Store(&token.Error{Outcome: event.TokenFailed, RetryAfter: 7 * time.Minute})
	bubble(t, e, func(t *testing.T, s *token.Source) {
		began := time.Now()
		synctest.Wait()
		e.fail.Store(nil)
		time.Sleep(time.Until(began.Add(7*time.Minute - time.Nanosecond)))
		if e.fetches.Load() != 1 {
			t.Errorf("%d fetches before Retry-After was over", e.fetches.Load())
		}
		time.Sleep(time.Second)
		tok, err := s.Token(t.Context())
		must(t, tok, err)
	})
}

func TestAbsurdRetryAfterIsBounded(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	e.fail.Store(&token.Error{Outcome: event.TokenFailed, RetryAfter: 1000 * time.Hour})
	bubble(t, e, func(t *testing.T, s *token.Source) {
		time.Sleep(time.Hour + time.Minute)
		if e.fetches.Load() != 2 {
			t.Errorf("%d fetches after an hour, want 2", e.fetches.Load())
		}
	})
}

func TestCorrectedCredentialsAreTakenUpWithinSeconds(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	e.fail.Store(&token.Error{Outcome: event.TokenRefused, Reason: "refused"})
	bubble(t, e, func(t *testing.T, s *token.Source) {
		time.Sleep(10 * time.Minute) // the backoff is at its maximum
		e.fail.Store(nil)
		e.changed.Store(true)
		time.Sleep(6 * time.Second)
		tok, err := s.Token(t.Context())
		must(t, tok, err)
	})
}

func TestOneFetchAtATimeWhateverHappens(t *testing.T) {
	e := &endpoint{takes: 300 * time.Millisecond, ttl: 2 * time.Second}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range 50 {
					tok, err := s.Token(t.Context())
					if err == nil && i%2 == 0 {
						_, err = s.Renew(t.Context(), tok)
					}
					if err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		if e.mostAtOnce.Load() != 1 {
			t.Errorf("%d fetches at once", e.mostAtOnce.Load())
		}
	})
}

func TestStopReleasesWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &token.Source{Fetcher: &endpoint{takes: time.Hour, ttl: time.Hour}}
		go s.Run(ctx)
		answered := make(chan error)
		go func() { _, err := s.Token(t.Context()); answered <- err }()
		synctest.Wait()
		stop()
		if err := <-answered; !errors.Is(err, token.ErrStopped) {
			t.Errorf("got %v", err)
		}
		if st := s.Status(); st.Err != nil {
			t.Errorf("a stop counts as a failure: %v", st.Err)
		}
	})
}

func TestStatusTellsWhatIsHeldAndWhatFailed(t *testing.T) {
	e := &endpoint{ttl: 20 * time.Minute}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		if new(token.Source).Status().Held { // s may have fetched already
			t.Error("held before the first fetch")
		}
		began := time.Now()
		tok, err := s.Token(t.Context())
		must(t, tok, err)
		st := s.Status()
		if !st.Held || !st.Valid || st.Expiry.Sub(began) != 20*time.Minute || st.NextRenewal.Sub(began) != 15*time.Minute {
			t.Errorf("%+v", st)
		}
		e.fail.Store(&token.Error{Outcome: event.TokenFailed, Reason: "down"})
		time.Sleep(25 * time.Minute)
		st = s.Status()
		if !st.Held || st.Valid || st.Err == nil || st.Failures < 3 || st.NextRenewal != st.RetryAt {
			t.Errorf("%+v", st)
		}
	})
}

func TestStatusTellsOfARejectedTokenUntilItIsReplaced(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		must(t, tok, err)
		e.fail.Store(&token.Error{Outcome: event.TokenFailed, Reason: "down"})
		if _, err := s.Renew(t.Context(), tok); err == nil {
			t.Fatal("renewed from an endpoint that is down")
		}
		if st := s.Status(); !st.Held || !st.Valid || !st.Rejected {
			t.Errorf("after the 401: %+v", st)
		}
		e.fail.Store(nil)
		time.Sleep(2 * time.Second) // the first backoff
		if st := s.Status(); !st.Valid || st.Rejected {
			t.Errorf("after the renewal: %+v", st)
		}
	})
}

func TestTokenThatExpiredWhileItSettledIsReplaced(t *testing.T) {
	e := &endpoint{takes: time.Second, ttl: 2 * time.Second}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		tok, err = s.Renew(t.Context(), must(t, tok, err))
		fresh := must(t, tok, err)
		time.Sleep(time.Until(fresh.Expiry()) + 100*time.Millisecond) // the renewal ends after the expiry
		if tok, err := s.Renew(t.Context(), fresh); tok == fresh || err != nil {
			t.Errorf("got %v, %v", tok, err)
		}
	})
}

func TestChangedCredentialsCauseOneFetchAtOnce(t *testing.T) {
	e := &endpoint{takes: 100 * time.Millisecond, ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		first := must(t, tok, err)
		time.Sleep(time.Minute)
		change := func() { e.changed.Store(true); s.CredentialsChanged(); time.Sleep(150 * time.Millisecond) }
		change()
		if tok, err := s.Token(t.Context()); tok == first || err != nil || e.fetches.Load() != 2 {
			t.Errorf("a valid token was kept: %v, %d fetches", err, e.fetches.Load())
		}
		e.fail.Store(&token.Error{Outcome: event.TokenFailed, RetryAfter: time.Hour})
		change()
		time.Sleep(time.Minute)
		if n := e.fetches.Load(); n != 3 {
			t.Errorf("%d fetches, want 3 and then a pause", n)
		}
		e.fail.Store(nil)
		change()
		if st := s.Status(); st.Err != nil || e.fetches.Load() != 4 {
			t.Errorf("the pause was not ended: %v, %d fetches", st.Err, e.fetches.Load())
		}
		s.CredentialsChanged() // although they did not change
		time.Sleep(time.Minute)
		if n := e.fetches.Load(); n != 4 {
			t.Errorf("%d fetches without a change", n)
		}
	})
}

func TestRequestsKeepTheirTokenWhileChangedCredentialsAreRejected(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		first := must(t, tok, err)
		e.fail.Store(&token.Error{Outcome: event.TokenRefused, Reason: "refused"})
		e.changed.Store(true)
		s.CredentialsChanged()
		time.Sleep(30 * time.Minute)
		if tok, err := s.Token(t.Context()); tok != first || err != nil {
			t.Errorf("%v, %v", tok, err)
		}
	})
}

func TestAnExpiredTokenOfMimecastsOwnWordIsServedToNobody(t *testing.T) {
	e := &endpoint{ttl: time.Hour}
	bubble(t, e, func(t *testing.T, s *token.Source) {
		tok, err := s.Token(t.Context())
		dead := must(t, tok, err)
		e.fail.Store(&token.Error{Outcome: event.TokenFailed, Reason: "down", RetryAfter: time.Minute})
		if _, err := s.Renew(t.Context(), dead); err == nil {
			t.Fatal("renewed")
		}
		s.Expire(dead)
		if tok, err := s.Token(t.Context()); err == nil {
			t.Errorf("%v was served", tok == dead)
		}
		if s.Status().Valid {
			t.Error("the status calls it valid")
		}
		e.fail.Store(nil)
		time.Sleep(2 * time.Minute) // renewed without a request
		tok, err = s.Token(t.Context())
		renewed := must(t, tok, err)
		s.Expire(dead) // has no effect any more
		if tok, err := s.Token(t.Context()); err != nil || tok != renewed || tok == dead {
			t.Errorf("%v", err)
		}
	})
}
