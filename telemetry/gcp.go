package telemetry

import (
	"io"

	"github.com/rs/zerolog"
)

// formatGCP is JSON whose severity and message Google Cloud Logging reads. Without
// them it takes each line on stderr for an error.
const formatGCP = "gcp"

// messageField returns the name of the message in a log of that format.
func messageField(format string) string {
	if format == formatGCP {
		return "message"
	}
	return msgField
}

// gcpWriter writes lines of zerolog with Cloud Logging's severity in place of the
// level. The name of the level is a global in zerolog, and other logs in the
// process keep theirs.
type gcpWriter struct {
	out  io.Writer
	line []byte // zerolog.SyncWriter lets one line through at a time
}

// Write implements io.Writer, for a line without a level.
func (w *gcpWriter) Write(line []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel implements zerolog.LevelWriter. The level is what zerolog writes first.
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

// severity is a level as Cloud Logging's LogSeverity names it, which has nothing
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
