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
	"unicode/utf8"

	"golang.org/x/term"
)

// console asks questions on a terminal. While it is open, the terminal's echo is off, so that
// a pasted secret never shows. The console itself prints input that cannot be a secret.
type console struct {
	out     io.Writer
	restore func() error

	ctx      context.Context
	received chan []byte // from the terminal
	rest     []byte      // received but not read yet
	reading  sync.WaitGroup
	stop     context.CancelFunc
}

const (
	// pollTime is how long one poll for input takes, and so the longest wait of Close.
	pollTime = 100 * time.Millisecond
	// maxAhead bounds the input typed ahead, in reads.
	maxAhead = 256
	// maxLine bounds a line, in bytes, and maxLines the number of pasted lines of JSON.
	maxLine  = 64 << 10
	maxLines = 30
)

// The keys with a function. In raw mode, Ctrl-C sends a byte and no signal.
const (
	keyInterrupt  = 3 // Ctrl-C
	keyEnd        = 4 // Ctrl-D
	keyBackspace  = 8
	keyDeleteWord = 0x17 // Ctrl-W
	keyDeleteLine = 0x15 // Ctrl-U
	keyEscape     = 0x1b
	keyDelete     = 0x7f
)

// errInterrupted says that the user pressed Ctrl-C or Ctrl-D.
var errInterrupted = errors.New("stopped")

// openConsole opens a terminal for questions. Ctrl-C and a closed terminal call interrupt at
// any time. Call Close to restore the terminal.
func openConsole(ctx context.Context, in, out *os.File, interrupt func()) (*console, error) {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	c := &console{out: out, restore: func() error { return term.Restore(int(in.Fd()), state) }, received: make(chan []byte, maxAhead)}
	c.ctx, c.stop = context.WithCancel(ctx)
	c.reading.Go(func() { c.receive(in, interrupt) })
	return c, nil
}

// Close stops reading and restores the terminal.
func (c *console) Close() error {
	c.stop()
	c.reading.Wait()
	return c.restore()
}

// receive passes the terminal's input on until the console closes.
func (c *console) receive(in *os.File, interrupt func()) {
	defer close(c.received)
	for c.ctx.Err() == nil {
		ready, err := waitReadable(in, pollTime)
		if err == nil && !ready {
			continue
		}
		buf := make([]byte, 4096)
		n, err := in.Read(buf)
		if err != nil || bytes.IndexByte(buf[:n], keyInterrupt) >= 0 {
			interrupt()
			return
		}
		select {
		case c.received <- buf[:n]:
		default: // drop excessive type-ahead
		}
	}
}

// next waits for the next byte of input.
func (c *console) next() (byte, error) {
	if c.ctx.Err() != nil {
		return 0, errInterrupted
	}
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
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b, nil
}

// forget discards the input typed ahead.
func (c *console) forget() {
	c.rest = nil
	for {
		select {
		case _, ok := <-c.received:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// print writes a text, with the CR LF that a terminal in raw mode needs.
func (c *console) print(text string) {
	_, _ = io.WriteString(c.out, strings.ReplaceAll(text, "\n", "\r\n")) // the next read reports a closed terminal
}

// ask asks for a line. It shows the beginning of the input for as long as may returns true;
// nil: it shows nothing.
func (c *console) ask(prompt string, may func(beginning string) bool) (string, error) {
	c.print(prompt)
	line, err := c.readLine(may)
	c.print("\n")
	return line, err
}

// readLine reads a line, or the lines of a JSON object.
func (c *console) readLine(may func(string) bool) (string, error) {
	text, err := c.readOne(may)
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return text, err
	}
	for range maxLines {
		if err != nil || strings.Contains(text, "}") {
			break
		}
		var more string
		more, err = c.readOne(nil)
		text += "\n" + more
	}
	return text, err
}

// readOne reads up to Enter. Backspace, Ctrl-W and Ctrl-U edit the line. It ignores other
// control keys, and the sequences that mark a bracketed paste.
func (c *console) readOne(may func(string) bool) (string, error) {
	l := line{console: c, may: may}
	for {
		b, err := c.next()
		if err != nil {
			return "", err
		}
		switch {
		case b == '\r' || b == '\n':
			c.skipLineFeed(b)
			return string(l.text), nil
		case b == keyEnd && len(l.text) == 0:
			return "", errInterrupted
		case b == keyBackspace || b == keyDelete:
			l.cut(len(l.text) - lastRune(l.text))
		case b == keyDeleteLine:
			l.cut(0)
		case b == keyDeleteWord:
			l.cut(len(bytes.TrimRight(l.text[:bytes.LastIndexByte(bytes.TrimRight(l.text, " "), ' ')+1], " ")))
		case b == keyEscape:
			err = c.skipSequence()
		case b >= ' ' || b == '\t':
			l.add(b)
		}
		if err != nil {
			return "", err
		}
	}
}

// skipLineFeed drops the LF of a CR LF.
func (c *console) skipLineFeed(first byte) {
	if first == '\r' && len(c.rest) > 0 && c.rest[0] == '\n' {
		c.rest = c.rest[1:]
	}
}

// skipSequence drops an escape sequence after ESC: a key such as an arrow, or a paste mark.
func (c *console) skipSequence() error {
	b, err := c.next()
	if err != nil || b != '[' && b != 'O' {
		return err
	}
	for err == nil {
		if b, err = c.next(); b >= 0x40 && b <= 0x7e { // ECMA-48, section 5.4
			break
		}
	}
	return err
}

// line is a line of input that the user is typing.
type line struct {
	console *console
	may     func(string) bool
	text    []byte
	shown   int // bytes of text that the terminal shows
}

func (l *line) add(b byte) {
	if len(l.text) >= maxLine {
		return
	}
	l.text = append(l.text, b)
	if l.may != nil && l.shown == len(l.text)-1 && b < utf8.RuneSelf && b > ' ' && l.may(string(l.text)) {
		l.shown++
		l.console.print(string(b))
	}
}

// cut shortens the line to n bytes.
func (l *line) cut(n int) {
	l.text = l.text[:n]
	for ; l.shown > n; l.shown-- {
		l.console.print("\b \b")
	}
}

func lastRune(text []byte) int {
	_, size := utf8.DecodeLastRune(text)
	return size
}

// terminalOf returns the first terminal among the files behind the writers, or nil.
func terminalOf(writers ...io.Writer) *os.File {
	for _, w := range writers {
		if f, ok := inheritable(w).(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return f
		}
	}
	return nil
}

// terminalInput returns standard input if it is a terminal, or else nil.
func (p Env) terminalInput() *os.File {
	if f, ok := p.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// without returns a copy of an environment without the variables for which remove is true.
func without(environ []string, remove func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(environ), remove)
}
