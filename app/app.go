// Package app wires the parts together and runs them: each exported method of
// [Env] is a command. It is the only package that knows all the others.
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

// Env is what a command has of the world outside.
type Env struct {
	// Environ are the variables, as os.Environ gives them.
	Environ        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Redactor gets the secrets in force, for what else is written to Stderr;
	// nil: nothing else is.
	Redactor *telemetry.Redactor
	// Terminal says whether Stderr is one.
	Terminal bool
	// Signals are those that end the command: the first drains, the second
	// cuts. nil means that only the context ends it.
	Signals <-chan os.Signal
	// Reread are signals that ask a running proxy to read all files at once; nil
	// means that none does. See [RereadSignals].
	Reread <-chan os.Signal
	// Supervisor keeps Serve running. The other commands do not use it.
	Supervisor server.Supervisor
	// userEnviron is for programs of the user's, if Environ is changed for the demo; nil:
	// Environ is.
	userEnviron []string
	// tunnelPassword protects the forward proxy of Run; zero: an API key does, if one is
	// required.
	tunnelPassword secret.Text
	// Listen opens a listener; nil means as net.ListenConfig does.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

func (p Env) listen(ctx context.Context, network, address string) (net.Listener, error) {
	if p.Listen != nil {
		return p.Listen(ctx, network, address)
	}
	return (&net.ListenConfig{}).Listen(ctx, network, address)
}

// untilSignal returns a context that a signal ends, for commands that have
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

// The exit codes of the contract.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// ExitError is an error that ends the program with its code.
type ExitError struct {
	Code int
	// Err is nil where everything was said already.
	Err error
}

// Error returns the text of the cause.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode returns the code that err ends the program with.
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

// Version is what this build calls itself. Releases set it when they link.
var Version = ""

// Revision is the commit that this build was made from. Releases set it when they link;
// empty means the one that Go records of a checkout.
var Revision = ""

// Build returns the version, the revision it was built from, and Go's version.
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
