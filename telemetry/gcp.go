package telemetry

import (
	"io"

	"github.com/rs/zerolog"
)

// formatGCP is JSON with the severity and message fields of Google Cloud Logging.
// Without them, Cloud Logging treats each line on stderr as an error.
const formatGCP = "gcp"

// messageField returns the name of the message field in a log format.
func messageField(format string) string {
	if format == formatGCP {
		return "message"
	}
	return msgField
}

// gcpWriter replaces zerolog's level by Cloud Logging's severity. The name of the level
// field is global in zerolog, so it cannot change for one log.
type gcpWriter struct {
	out  io.Writer
	line []byte // zerolog.SyncWriter serializes writes
}

// Write implements io.Writer, for a line without a level.
func (w *gcpWriter) Write(line []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel implements zerolog.LevelWriter. It relies on the level being the first
// field.
func (w *gcpWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	begin := `{"` + levelField + `":"` + level.String() + `"`
	if len(line) < len(begin) || string(line[:len(begin)]) != begin {
		return w.out.Write(line)
	}
	w.line = append(w.line[:0], `{"severity":"`+severity(level)+`"`...)
	w.line = append(w.line, line[len(begin):]...)
	if _, err := w.out.Write(w.line); err != nil {
		return 0, err
	}
	return len(line), nil
}

// severity returns the level as a LogSeverity of Cloud Logging, which has no level
// below DEBUG.
func severity(level zerolog.Level) string {
	switch {
	case level <= zerolog.DebugLevel:
		return "DEBUG"
	case level == zerolog.WarnLevel:
		return "WARNING"
	case level == zerolog.ErrorLevel:
		return "ERROR"
	default:
		return "INFO"
	}
}
