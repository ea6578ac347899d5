package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// console asks questions on a terminal. While it is open the terminal shows nothing of
// what is typed by itself, so that a secret that is pasted early is not shown either.
type console struct {
	*term.Terminal
	restore func() error

	ctx      context.Context
	received chan []byte // from the terminal
	rest     []byte      // of what was received
	reading  sync.WaitGroup
	stop     context.CancelFunc

	// What conceal took from the line being read, before and after what is shown.
	before, after []rune
	conceals      bool
}

const (
	keyInterrupt = 3 // Ctrl-C: the terminal sends no signal while the console is open
	// pollTime is how long a look for input takes; the console closes within it.
	pollTime = 100 * time.Millisecond
	// maxAhead bounds what is typed while nothing is asked, in reads.
	maxAhead = 256
	// maxLines bounds what is pasted in place of one value.
	maxLines = 30
)

// errInterrupted says that somebody pressed Ctrl-C, or Ctrl-D.
var errInterrupted = errors.New("stopped")

// openConsole opens a terminal for questions. Ctrl-C calls interrupt, whatever is being
// done. Close it to restore the terminal.
func openConsole(ctx context.Context, in, out *os.File, interrupt func()) (*console, error) {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	c := &console{restore: func() error { return term.Restore(int(in.Fd()), state) }, received: make(chan []byte, maxAhead)}
	c.ctx, c.stop = context.WithCancel(ctx)
	c.Terminal = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{readerFunc(c.read), out}, "")
	if width, height, err := term.GetSize(int(out.Fd())); err == nil && width > 0 {
		_ = c.SetSize(width, height) // only redraws, and nothing was drawn
	}
	c.AutoCompleteCallback = c.conceal
	c.reading.Go(func() { c.receive(in, interrupt) })
	return c, nil
}

// Close restores the terminal.
func (c *console) Close() error {
	c.stop()
	c.reading.Wait()
	return c.restore()
}

// receive hands on what the terminal sends, until the console closes.
func (c *console) receive(in *os.File, interrupt func()) {
	defer close(c.received)
	for c.ctx.Err() == nil {
		ready, err := waitReadable(in, pollTime)
		if err == nil && !ready {
			continue
		}
		buf := make([]byte, 4096)
		n, err := in.Read(buf)
		if bytes.IndexByte(buf[:n], keyInterrupt) >= 0 {
			interrupt()
			return
		}
		if err != nil {
			return
		}
		select {
		case c.received <- buf[:n]:
		case <-c.ctx.Done():
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// read is the terminal's input.
func (c *console) read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case received, ok := <-c.received:
			if !ok {
				return 0, errInterrupted
			}
			c.rest = received
		case <-c.ctx.Done():
			return 0, errInterrupted
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// isShown reports whether a character of a client ID may be shown as it is typed. After
// any other one a secret may follow.
func isShown(r rune) bool {
	return r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r))
}

// conceal takes what may belong to a secret from the line as it is typed.
func (c *console) conceal(line string, pos int, key rune) (string, int, bool) {
	switch {
	case !c.conceals || len(c.after) == 0 && isShown(key):
		return "", 0, false
	case line == "" && len(c.after) == 0 && strings.ContainsRune("\"'\ufeff \t", key):
		c.before = append(c.before, key)
	default:
		c.after = append(c.after, key)
	}
	return line, pos, true
}

// ask asks for a line, which is shown as far as it looks like an identifier. JSON is
// read to its end.
func (c *console) ask(prompt string) (string, error) {
	c.conceals = true
	defer func() { c.conceals, c.before, c.after = false, nil, nil }()
	c.SetPrompt(prompt)
	line, err := c.ReadLine()
	if err != nil {
		return "", asInterrupted(err)
	}
	line = string(c.before) + line + string(c.after)
	if !strings.HasPrefix(strings.TrimSpace(line), "{") {
		return line, nil
	}
	for range maxLines {
		if strings.Contains(line, "}") {
			break
		}
		more, err := c.askHidden("")
		if err != nil {
			return "", err
		}
		line += "\n" + more
	}
	return line, nil
}

// askHidden asks for a line of which nothing is shown.
func (c *console) askHidden(prompt string) (string, error) {
	line, err := c.ReadPassword(prompt)
	return line, asInterrupted(err)
}

func asInterrupted(err error) error {
	if errors.Is(err, io.EOF) {
		return errInterrupted
	}
	return err
}

// terminalOf returns the first of the files behind the writers that is a terminal.
func terminalOf(writers ...io.Writer) *os.File {
	for _, w := range writers {
		if f, ok := inheritable(w).(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return f
		}
	}
	return nil
}

// terminalInput returns the standard input if it is a terminal.
func (p Env) terminalInput() *os.File {
	if f, ok := p.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// without returns an environment without variables that a function names.
func without(environ []string, remove func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(environ), remove)
}
