package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/server"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
)

const (
	// firstToken is how long Run waits for a token before it starts the command without
	// one. Requests then get 503 until there is a token.
	firstToken = 15 * time.Second
	// Exit codes that POSIX shells use: not executable, not found, ended by a signal.
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignalled     = 128 // plus the signal's number
)

// Run starts the proxy on a free loopback port and runs a command with MIMECAST_BASE_URL and
// MIMECAST_PROXY_URL set to it. The command's environment contains no Mimecast secret. With
// interception, the command's calls to Mimecast's addresses also go through the proxy.
//
// Run returns when the command has ended. If the command failed, the error is an [*ExitError]
// with its exit code. After a signal, the code is 128 plus the signal's number.
func (p Env) Run(ctx context.Context, argv []string, interception bool) error {
	p.Supervisor = server.Supervisor{} // the command is the supervised program, not the proxy
	environ := without(p.Environ, named("PROXY_LISTEN", "PROXY_ADMIN_LISTEN", "PROXY_TLS_LISTEN", "PROXY_TLS_CERT_FILE", "PROXY_TLS_KEY_FILE", "PROXY_INTERCEPT_LISTEN", "PROXY_INTERCEPT_CA_DIR"))
	environ = append(environ, "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=off")
	if !slices.ContainsFunc(environ, named("PROXY_LOG_LEVEL")) {
		environ = append(environ, "PROXY_LOG_LEVEL=warn") // the command uses stderr
	}
	if interception {
		p.tunnelPassword = newPassword()
		environ = append(environ, "PROXY_INTERCEPT_LISTEN=127.0.0.1:0")
		if !slices.ContainsFunc(environ, named("PROXY_API1")) {
			environ = append(environ, "PROXY_API1=true")
		}
	}
	cfg, err := p.configure(environ)
	if err != nil {
		return err
	}
	if err := rejectClients(cfg, "run serves one command"); err != nil {
		return err
	}
	cfg.ShutdownDelay = 0 // no load balancer routes to it
	// Unknown variables may be the command's.
	cfg.Warnings = slices.DeleteFunc(cfg.Warnings, func(w string) bool { return slices.Contains(cfg.Foreign, w) })
	s, err := p.newInstance(ctx, cfg)
	if err != nil {
		return err
	}
	if !cfg.APIKey.IsZero() {
		s.tel.Logger().Warn(configurationWarning, "detail", "PROXY_API_KEY is set: the command must send it with each request, but its environment does not contain it.")
	}
	more := make(chan os.Signal, 8)
	signal.Notify(more, forwardable...)
	defer signal.Stop(more)
	serving, stop := context.WithCancel(ctx)
	served, late := make(chan error, 1), make(chan os.Signal, 1)
	go func() { served <- s.run(serving, late) }()
	ended := s.runCommand(ctx, p, more, argv)
	stop()
	for {
		select {
		case sig := <-p.Signals: // cuts the drain
			select {
			case late <- sig:
			default:
			}
		case err := <-served:
			if err != nil {
				s.tel.Logger().Warn("shutdown incomplete", "error", err)
			}
			return ended
		}
	}
}

// rejectClients returns an error if PROXY_CLIENTS_FILE is set. Its clients have keys, and the
// only client of run or demo has none.
func rejectClients(cfg config.Config, because string) error {
	if cfg.Clients.IsZero() {
		return nil
	}
	return &ExitError{ExitUsage, errors.New("PROXY_CLIENTS_FILE is for a gateway, and " + because + "; unset it")}
}

func (s *instance) runCommand(ctx context.Context, p Env, more <-chan os.Signal, argv []string) error {
	if err := s.awaitToken(ctx, p.Signals); err != nil {
		return err
	}
	environ, forget, err := s.commandEnviron(p.Environ)
	if err != nil {
		return fmt.Errorf("the command was not started: %w", err)
	}
	defer forget()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, p.Stdout, inheritable(p.Stderr)
	cmd.Env = environ
	if err := cmd.Start(); err != nil {
		return notStarted(argv, err)
	}
	ended := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		p.forward(cmd.Process, more, ended)
	}()
	err = cmd.Wait()
	close(ended)
	<-forwarded
	return exitOf(cmd, err)
}

