package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/server"
)

// Serve runs the proxy until a signal or ctx ends it. It returns an error if the proxy cannot
// start, a listener fails, or in-flight requests were cut.
func (p Env) Serve(ctx context.Context) error {
	cfg, err := p.configure(p.environWithActivatedSockets())
	if err != nil {
		return err
	}
	s, err := p.newInstance(ctx, cfg)
	if err != nil {
		return err
	}
	return s.run(ctx, p.Signals)
}

// instance is a proxy with its listeners.
type instance struct {
	*components
	data, admin       *server.Server // admin is nil if PROXY_ADMIN_LISTEN is off
	dataAddr, adminAt net.Addr       // dataAddr is the first one; adminAt is nil if admin is
	dataListeners     []dataListener // data serves all of them
	adminListener     net.Listener   // nil if admin is
	intercept         interception
	hintedAt          atomic.Int64  // when hintAtTLS last logged, in Unix nanoseconds
	quit              chan struct{} // closed by POST /quitquitquit
	cut               context.CancelCauseFunc
	supervisor        server.Supervisor
	environ           []string // of the process
	started           time.Time
}

// dataListener is a listener of the data port.
type dataListener struct {
	net.Listener
	tls bool
}

// String returns the address, with the prefix tls: if clients must use TLS.
func (l dataListener) String() string {
	if l.tls {
		return "tls:" + l.Addr().String()
	}
	return l.Addr().String()
}

// newInstance builds a proxy and opens its listeners. The actions become buttons on its status
// page.
func (p Env) newInstance(ctx context.Context, cfg config.Config, actions ...admin.Action) (*instance, error) {
	c, err := p.assemble(cfg)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.Environ, named("GOGC")) { // the operator's setting takes precedence
		relaxCollector()
	}
	s := &instance{components: c, quit: make(chan struct{}), supervisor: p.Supervisor, environ: p.Environ, started: time.Now()}
	s.intercept.password = p.tunnelPassword
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cut = cut
	if err := s.openListeners(ctx, p); err != nil {
		return nil, err
	}
	handler := s.handler()
	if err := s.openInterception(base, p, server.BoundWrites(writeTimeout, handler)); err != nil {
		return nil, errors.Join(err, s.closeListeners())
	}
	s.data = s.newServer(base, handler, dataLimits(cfg))
	if s.adminAt != nil {
		s.admin = s.newServer(base, s.tel.Recover(admin.Handler(s.adminOptions(actions))), adminLimits)
	}
	return s, nil
}

// openListeners opens the data and admin listeners, except those inherited from the supervisor.
func (s *instance) openListeners(ctx context.Context, p Env) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeListeners())
		}
	}()
	if l := p.Supervisor.Data; l != nil {
		s.dataListeners = []dataListener{{l, false}}
	} else if err := s.listen(ctx, p, "PROXY_LISTEN", s.cfg.Listen, false); err != nil {
		return err
	}
	if err := s.listen(ctx, p, "PROXY_TLS_LISTEN", s.cfg.TLSListen, true); err != nil {
		return err
	}
	s.dataAddr = s.dataListeners[0].Addr()
	if s.cfg.Admin.IsZero() {
		return nil
	}
	if s.adminListener = p.Supervisor.Admin; s.adminListener == nil {
		if s.adminListener, err = server.Listen(ctx, p.listen, "PROXY_ADMIN_LISTEN", s.cfg.Admin.Network, s.cfg.Admin.Address, s.cfg.SocketMode); err != nil {
			return err
		}
	}
	s.adminAt = s.adminListener.Addr()
	return nil
}

// closeListeners closes the listeners after a failed start.
func (s *instance) closeListeners() (err error) {
	for _, l := range s.dataListeners {
		err = errors.Join(err, l.Close())
	}
	for _, l := range s.intercept.listeners {
		err = errors.Join(err, l.Close())
	}
	if s.adminListener != nil {
		err = errors.Join(err, s.adminListener.Close())
	}
	return err
}

// listen opens the data listeners that a variable configures.
func (s *instance) listen(ctx context.Context, p Env, variable string, addresses []config.Address, withTLS bool) error {
	for _, a := range addresses {
		l, err := server.Listen(ctx, p.listen, variable, a.Network, a.Address, s.cfg.SocketMode)
		if err != nil {
			return err
		}
		s.dataListeners = append(s.dataListeners, dataListener{l, withTLS})
	}
	return nil
}

// tlsConfig returns the configuration for PROXY_TLS_LISTEN; nil if that is not set. It looks
// up the certificate for each handshake, since the file may change.
func (s *instance) tlsConfig() *tls.Config {
	switch {
	case len(s.cfg.TLSListen) == 0:
		return nil
	case s.cfg.TLS.IsZero():
		return s.authorityTLS()
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cfg.TLS.Certificate(), nil },
	}
}

