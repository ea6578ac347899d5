// Package app wires the other packages together and runs them. Each exported method of [Env]
// is a command. No other package depends on all the others.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"

	"mimecast-proxy/config"
	"mimecast-proxy/secret"
	"mimecast-proxy/server"
	"mimecast-proxy/telemetry"
)

// Env is a command's environment: its variables, streams, signals and listeners.
type Env struct {
	// Environ has the environment variables, in the form of os.Environ.
	Environ        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Redactor gets the current secrets. Set it if something else writes to Stderr
	// through the same redactor; nil: the command uses its own.
	Redactor *telemetry.Redactor
	// Terminal reports whether Stderr is a terminal.
	Terminal bool
	// Signals delivers the signals that end the command. The first one starts a drain,
	// the second one cuts in-flight requests. nil: only the context ends the command.
	Signals <-chan os.Signal
	// Reread delivers the signals on which a running proxy reads all files at once; nil:
	// there are none. See [RereadSignals].
	Reread <-chan os.Signal
	// Supervisor is the service manager that runs Serve. Other commands ignore it.
	Supervisor server.Supervisor
	// userEnviron is the environment for the user's programs, where the demo changes
	// Environ; nil: Environ.
	userEnviron []string
	// tunnelPassword is the password of Run's forward proxy; zero: the forward proxy asks
	// for an API key, if one is required.
	tunnelPassword secret.Text
	// Listen opens a listener; nil: the zero net.ListenConfig does.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

func (p Env) listen(ctx context.Context, network, address string) (net.Listener, error) {
	if p.Listen != nil {
		return p.Listen(ctx, network, address)
	}
	return (&net.ListenConfig{}).Listen(ctx, network, address)
}

// untilSignal returns a context that ends at the first signal, for commands that have
// nothing to drain. Call stop when the command is done.
func (p Env) untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case sig := <-p.Signals:
			cancel(fmt.Errorf("stopped by a signal: %v", sig))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-watching }
}

// The program's exit codes: success, failure, and wrong usage or configuration.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// ExitError is an error with an exit code for the program.
type ExitError struct {
	Code int
	// Err is nil if the command has already printed what went wrong.
	Err error
}

// Error returns the text of the cause, or an empty string without one.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the cause, or nil.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode returns the program's exit code for err: that of an [*ExitError], ExitUsage for a
// [*config.Error], ExitFailed for other errors, and ExitOK for nil.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return ExitUsage
	}
	return ExitFailed
}

// Version is the build's version. The release build sets it at link time; empty: Build takes
// the module version that Go records, or "devel".
var Version = ""

// Revision is the commit of this build. The release build sets it at link time; empty: Build
// takes the commit that Go records for a checkout.
var Revision = ""

// Build returns the version and revision of this program, and the version of Go. An unknown
// revision is "unknown"; "-modified" marks a checkout with uncommitted changes.
func Build() (version, revision, goVersion string) {
	revision = cmp.Or(Revision, "unknown")
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(Version, "devel"), revision, runtime.Version()
	}
	for _, s := range info.Settings {
		switch {
		case Revision != "":
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			revision += "-modified"
		}
	}
	return cmp.Or(Version, info.Main.Version, "devel"), revision, info.GoVersion
}