// commandEnviron returns the command's environment, and a func that removes the temporary files
// that it names.
func (s *instance) commandEnviron(environ []string) (_ []string, forget func(), _ error) {
	child := childEnviron(environ, "http://"+s.dataAddr.String())
	if s.intercept.proxy == nil {
		return child, func() {}, nil
	}
	trust, err := newTrustFolder(s.intercept.authority, environ)
	if err != nil {
		return nil, nil, err
	}
	if entry := exempted(child); entry != "" {
		s.tel.Logger().Warn("interception bypassed by NO_PROXY", "entry", entry)
	}
	return trust.environ(child, s.intercept.listeners[0].Addr().String(), s.intercept.password), func() {
		if err := trust.remove(); err != nil {
			s.tel.Logger().Warn("certificate removal failed", "folder", trust.dir, "error", err)
		}
	}, nil
}

// inheritable returns the file behind w, so that the command can write to it directly. If
// there is none, it returns w.
func inheritable(w io.Writer) io.Writer {
	if log, ok := w.(*telemetry.LogWriter); ok {
		if f, ok := log.Unwrap().(*os.File); ok {
			return f
		}
	}
	return w
}

// awaitToken waits for a token, so that the command's first request does not have to. It
// returns an error if Mimecast rejects the credentials or a signal arrives.
func (s *instance) awaitToken(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, firstToken)
	defer cancel()
	var err error // the goroutine's until asked is closed
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		err = s.accounts.awaitTokens(ctx)
	}()
	select {
	case <-asked:
	case sig := <-signals:
		cancel()
		<-asked
		return &ExitError{exitOfSignal(sig), fmt.Errorf("the command was not started: %v", sig)}
	}
	if e, ok := errors.AsType[*token.Error](err); ok && e.Outcome == event.TokenRefused {
		return fmt.Errorf("the command was not started: %w", err)
	}
	if err != nil {
		s.tel.Logger().Warn("command started without a token", "error", err)
	}
	return nil
}

// childEnviron returns environ for the command: without secrets, with the proxy's URL as base
// URL, and with a direct connection to the proxy.
func childEnviron(environ []string, url string) []string {
	child := without(environ, named(append(credentialVariables[:len(credentialVariables):len(credentialVariables)],
		"MIMECAST_PROFILE", "PROXY_API_KEY", "PROXY_API_KEY_FILE", "PROXY_CLIENTS_FILE", "MIMECAST_BASE_URL", "MIMECAST_TOKEN_URL", "MIMECAST_REGION", "MIMECAST_PROXY_URL")...))
	child = withoutCorporateProxy(child)
	return append(child, "MIMECAST_BASE_URL="+url, "MIMECAST_PROXY_URL="+url)
}

// named returns a func that reports whether a variable NAME=VALUE has one of the names.
func named(names ...string) func(string) bool {
	return func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(names, name)
	}
}

// forward passes signals on to the command until it has ended. It skips signals from the
// terminal, which the command gets too.
func (p Env) forward(to *os.Process, more <-chan os.Signal, ended <-chan struct{}) {
	for {
		var sig os.Signal
		select {
		case sig = <-p.Signals:
		case sig = <-more:
		case <-ended:
			return
		}
		if !fromTerminal(sig) {
			_ = to.Signal(sig) // it may have ended just now
		}
	}
}

func exitOfSignal(sig os.Signal) int {
	if n, ok := sig.(syscall.Signal); ok {
		return exitSignalled + int(n)
	}
	return ExitFailed
}

// exitOf returns the error for the command's exit status; nil for 0.
func exitOf(cmd *exec.Cmd, err error) error {
	state := cmd.ProcessState
	if state == nil {
		return fmt.Errorf("waiting for the command: %w", err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &ExitError{Code: exitOfSignal(status.Signal())}
	}
	switch code := state.ExitCode(); code {
	case 0:
		return nil
	case exitNotFound, 2:
		if hasCarriageReturn(cmd.Path) {
			return &ExitError{code, errors.New(carriageReturn(cmd.Path))}
		}
		fallthrough
	default:
		return &ExitError{Code: code}
	}
}