// authorityTLS returns a configuration with certificates from the interception CA. A client
// that sends no server name gets a certificate for the IP address that it connected to.
func (s *instance) authorityTLS() *tls.Config {
	c := s.intercept.authority.TLSConfig("localhost")
	byName := c.GetCertificate
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if address, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok && hello.ServerName == "" {
			if certificate, err := s.intercept.authority.Certificate(address.IP.String()); err == nil {
				return certificate, nil
			}
		}
		return byName(hello)
	}
	return c
}

func (s *instance) newServer(base context.Context, h http.Handler, limits server.Limits) *server.Server {
	return server.New(server.Options{
		Handler: h, Context: base, Limits: limits, TLS: s.tlsConfig(), ErrorLog: s.tel.StdLog("debug"),
		Reject: func(r server.Rejection) []byte { return s.rejectMalformed(r, limits.MaxHeaderBytes) },
		AcceptFailed: func(err error) {
			s.tel.Logger().Warn("accept failed", "error", err, "detail", `If the error is "too many open files", raise ulimit -n.`)
		},
	})
}

// rejectMalformed returns the error response to a request that net/http rejects; nil to keep
// net/http's response.
func (s *instance) rejectMalformed(r server.Rejection, maxHeaderBytes int) []byte {
	var id string
	var p *problem.Problem
	switch {
	case r.SpeaksTLS:
		p = problem.New(event.BadRequest, "This port speaks plain HTTP, and the client spoke TLS. Use http:// in the client's base URL, or set PROXY_TLS_LISTEN.")
	case r.SpeaksPlain:
		p = problem.New(event.BadRequest, "This port speaks TLS, and the client spoke plain HTTP. Use https:// in the client's base URL, or the port of PROXY_LISTEN.")
	case r.Status == http.StatusBadRequest:
		p = problem.New(event.BadRequest, "The request is not valid HTTP. Send one Host header, and escape spaces and percent signs in the path and query.")
	case r.Status == http.StatusRequestHeaderFieldsTooLarge:
		p = problem.New(event.HeadersTooLarge, "The request headers are larger than %d bytes. Send less; on the data port you can raise PROXY_MAX_HEADER_BYTES.", maxHeaderBytes)
	default:
		return nil
	}
	if r.SpeaksTLS || r.SpeaksPlain {
		s.hintAtTLS(r, p.Detail)
	}
	if !r.ClientClosed { // the client sent no request otherwise
		id = s.tel.Malformed(r.Peer, p.Code)
	}
	return p.Wire(id)
}

// hintInterval is the minimum time between two messages of hintAtTLS.
const hintInterval = time.Minute

// hintAtTLS logs that a client speaks TLS to a plain port, or the reverse. Since clients keep
// retrying, it logs once per hintInterval.
func (s *instance) hintAtTLS(r server.Rejection, detail string) {
	now, last := time.Now().UnixNano(), s.hintedAt.Load()
	if last != 0 && now-last < int64(hintInterval) || !s.hintedAt.CompareAndSwap(last, now) {
		return
	}
	s.tel.Logger().Warn("protocol mismatch", "peer", r.Peer.String(), "detail", detail)
}

func (s *instance) adminOptions(actions []admin.Action) admin.Options {
	o := admin.Options{
		Accounts: s.accountStates,
		Started:  s.started,
		Health:   s.health.Health,
		Draining: s.draining.Load,
		Metrics:  s.tel.Metrics(),
		Status:   s.status,
		Support:  s.support,
		Local:    s.guard.WrapAdmin,
		Demo:     actions,
	}
	if s.intercept.authority != nil {
		o.CA = s.intercept.authority.PEM
	}
	if s.cfg.QuitEndpoint {
		o.Quit = sync.OnceFunc(func() { close(s.quit) })
	}
	return o
}

// run serves until it must stop, and then drains.
func (s *instance) run(ctx context.Context, signals <-chan os.Signal) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	defer s.cut(nil)
	owned.Go(func() { s.accounts.run(running) })
	owned.Go(func() { s.report(running) })
	owned.Go(func() { s.health.Run(running, s.tel.HealthChanged) })
	owned.Go(func() { s.reload(running) })
	owned.Go(func() { tidy(running) })
	failed := make(chan error, len(s.dataListeners)+len(s.intercept.listeners)+1)
	for _, l := range s.dataListeners {
		serve := s.data.Serve
		if l.tls {
			serve = s.data.ServeTLS
		}
		owned.Go(func() { failed <- serve(l) })
	}
	for _, l := range s.intercept.listeners {
		owned.Go(func() { failed <- s.intercept.server.Serve(l) })
	}
	if s.admin != nil {
		owned.Go(func() { failed <- s.admin.Serve(s.adminListener) })
	}
	s.announce()
	var err error
	hurried := true // the next signal cuts in-flight requests
	select {
	case <-ctx.Done():
	case <-signals:
	case <-s.quit:
		hurried = false
	case err = <-failed:
		err = fmt.Errorf("serving: %w", err)
		s.tel.Logger().Error("listener failed", "error", err)
	}
	return errors.Join(err, s.drain(signals, hurried))
}

