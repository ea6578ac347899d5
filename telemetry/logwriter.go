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
	// maxQueue bounds, in bytes, what waits to be written; as much again may be
	// on its way to the output.
	maxQueue = 512 << 10
	// batchSize is from how many bytes on a batch does not wait for writeInterval.
	batchSize = 64 << 10
	// writeInterval is the time from one batch to the next. The first line after
	// a pause is written at once.
	writeInterval = 50 * time.Millisecond
	// retryInterval is the pause while the output takes nothing at the end.
	retryInterval = 10 * time.Millisecond
	// closeTimeout bounds how long the end of the process waits for its log.
	closeTimeout = time.Second
)

// LogWriter is an io.Writer for a log that nobody may wait for: Write puts text
// into a bounded queue, and one goroutine writes it out. What does not fit is
// dropped and counted, and reported in the log as soon as it can be written again.
//
// Each call of Write is whole lines; they stay whole and in order. Secrets that
// the redactor knows are removed from each line. Make one with [NewLogWriter].
type LogWriter struct {
	out      io.Writer
	redactor *Redactor
	wake     chan struct{} // there is something to write
	urgent   chan struct{} // there is a batchSize of it
	closing  chan struct{} // closed by Close
	done     chan struct{} // closed when nothing more is written
	once     sync.Once
	dropped  atomic.Uint64

	mu    sync.Mutex
	queue []byte
	// unreported are lines that were dropped and are not reported in the log yet.
	unreported uint64
	ended      bool
	notice     func(lines uint64) string
	beforeEnd  func()

	// The rest is the goroutine's own.
	batch    string
	reported uint64 // dropped lines that the last line of batch reports
	midLine  bool   // the output ends within a line
}

// NewLogWriter returns a LogWriter to out, which one goroutine writes to until
// Close. A nil redactor knows no secret.
func NewLogWriter(out io.Writer, redactor *Redactor) *LogWriter {
	w := &LogWriter{
		out: out, redactor: redactor,
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		notice: func(lines uint64) string { return fmt.Sprintf("mimecast-proxy: %d log lines dropped\n", lines) },
	}
	go w.run()
	return w
}

// Unwrap returns the output, for a process that is to inherit it.
func (w *LogWriter) Unwrap() io.Writer { return w.out }

// Dropped returns how many lines were dropped since the start.
func (w *LogWriter) Dropped() uint64 { return w.dropped.Load() }

// attach sets how dropped lines are reported, and what Close calls first.
func (w *LogWriter) attach(notice func(lines uint64) string, beforeEnd func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notice, w.beforeEnd = notice, beforeEnd
}

// Write queues text, or drops it. It neither waits nor fails.
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

// drop counts lines that are not written. The caller holds the lock.
func (w *LogWriter) drop(lines uint64) {
	w.unreported += lines
	w.dropped.Add(lines)
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // it was signaled already
	}
}

func countLines(text string) uint64 { return uint64(max(1, strings.Count(text, "\n"))) }

// Close writes what is queued, but waits no longer than a second: an output that
// blocks is left behind. Text that is written later is dropped.
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

// urgentUnlessFull returns the channel that shortens the pause between batches; an
// output that takes nothing is not asked the sooner for it.
func (w *LogWriter) urgentUnlessFull(full bool) <-chan struct{} {
	if full {
		return nil
	}
	return w.urgent
}

// finish writes what is left, for as long as Close waits.
func (w *LogWriter) finish() {
	for deadline := time.Now().Add(closeTimeout); w.writeBatch() && time.Now().Before(deadline); {
		time.Sleep(retryInterval)
	}
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.writeBatch() // what came in between
}

// writeBatch writes what is queued, and reports whether the output is full, as
// a pipe is that somebody made non-blocking. All other errors cost the batch.
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

// fillBatch makes a batch of what is queued, unless there is one already.
func (w *LogWriter) fillBatch() {
	if len(w.batch) > 0 {
		return
	}
	w.mu.Lock()
	text, lines := string(w.queue), w.unreported
	if w.queue, w.unreported = w.queue[:0], 0; cap(w.queue) > 2*batchSize {
		w.queue = nil // a flood is no reason to keep its memory
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
	if w.reported > 0 { // its last line reported lines that were counted before
		lines--
		w.unreported += w.reported
	}
	w.drop(lines)
}

// redactLines redacts each line of a log. Lines of JSON have short secrets removed
// from their values already, where their names cannot be meant.
func (r *Redactor) redactLines(text string) string {
	if r == nil || r.patterns.Load() == nil {
		return text
	}
	var b strings.Builder
	done, at := 0, 0 // what is written, and where the line begins
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
