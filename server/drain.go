package server

import (
	"context"
	"time"
)

// forcedShutdownGrace is how long requests that are cut have to send their error
// response.
const forcedShutdownGrace = time.Second

// Drain says how a server stops.
type Drain struct {
	// Delay is how long the server goes on serving, so that clients are routed
	// elsewhere; Timeout how long requests in flight may take after that.
	Delay, Timeout time.Duration
	// Abort ends the requests that are left at the end of the timeout. It is called
	// at most once.
	Abort func()
}

// Drain stops the server: it asks clients to close their connections, serves on for
// the delay, and then waits for requests in flight. If the timeout or ctx ends first,
// it cuts what is left and returns the error of that context.
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
	if s.Shutdown(bounded) == nil {
		return nil
	}
	d.Abort()
	grace, end := context.WithTimeout(context.Background(), forcedShutdownGrace)
	defer end()
	_ = s.Shutdown(grace) // what is not done by then is cut without a response
	_ = s.Close()
	return bounded.Err()
}
