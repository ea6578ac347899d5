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
	s.closeIdleOver(ctx, d.Delay)
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

// closeIdleOver closes the idle HTTP/1.1 connections one by one, spread over the delay,
// and returns at its end or that of ctx. A request that a client sends on a connection
// just as it is closed is lost. If all were closed at once, a burst could lose many.
func (s *Server) closeIdleOver(ctx context.Context, delay time.Duration) {
	end := time.Now().Add(delay)
	for left := delay; left > 0 && ctx.Err() == nil; left = time.Until(end) {
		_, idling := s.conns.idleHTTP1()
		step := time.NewTimer(left / time.Duration(idling+1))
		select {
		case <-step.C:
			if oldest, _ := s.conns.idleHTTP1(); oldest != nil {
				_ = oldest.Close()
			}
		case <-ctx.Done():
		}
		step.Stop()
	}
}
