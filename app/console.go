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

// console asks questions on a terminal. While it is open the terminal echoes nothing, so
// that a secret is not shown wherever and whenever it is pasted: the console shows what
// is known to be none.
type console struct {
	out     io.Writer
	restore func() error

	ctx      context.Context
	received chan []byte // from the terminal
	rest     []byte      // of what was received
	reading  sync.WaitGroup
	stop     context.CancelFunc
}

const (
	// pollTime is how long a look for input takes; the console closes within it.
	pollTime = 100 * time.Millisecond
	// maxAhead bounds what is typed while nothing is asked, in reads.
	maxAhead = 256
	// maxLine bounds a line, in bytes, and maxLines what is pasted in place of one.
	maxLine  = 64 << 10
	maxLines = 30
)

// The keys that mean something. The terminal sends no signal while the console is open.
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

// openConsole opens a terminal for questions. Ctrl-C and the terminal's end call
// interrupt, whatever is being done. Close it to restore the terminal.
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
		if err != nil || bytes.IndexByte(buf[:n], keyInterrupt) >= 0 {
			interrupt()
			return
		}
		select {
		case c.received <- buf[:n]:
		default: // nobody types so much while nothing is asked
		}
	}
}

// next returns the next byte that was typed.
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

// forget drops what was typed ahead.
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

// print writes a text with line ends as a terminal in raw mode needs them.
func (c *console) print(text string) {
	_, _ = io.WriteString(c.out, strings.ReplaceAll(text, "\n", "\r\n")) // what is read next reports a terminal that is gone
}

// ask asks for a line. Of what is typed it shows the beginning, as far as may says; nil:
// nothing.
func (c *console) ask(prompt string, may func(beginning string) bool) (string, error) {
	c.print(prompt)
	line, err := c.readLine(may)
	c.print("\n")
	return line, err
}

// readLine reads a line. JSON is read to its end.
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

// readOne reads up to Enter. Backspace, Ctrl-W and Ctrl-U edit; other keys that are no
// characters do nothing, and neither do the marks around what a terminal pastes.
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

// skipLineFeed drops the second byte of CR LF.
func (c *console) skipLineFeed(first byte) {
	if first == '\r' && len(c.rest) > 0 && c.rest[0] == '\n' {
		c.rest = c.rest[1:]
	}
}

// skipSequence drops what follows ESC: a key such as an arrow, or the mark of a paste.
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

// line is a line that is being typed.
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
