package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"mimecast-proxy/service"
	"mimecast-proxy/token"
)

const (
	// firstToken bounds how long Run waits for a token before it starts the
	// command regardless; its requests then get 503 until there is one.
	firstToken = 15 * time.Second
	// Codes of POSIX shells, for a command that could not be started.
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignalled     = 128 // plus the signal's number
)

// Run starts the proxy on a free loopback port, runs a command with
// MIMECAST_BASE_URL and MIMECAST_PROXY_URL leading to it, and returns when the
// command has ended; an [*ExitError] carries its code. The command's
// environment has no secret of Mimecast's.
func (p Process) Run(ctx context.Context, argv []string) error {
	p.Keeper = service.Keeper{} // whose program the command is, not the proxy
	environ := slices.DeleteFunc(slices.Clone(p.Environ), named("PROXY_LISTEN", "PROXY_ADMIN_LISTEN"))
	environ = append(environ, "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=off")
	if !slices.ContainsFunc(environ, named("PROXY_LOG_LEVEL")) {
		environ = append(environ, "PROXY_LOG_LEVEL=warn") // stderr is the command's
	}
	cfg, err := configure(environ)
	if err != nil {
		return err
	}
	s, err := p.newServer(ctx, cfg)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.run(serving, nil) }()
	ended := s.runCommand(ctx, p, argv)
	stop()
	if err := <-served; err != nil {
		s.tel.Logger().Warn("stopping the proxy", "error", err)
	}
	return ended
}

func (s *server) runCommand(ctx context.Context, p Process, argv []string) error {
	if err := s.awaitToken(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, p.Stdout, p.Stderr
	cmd.Env = childEnviron(p.Environ, "http://"+s.dataAddr.String())
	if err := cmd.Start(); err != nil {
		return notStarted(err)
	}
	ended := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		p.forward(cmd.Process, ended)
	}()
	err := cmd.Wait()
	close(ended)
	<-forwarded
	return exitOf(cmd.ProcessState, err)
}

// awaitToken waits until a token is held, so that the command's first request
// meets no cold start. Credentials that are refused end it here.
func (s *server) awaitToken(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstToken)
	defer cancel()
	_, err := s.source.Token(ctx)
	if e, ok := errors.AsType[*token.Error](err); ok && e.Kind == token.Refused {
		return fmt.Errorf("the command was not started: %w", err)
	}
	if err != nil {
		s.tel.Logger().Warn("there is no token yet; the command is started all the same", "error", err)
	}
	return nil
}

// childEnviron is the command's environment: ours, less every secret, with the
// proxy in Mimecast's place.
func childEnviron(environ []string, url string) []string {
	child := slices.DeleteFunc(slices.Clone(environ), named(
		"MIMECAST_CLIENT_ID", "MIMECAST_CLIENT_ID_FILE", "MIMECAST_CLIENT_SECRET", "MIMECAST_CLIENT_SECRET_FILE",
		"PROXY_API_KEY", "PROXY_API_KEY_FILE", "MIMECAST_BASE_URL", "MIMECAST_TOKEN_URL", "MIMECAST_REGION", "MIMECAST_PROXY_URL"))
	return append(child, "MIMECAST_BASE_URL="+url, "MIMECAST_PROXY_URL="+url)
}

// named reports whether a variable has one of the names.
func named(names ...string) func(string) bool {
	return func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(names, name)
	}
}

// forward hands signals on to the command until it has ended. A terminal's
// Ctrl-C has reached the command already.
func (p Process) forward(to *os.Process, ended <-chan struct{}) {
	for {
		select {
		case sig := <-p.Signals:
			if !p.Terminal || sig != os.Interrupt {
				_ = to.Signal(sig) // it may have ended just now
			}
		case <-ended:
			return
		}
	}
}

func notStarted(err error) error {
	code := exitNotExecutable
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	return &ExitError{code, fmt.Errorf("starting the command: %w", err)}
}

// exitOf returns what the command's end means for our own.
func exitOf(state *os.ProcessState, err error) error {
	if state == nil {
		return fmt.Errorf("waiting for the command: %w", err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &ExitError{Code: exitSignalled + int(status.Signal())}
	}
	if code := state.ExitCode(); code != 0 {
		return &ExitError{Code: code}
	}
	return nil
}