// configurationWarning is the log message for settings that are valid but probably a
// mistake.
const configurationWarning = "configuration warning"

func (s *instance) announce() {
	log := s.tel.Logger()
	attrs := []any{"listen", s.dataListeners[0].String()}
	if all := s.accounts.list(); len(all) == 1 {
		attrs = append(attrs, "upstream", all[0].baseURL.String(), "credentials", all[0].origin)
	} else {
		attrs = append(attrs, "accounts", strings.Join(convert(all, func(one *mimecastAccount) string { return one.name }), ","))
	}
	if !s.cfg.Clients.IsZero() {
		attrs = append(attrs, "clients", len(s.cfg.Clients.Current().Clients))
	}
	if more := s.dataListeners[1:]; len(more) > 0 {
		addresses := convert(more, dataListener.String)
		attrs = append(attrs, "also_listening", strings.Join(addresses, ","))
	}
	if len(s.intercept.listeners) > 0 {
		addresses := convert(s.intercept.listeners, func(l net.Listener) string { return l.Addr().String() })
		attrs = append(attrs, "intercepting", strings.Join(addresses, ","))
	}
	if s.adminAt != nil {
		attrs = append(attrs, "admin", s.adminAt.String())
	}
	log.Info("serving", attrs...)
	for _, w := range s.cfg.Warnings {
		log.Warn(configurationWarning, "detail", w)
	}
}

// drain reports not ready, and then waits for in-flight requests with [server.Server.Drain].
// Requests that remain at the timeout are cut. A signal cuts them earlier: the first one if
// hurried, otherwise the second one.
func (s *instance) drain(signals <-chan os.Signal, hurried bool) error {
	s.draining.Store(true)
	ctx, stopWatching := s.untilCut(signals, hurried)
	defer stopWatching()
	if s.supervisor.Stopping != nil {
		s.supervisor.Stopping()
	}
	log := s.tel.Logger()
	log.Info("draining", "in_flight", s.guard.InFlight(), "delay", s.cfg.ShutdownDelay.String(), "timeout", s.cfg.ShutdownTimeout.String())
	inFlight, busyTunnels := 0, 0
	abort := sync.OnceFunc(func() {
		inFlight = s.guard.InFlight()
		if s.intercept.proxy != nil {
			busyTunnels = s.intercept.proxy.Busy()
		}
		s.cut(problem.New(event.ShuttingDown, "The proxy is shutting down, and PROXY_SHUTDOWN_TIMEOUT or a second signal ended the wait."))
	})
	tunnels := make(chan error, 1)
	go func() { tunnels <- s.drainInterception(ctx, abort) }()
	err := s.data.Drain(ctx, server.Drain{Delay: s.cfg.ShutdownDelay, Timeout: s.cfg.ShutdownTimeout, Abort: abort})
	err = errors.Join(err, <-tunnels)
	switch {
	case busyTunnels > 0:
		err = fmt.Errorf("%d requests were cut, and %d tunnels to other hosts: %w", inFlight, busyTunnels, err)
	case inFlight > 0:
		err = fmt.Errorf("%d requests were cut: %w", inFlight, err)
	default:
		err = nil // only connections without a request remained
	}
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	s.accounts.closeIdleConnections()
	s.download.CloseIdleConnections()
	if err == nil {
		log.Info("drained")
	}
	return err
}

// untilCut returns a context that ends at the signal that cuts in-flight requests. After
// /quitquitquit, Kubernetes also sends SIGTERM, which must not cut them. Call stop when the
// drain has ended.
func (s *instance) untilCut(signals <-chan os.Signal, hurried bool) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		for ; ; hurried = true {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			if hurried {
				break
			}
			s.tel.Logger().Info("signal received while draining", "detail", "The next one cuts in-flight requests.")
		}
		inFlight := s.guard.InFlight()
		cancel()
		if inFlight > 0 {
			s.tel.Logger().Warn("in-flight requests cut", "in_flight", inFlight, "detail", "A second signal arrived.")
		}
	}()
	return ctx, func() { cancel(); <-watching }
}
