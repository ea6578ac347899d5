package telemetry

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxQueue limits the queued text, in bytes. The batch being written can take as
	// much again.
	maxQueue = 512 << 10
	// batchSize is the queue size, in bytes, from which a batch does not wait for
	// writeInterval.
	batchSize = 64 << 10
	// writeInterval is the time between two batches. The first line after a pause is
	// written at once.
	writeInterval = 50 * time.Millisecond
	// retryInterval is the pause before Close retries an output that is full.
	retryInterval = 10 * time.Millisecond
	// closeTimeout limits how long the process waits for its log at exit.
	closeTimeout = time.Second
)

// LogWriter is an io.Writer for a log that must not block the program. Write adds text
// to a bounded queue, and one goroutine writes it. Lines that do not fit are dropped
// and counted. The log reports them once it can be written again.
//
// Each call of Write must contain whole lines. They stay whole and in order. Secrets
// that the redactor knows are removed from each line. Create it with [NewLogWriter].
type LogWriter struct {
	out      io.Writer
	redactor *Redactor
	wake     chan struct{} // the queue has text
	urgent   chan struct{} // the queue has at least batchSize
	closing  chan struct{} // closed by Close
	done     chan struct{} // closed after the last write
	once     sync.Once
	dropped  atomic.Uint64

	mu    sync.Mutex
	queue []byte
	// unreported counts dropped lines that the log has not reported yet.
	unreported uint64
	ended      bool
	notice     func(lines uint64) string
	beforeEnd  func()

	// Only run's goroutine uses the following fields.
	batch    string
	reported uint64 // dropped lines reported by the batch's last line
	midLine  bool   // the output ends inside a line
}

// NewLogWriter returns a LogWriter that writes to out. It starts a goroutine, which
// ends after Close. With a nil redactor, nothing is redacted.
func NewLogWriter(out io.Writer, redactor *Redactor) *LogWriter {
	w := &LogWriter{
		out: out, redactor: redactor,
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		notice: func(lines uint64) string { return fmt.Sprintf("mimecast-proxy: %d log lines dropped\n", lines) },
	}
	go w.run()
	return w
}

// Unwrap returns the output, for a child process that inherits it.
func (w *LogWriter) Unwrap() io.Writer { return w.out }

// Dropped returns the number of lines dropped since the start.
func (w *LogWriter) Dropped() uint64 { return w.dropped.Load() }

// attach sets the format of the line about dropped lines, and a func that Close calls
// first.
func (w *LogWriter) attach(notice func(lines uint64) string, beforeEnd func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notice, w.beforeEnd = notice, beforeEnd
}

// Write queues text, or drops it if the queue is full. It never blocks and never fails.
func (w *LogWriter) Write(text []byte) (int, error) {
	w.mu.Lock()
	if w.ended || len(w.queue)+len(text) > maxQueue {
		w.drop(countLines(string(text)))
	} else {
		w.queue = append(w.queue, text...)
	}
	size := len(w.queue)
	w.mu.Unlock()
	signal(w.wake)
	if size >= batchSize {
		signal(w.urgent)
	}
	return len(text), nil
}

// drop counts dropped lines. The caller holds w.mu.
func (w *LogWriter) drop(lines uint64) {
	w.unreported += lines
	w.dropped.Add(lines)
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // already signaled
	}
}

func countLines(text string) uint64 { return uint64(max(1, strings.Count(text, "\n"))) }

// Close writes the queued text, and returns after at most 1 s even if the output
// blocks. Text written later is dropped.
func (w *LogWriter) Close() {
	w.once.Do(func() {
		w.mu.Lock()
		beforeEnd := w.beforeEnd
		w.mu.Unlock()
		if beforeEnd != nil {
			beforeEnd()
		}
		close(w.closing)
	})
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}

// run writes batches until Close.
func (w *LogWriter) run() {
	defer close(w.done)
	for {
		select {
		case <-w.wake:
		case <-w.closing:
			w.finish()
			return
		}
		full := w.writeBatch()
		timer := time.NewTimer(writeInterval)
		select {
		case <-timer.C:
		case <-w.closing:
		case <-w.urgentUnlessFull(full):
		}
		timer.Stop()
		if full {
			signal(w.wake)
		}
	}
}

// urgentUnlessFull returns the channel that shortens the pause between batches. It
// returns nil if the output is full: retrying it earlier would not help.
func (w *LogWriter) urgentUnlessFull(full bool) <-chan struct{} {
	if full {
		return nil
	}
	return w.urgent
}

// finish writes the remaining text, for at most as long as Close waits.
func (w *LogWriter) finish() {
	for deadline := time.Now().Add(closeTimeout); w.writeBatch() && time.Now().Before(deadline); {
		time.Sleep(retryInterval)
	}
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.writeBatch() // text queued in the meantime
}

// writeBatch writes the queued text. It reports whether the output is full, as a
// nonblocking pipe can be. After any other error, it drops the batch.
func (w *LogWriter) writeBatch() (full bool) {
	for w.fillBatch(); len(w.batch) > 0; {
		n, err := io.WriteString(w.out, w.batch)
		if n > 0 {
			w.midLine = w.batch[n-1] != '\n'
			w.batch = w.batch[n:]
		}
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil || n == 0 && len(w.batch) > 0:
			w.dropBatch()
		}
	}
	return false
}

// fillBatch moves the queued text into a batch, unless there is a batch already.
func (w *LogWriter) fillBatch() {
	if len(w.batch) > 0 {
		return
	}
	w.mu.Lock()
	text, lines := string(w.queue), w.unreported
	if w.queue, w.unreported = w.queue[:0], 0; cap(w.queue) > 2*batchSize {
		w.queue = nil // free the memory after a burst
	}
	notice := w.notice
	w.mu.Unlock()
	w.batch = w.redactor.redactLines(text)
	if w.reported = lines; lines > 0 {
		w.batch += notice(lines)
	}
	if w.midLine && w.batch != "" {
		w.batch = "\n" + w.batch
	}
}

// dropBatch drops the rest of the batch.
func (w *LogWriter) dropBatch() {
	lines := countLines(w.batch)
	w.batch = ""
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reported > 0 { // the lines in its last line were counted before
		lines--
		w.unreported += w.reported
	}
	w.drop(lines)
}

// redactLines redacts each line of a log. JSON lines already have short secrets removed
// from their values. They are not removed again, since they could equal a field's name.
func (r *Redactor) redactLines(text string) string {
	if r == nil || r.patterns.Load() == nil {
		return text
	}
	var b strings.Builder
	done, at := 0, 0 // end of the text written so far, and beginning of the line
	for line := range strings.Lines(text) {
		if clean := r.redact(line, line[0] != '{'); clean != line {
			b.WriteString(text[done:at])
			b.WriteString(clean)
			done = at + len(line)
		}
		at += len(line)
	}
	if done == 0 {
		return text
	}
	return b.String() + text[done:]
}
