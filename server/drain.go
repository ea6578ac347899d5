package server

import (
	"context"
	"time"
)

// forcedShutdownGrace is how long aborted requests have to send their error response.
const forcedShutdownGrace = time.Second

// Drain configures how a server stops.
type Drain struct {
	// Delay is how long the server goes on serving, so that load balancers can route
	// clients elsewhere; Timeout is how long in-flight requests may take after that. 0:
	// no time.
	Delay, Timeout time.Duration
	// Abort ends the requests that remain after the timeout. It is called at most once
	// and must be set.
	Abort func()
}

// Drain stops the server: it asks clients to close their connections, serves for the
// delay, and then waits for in-flight requests. If the timeout or ctx ends first, it
// aborts the rest and returns [context.DeadlineExceeded] or [context.Canceled].
// So it does, with that error, if a listener cannot be closed.
func (s *Server) Drain(ctx context.Context, d Drain) error {
	s.CloseConnections()
	delay := time.NewTimer(d.Delay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-ctx.Done():
	}
	bounded, release := context.WithTimeout(ctx, d.Timeout)
	defer release()
	err := s.Shutdown(bounded)
	if err == nil {
		return nil
	}
	d.Abort()
	grace, end := context.WithTimeout(context.Background(), forcedShutdownGrace)
	defer end()
	_ = s.Shutdown(grace) // a request that has not ended by then gets no response
	_ = s.Close()
	return err
}
