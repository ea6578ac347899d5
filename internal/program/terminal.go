//go:build unix

package program

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// Terminal is a run of the program on a separate terminal.
type Terminal struct {
	*Program
	// Screen is all output that the terminal has received.
	Screen Output

	t     testing.TB
	user  *os.File // the user's side
	tty   *os.File // the program's side
	modes *term.State
	seen  int // bytes of Screen up to the last awaited text
}

// StartOnTerminal starts the program with a terminal as its standard input, output and
// error.
func StartOnTerminal(t testing.TB, environ []string, args ...string) *Terminal {
	t.Helper()
	cmd := exec.Command(Binary(), args...) //nolint:noctx // the end of t kills it
	cmd.Env = environ
	return StartCmdOnTerminal(t, cmd)
}

// StartCmdOnTerminal is StartOnTerminal for a prepared command.
func StartCmdOnTerminal(t testing.TB, cmd *exec.Cmd) *Terminal {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &Terminal{t: t, user: user, tty: tty}
	x.modes = x.currentModes()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(&x.Screen, user)
	}()
	t.Cleanup(func() { // runs after the program has ended
		if err := errors.Join(tty.Close(), user.Close()); err != nil {
			t.Error(err)
		}
		<-shown
		if t.Failed() {
			t.Logf("the screen:\n%s", x.Screen.String())
		}
	})
	x.Program = StartCmd(t, cmd)
	return x
}

func (x *Terminal) currentModes() *term.State {
	x.t.Helper()
	modes, err := term.GetState(int(x.tty.Fd()))
	if err != nil {
		x.t.Fatal(err)
	}
	return modes
}

// AwaitText waits until the terminal shows a text after the previously awaited one.
func (x *Terminal) AwaitText(text string) {
	x.t.Helper()
	x.Screen.Await(x.t, fmt.Sprintf("%q on the screen", text), func(shown string) bool {
		at := strings.Index(shown[x.seen:], text)
		if at < 0 {
			return false
		}
		x.seen += at + len(text)
		return true
	})
}

// Type types keys or pastes text; the terminal sees no difference.
func (x *Terminal) Type(keys string) {
	x.t.Helper()
	if _, err := x.user.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// Answer waits for a question, then types an answer and Enter.
func (x *Terminal) Answer(question, answer string) {
	x.t.Helper()
	x.AwaitText(question)
	x.Type(answer + "\r")
}

// ModesRestored reports whether the terminal's modes are the same as before the start.
func (x *Terminal) ModesRestored() bool {
	x.t.Helper()
	return *x.currentModes() == *x.modes
}
