package token

import (
	"errors"
	"testing"
	"time"
)

// A synctest bubble's clock cannot be set. So these tests pass times before and after a
// clock change to the functions that decide.

func TestClockSetBackMakesTheTokenDue(t *testing.T) {
	now := time.Now()
	held := New("abc", now, now.Add(30*time.Minute))
	if held.renewalDue(now) || held.renewalDue(now.Add(-time.Second)) {
		t.Error("due though it was fetched just now")
	}
	if !held.renewalDue(now.Add(-time.Hour)) {
		t.Error("not due though its age is unknown")
	}
}

func TestClockSetForwardOutdatesTheToken(t *testing.T) {
	now := time.Now()
	held := New("abc", now, now.Add(30*time.Minute))
	if later := now.Add(time.Hour); held.ValidAt(later) || !held.renewalDue(later) {
		t.Error("an hour later the token still counts")
	}
}

func TestClockSetBackEndsThePause(t *testing.T) {
	now := time.Now()
	st := &state{err: errors.New("down"), failedAt: now, retryAt: now.Add(time.Minute)}
	if !st.inBackoff(now) || st.inBackoff(now.Add(-time.Hour)) || st.inBackoff(now.Add(time.Minute)) {
		t.Error("the pause is not as long as it was meant to be")
	}
}

func BenchmarkTokenHeld(b *testing.B) {
	now := time.Now()
	s := &Source{}
	s.init()
	s.publish(state{token: New("abc", now, now.Add(time.Hour))})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Token(b.Context()); err != nil {
				b.Error(err)
			}
		}
	})
}
