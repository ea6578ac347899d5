package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/config"
	"mimecast-proxy/halfclose"
	"mimecast-proxy/problem"
	"mimecast-proxy/service"
)

const (
	// What a client may take for its request headers, in time and bytes. Bodies
	// have no bound: an upload takes as long as it takes.
	readHeaderTimeout = 10 * time.Second
	maxRequestHeader  = 64 << 10
	// keepAlive is how long an idle client connection is kept: longer than
	// clients commonly keep theirs, so that it is they who close.
	keepAlive = 2 * time.Minute
	// lastWords is how long requests that are cut have to say so.
	lastWords = time.Second
)

// Serve runs the proxy until a signal or ctx ends it.
func (p Process) Serve(ctx context.Context) error {
	cfg, err := configure(p.inherited())
	if err != nil {
		return err
	}
	s, err := p.newServer(ctx, cfg)
	if err != nil {
		return err
	}
	return s.run(ctx, p.Signals)
}

// server is a proxy that runs.
type server struct {
	*parts
	data, admin       *http.Server
	dataAddr, adminAt net.Addr // adminAt is nil where there is none
	listeners         []net.Listener
	draining          atomic.Bool
	quit              chan struct{} // closed by POST /quitquitquit
	cut               context.CancelCauseFunc
	keeper            service.Keeper
}

// newServer builds a proxy and opens its listeners. The actions are buttons on
// its status page.
func (p Process) newServer(ctx context.Context, cfg config.Config, actions ...admin.Action) (*server, error) {
	parts, err := p.assemble(cfg)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.Environ, named("GOGC")) { // else the operator knows better
		relaxCollector()
	}
	s := &server{parts: parts, quit: make(chan struct{}), keeper: p.Keeper}
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cut = cut
	s.data = s.httpServer(base, halfclose.Wrap(s.closing(s.handler())))
	s.data.ConnContext = halfclose.Context
	s.admin = s.httpServer(base, admin.Handler(s.adminOptions(actions)))
	data, admin := p.Keeper.Data, p.Keeper.Admin
	if data == nil {
		if data, err = p.open(ctx, "PROXY_LISTEN", cfg.Listen, cfg.SocketMode); err != nil {
			return nil, err
		}
	}
	s.listeners, s.dataAddr = append(s.listeners, halfclose.Listen(s.loud(data))), data.Addr()
	if cfg.Admin.IsZero() {
		return s, nil
	}
	if admin == nil {
		if admin, err = p.open(ctx, "PROXY_ADMIN_LISTEN", cfg.Admin, cfg.SocketMode); err != nil {
			return nil, errors.Join(err, data.Close())
		}
	}
	s.listeners, s.adminAt = append(s.listeners, s.loud(admin)), admin.Addr()
	return s, nil
}

func (s *server) httpServer(base context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxRequestHeader,
		ErrorLog:          s.tel.StdLog("debug"),
		// OPTIONS * is for the guard to refuse.
		DisableGeneralOptionsHandler: true,
	}
}

// closing tells clients to let go of their connections once a drain has begun,
// so that none sends a request into one that is being closed.
func (s *server) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) adminOptions(actions []admin.Action) admin.Options {
	o := admin.Options{
		Token:    s.tokenState,
		Draining: s.draining.Load,
		Metrics:  s.tel.Metrics(),
		Status:   s.status,
		Local:    s.guard.WrapAdmin,
		Demo:     actions,
	}
	if s.cfg.QuitEndpoint {
		o.Quit = sync.OnceFunc(func() { close(s.quit) })
	}
	return o
}

// run serves until told to stop, and then drains.
func (s *server) run(ctx context.Context, signals <-chan os.Signal) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	defer s.cut(nil)
	owned.Go(func() { s.source.Run(running) })
	owned.Go(func() { s.report(running) })
	owned.Go(func() { s.reload(running) })
	owned.Go(func() { tidy(running) })
	failed := make(chan error, 2)
	for i, srv := range []*http.Server{s.data, s.admin}[:len(s.listeners)] {
		owned.Go(func() { failed <- srv.Serve(s.listeners[i]) })
	}
	s.announce()
	var err error
	select {
	case <-ctx.Done():
	case <-signals:
	case <-s.quit:
	case err = <-failed:
		err = fmt.Errorf("serving: %w", err)
	}
	return errors.Join(err, s.drain(signals))
}

func (s *server) announce() {
	log := s.tel.Logger()
	for _, w := range s.cfg.Warnings {
		log.Warn(w)
	}
	attrs := []any{"listen", s.dataAddr.String(), "upstream", s.cfg.BaseURL.String()}
	if s.adminAt != nil {
		attrs = append(attrs, "admin", s.adminAt.String())
	}
	log.Info("serving", attrs...)
}

// drain stops taking requests and waits for those in flight: not ready first,
// then the delay, in which whoever routes to us looks elsewhere, then Shutdown.
// What is left at the end of the timeout, or at a second signal, is cut.
func (s *server) drain(signals <-chan os.Signal) error {
	s.draining.Store(true)
	if s.keeper.Stopping != nil {
		s.keeper.Stopping()
	}
	log := s.tel.Logger()
	log.Info("draining", "in_flight", s.guard.InFlight(), "delay", s.cfg.ShutdownDelay.String(), "timeout", s.cfg.ShutdownTimeout.String())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-signals:
			log.Warn("a second signal: requests in flight are cut")
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watching }()

	wait(ctx, s.cfg.ShutdownDelay)
	bounded, release := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer release()
	err := s.data.Shutdown(bounded)
	if inFlight := s.guard.InFlight(); err != nil {
		err = nil
		if inFlight > 0 { // else it was connections that asked for nothing yet
			err = fmt.Errorf("%d requests were cut: %w", inFlight, bounded.Err())
		}
		s.cutOff()
	}
	err = errors.Join(err, s.admin.Close())
	s.upstream.CloseIdleConnections()
	s.endpoint.CloseIdleConnections()
	if err == nil {
		log.Info("drained")
	}
	return err
}

// cutOff ends what is still in flight, with an answer where none was begun.
func (s *server) cutOff() {
	s.cut(problem.New(problem.ShuttingDown, "The proxy is shutting down and could not wait any longer."))
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	_ = s.data.Shutdown(ctx) // whoever is not done by now is cut without a word
	_ = s.data.Close()
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
