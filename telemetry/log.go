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

// Names of the fields that every line has, except that format gcp renames level and
// msg.
const (
	timeField  = "time"
	levelField = "level"
	msgField   = "msg"
)

// timeLayout is RFC 3339 with exactly three decimals.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// levels are the accepted levels. zerolog has more, which this package does not use.
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

// dropNotice returns a func that formats the line about dropped log lines.
func dropNotice(o Options) func(lines uint64) string {
	return func(lines uint64) string {
		var line strings.Builder
		o.Output, o.Level = &line, "warn"
		if log, err := newLog(o); err == nil { // New accepted the same options
			log.WithLevel(zerolog.WarnLevel).Str(timeField, formatTime(time.Now())).Str(messageField(o.Format), "log lines dropped").Uint64("lines", lines).Send()
		}
		return line.String()
	}
}

// console formats lines for people. zerolog quotes unprintable characters in fields.
// The message is scrubbed before.
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

// formatTime returns t in UTC in the log's layout.
func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// Logger returns a logger that writes to t's log.
func (t *Telemetry) Logger() *slog.Logger {
	return slog.New(&slogHandler{t: t, next: zerolog.NewSlogHandler(t.log)})
}

// slogHandler wraps zerolog's handler. It names time and message as the rest of the log
// does; zerolog's names are global. Unlike zerolog's, it keeps attributes added before
// a group out of the group. It scrubs messages and errors, and redacts other text.
type slogHandler struct {
	t     *Telemetry
	next  slog.Handler
	group string // nested groups are joined by dots
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

// inGroup returns the attributes, redacted and inside the current group.
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

// StdLog returns a standard logger, such as for http.Server.ErrorLog. net/http's
// messages may contain bytes from a peer, so each is scrubbed. A peer can cause any
// number of messages, so each kind is logged once a minute. level is one of
// [Options.Level].
func (t *Telemetry) StdLog(level string) *log.Logger {
	return log.New(&lineWriter{t: t, level: levels[level]}, "", 0)
}

const (
	// stdLogInterval is the minimum time between two messages of a kind.
	stdLogInterval = time.Minute
	// maxStdLogKinds limits how many kinds are counted separately.
	maxStdLogKinds = 64
	// wordsOfKind is the number of leading words that identify a kind. In net/http's
	// messages, a peer's name comes later.
	wordsOfKind = 3
	// maxKind limits those words, in bytes.
	maxKind = 64
)

type lineWriter struct {
	t     *Telemetry
	level zerolog.Level

	mu    sync.Mutex
	kinds map[string]*stdLogKind
}

// stdLogKind is when a kind was last logged, and how many messages were suppressed
// since.
type stdLogKind struct {
	logged     time.Time
	suppressed int
}

// Write logs one message. It always succeeds, since there is no other place to report
// an error.
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

// allow reports whether to log a message, and how many of its kind were suppressed
// since the last one.
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
