package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestWhoWaitsForAnothersConnectionWaitsNoLongerThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		dialled := make(chan time.Duration)
		s := &sharing{
			shared: tripper(func(*http.Request) (*http.Response, error) { return nil, http2.ErrNoCachedConn }),
			base: tripper(func(req *http.Request) (*http.Response, error) {
				dialled <- time.Since(began)
				<-req.Context().Done()
				return nil, req.Context().Err()
			}),
		}
		target := httptest.NewRequest("GET", "https://mimecast.example/", nil)
		lost, lose := context.WithCancel(t.Context())
		go s.RoundTrip(target.WithContext(lost))
		<-dialled
		for patience, want := range map[time.Duration]time.Duration{10 * time.Millisecond: 10 * time.Millisecond, time.Hour: dialPatience} {
			ctx, leave := context.WithTimeout(t.Context(), patience)
			began = time.Now()
			go s.RoundTrip(target.WithContext(ctx))
			if took := <-dialled; took != want {
				t.Errorf("a request waited %v, want %v", took, want)
			}
			leave()
		}
		began = time.Now()
		go s.RoundTrip(target.WithContext(t.Context()))
		synctest.Wait()
		lose()
		if took := <-dialled; took != 0 {
			t.Errorf("a request waited %v after the connection was lost", took)
		}
	})
}
