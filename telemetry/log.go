package telemetry

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
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
	case "console":
		out = console(out, o.Terminal)
	case "", "auto":
		if o.Terminal {
			out = console(out, true)
		}
	default:
		return zerolog.Nop(), fmt.Errorf("log format %q: choose auto, json or console", o.Format)
	}
	return zerolog.New(zerolog.SyncWriter(out)).Level(level), nil
}

// console writes lines for a person. zerolog quotes what is not printable in
// fields; the message is scrubbed before it gets here.
func console(out io.Writer, colour bool) io.Writer {
	return zerolog.ConsoleWriter{
		Out:           out,
		NoColor:       !colour,
		TimeFormat:    "15:04:05.000",
		PartsOrder:    []string{timeField, levelField, msgField},
		FieldsExclude: []string{msgField},
		FieldsOrder:   []string{"method", "path", "status", "duration_ms", "upstream_ms", "retried", "aborted", "error"},
	}
}

// stamp returns t as the log writes it.
func stamp(t time.Time) string { return t.UTC().Format(timeLayout) }

// Logger returns a logger that writes to the same log.
func (t *Telemetry) Logger() *slog.Logger {
	return slog.New(&handler{next: zerolog.NewSlogHandler(t.log)})
}

// handler stands before zerolog's. It says the time and the message by this
// log's names, which in zerolog are globals, and keeps attributes that were
// added before a group out of it, which zerolog does not. Errors are scrubbed.
type handler struct {
	next  slog.Handler
	group string // joined by dots, as zerolog writes them
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(time.Time{}, r.Level, "", 0)
	if !r.Time.IsZero() {
		out.AddAttrs(slog.String(timeField, stamp(r.Time)))
	}
	out.AddAttrs(slog.String(msgField, Scrub(r.Message)))
	attrs := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	out.AddAttrs(h.qualify(attrs)...)
	return h.next.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{next: h.next.WithAttrs(h.qualify(attrs)), group: h.group}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name != "" && h.group != "" {
		name = h.group + "." + name
	}
	if name == "" {
		return h
	}
	return &handler{next: h.next, group: name}
}

// qualify returns the attributes as they are to be written, in their group.
func (h *handler) qualify(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		a.Value = a.Value.Resolve()
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(Scrub(err.Error()))
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
// peer sent, so each is scrubbed. The level is one of Options.Level.
func (t *Telemetry) StdLog(level string) *log.Logger {
	return log.New(&lineWriter{t: t, level: levels[level]}, "", 0)
}

type lineWriter struct {
	t     *Telemetry
	level zerolog.Level
}

// Write logs one message. It never fails: nobody could say so anywhere else.
func (w *lineWriter) Write(p []byte) (int, error) {
	if e := w.t.log.WithLevel(w.level); e != nil {
		e.Str(timeField, stamp(time.Now())).Str(msgField, Scrub(string(p))).Send()
	}
	return len(p), nil
}
