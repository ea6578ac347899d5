package telemetry

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Names of the fields that every line has.
const (
	timeField  = "time"
	levelField = "level"
	msgField   = "msg"
)

// timeLayout is RFC 3339 with milliseconds, always as many digits.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// levels are those that can be asked for. zerolog knows more, which nothing
// here writes.
var levels = map[string]zerolog.Level{
	"":      zerolog.InfoLevel,
	"trace": zerolog.TraceLevel,
	"debug": zerolog.DebugLevel,
	"info":  zerolog.InfoLevel,
	"warn":  zerolog.WarnLevel,
	"error": zerolog.ErrorLevel,
}

func newLog(o Options) (zerolog.Logger, error) {
	level, ok := levels[o.Level]
	if !ok {
		return zerolog.Nop(), fmt.Errorf("log level %q: choose trace, debug, info, warn or error", o.Level)
	}
	out := o.Output
	if out == nil {
		out = io.Discard
	}
	switch o.Format {
	case "json":
	case formatGCP:
		out = &gcpWriter{out: out}
	case "console":
		out = console(out, o.Terminal)
	case "", "auto":
		if o.Terminal {
			out = console(out, true)
		}
	default:
		return zerolog.Nop(), fmt.Errorf("log format %q: choose auto, json, console or gcp", o.Format)
	}
	return zerolog.New(zerolog.SyncWriter(out)).Level(level), nil
}

// dropNotice returns a func that formats the line about dropped lines.
func dropNotice(o Options) func(lines uint64) string {
	return func(lines uint64) string {
		var line strings.Builder
		o.Output, o.Level = &line, "warn"
		if log, err := newLog(o); err == nil { // as it was in New
			log.WithLevel(zerolog.WarnLevel).Str(timeField, formatTime(time.Now())).Str(messageField(o.Format), "log lines dropped").Uint64("lines", lines).Send()
		}
		return line.String()
	}
}

// console writes lines for a person. zerolog quotes what is not printable in
// fields; the message is scrubbed before it gets here.
func console(out io.Writer, colour bool) io.Writer {
	return zerolog.ConsoleWriter{
		Out:           out,
		NoColor:       !colour,
		TimeFormat:    "15:04:05.000Z",
		TimeLocation:  time.UTC,
		PartsOrder:    []string{timeField, levelField, msgField},
		FieldsExclude: []string{msgField},
		FieldsOrder:   []string{"method", "path", "status", "duration_ms", "upstream_ms", "retried", "aborted", "error"},
	}
}

// formatTime returns t as the log writes it.
func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// Logger returns a logger that writes to the same log.
func (t *Telemetry) Logger() *slog.Logger {
	return slog.New(&slogHandler{t: t, next: zerolog.NewSlogHandler(t.log)})
}

// slogHandler wraps zerolog's handler. It names the time and the message as this log
// does; in zerolog those names are globals. It keeps attributes that were added before a
// group out of the group, which zerolog does not. Errors are scrubbed, and secrets are
// removed from texts.
type slogHandler struct {
	t     *Telemetry
	next  slog.Handler
	group string // joined by dots, as zerolog writes them
}

// Enabled implements slog.Handler.
func (h *slogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *slogHandler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(time.Time{}, r.Level, "", 0)
	if !r.Time.IsZero() {
		out.AddAttrs(slog.String(timeField, formatTime(r.Time)))
	}
	out.AddAttrs(slog.String(h.t.msgField, h.t.scrub(r.Message)))
	attrs := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	out.AddAttrs(h.inGroup(attrs)...)
	return h.next.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &slogHandler{t: h.t, next: h.next.WithAttrs(h.inGroup(attrs)), group: h.group}
}

// WithGroup implements slog.Handler.
func (h *slogHandler) WithGroup(name string) slog.Handler {
	if name != "" && h.group != "" {
		name = h.group + "." + name
	}
	if name == "" {
		return h
	}
	return &slogHandler{t: h.t, next: h.next, group: name}
}

// inGroup returns the attributes as they are to be written, in their group.
func (h *slogHandler) inGroup(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		a.Value = a.Value.Resolve()
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(h.t.redactor.Redact(a.Value.String()))
		} else if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(h.t.scrub(err.Error()))
		}
		out[i] = a
	}
	if h.group == "" || len(out) == 0 {
		return out
	}
	return []slog.Attr{{Key: h.group, Value: slog.GroupValue(out...)}}
}

// StdLog returns a logger for what wants one of the standard library's, such as
// http.Server.ErrorLog. Its messages are net/http's and may hold bytes that a
// peer sent, so each is scrubbed, and as a peer may cause any number of them,
// each kind is logged once a minute. The level is one of Options.Level.
func (t *Telemetry) StdLog(level string) *log.Logger {
	return log.New(&lineWriter{t: t, level: levels[level]}, "", 0)
}

const (
	// stdLogInterval is how long a kind of message is not logged again.
	stdLogInterval = time.Minute
	// maxStdLogKinds bounds how many kinds are counted separately.
	maxStdLogKinds = 64
	// wordsOfKind is how many words a message of net/http begins with before
	// it names a peer.
	wordsOfKind = 3
	// maxKind bounds what is kept of them, in bytes.
	maxKind = 64
)

type lineWriter struct {
	t     *Telemetry
	level zerolog.Level

	mu    sync.Mutex
	kinds map[string]*stdLogKind
}

// stdLogKind is when a kind of message was logged, and how often it was not since.
type stdLogKind struct {
	logged     time.Time
	suppressed int
}

// Write logs one message. It never fails: nobody could say so anywhere else.
func (w *lineWriter) Write(p []byte) (int, error) {
	e := w.t.log.WithLevel(w.level)
	if e == nil {
		return len(p), nil
	}
	suppressed, ok := w.allow(string(p), time.Now())
	if !ok {
		return len(p), nil
	}
	e.Str(timeField, formatTime(time.Now())).Str(w.t.msgField, w.t.scrub(string(p)))
	if suppressed > 0 {
		e.Int("suppressed", suppressed)
	}
	e.Send()
	return len(p), nil
}

// allow reports whether a message is to be logged, and how many of its kind were
// not since the last one.
func (w *lineWriter) allow(message string, now time.Time) (suppressed int, ok bool) {
	kind := message
	if words := strings.SplitN(message, " ", wordsOfKind+1); len(words) > wordsOfKind {
		kind = strings.Join(words[:wordsOfKind], " ")
	}
	kind = truncate(kind, maxKind)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.kinds) >= maxStdLogKinds && w.kinds[kind] == nil {
		kind = ""
	}
	k := w.kinds[kind]
	if k == nil {
		if w.kinds == nil {
			w.kinds = make(map[string]*stdLogKind)
		}
		k = &stdLogKind{}
		w.kinds[kind] = k
	}
	if !k.logged.IsZero() && now.Sub(k.logged) < stdLogInterval {
		k.suppressed++
		return 0, false
	}
	suppressed = k.suppressed
	*k = stdLogKind{logged: now}
	return suppressed, true
}
