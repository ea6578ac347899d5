package api1

import (
	"archive/zip"
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// file is the response with the events of one type. It begins with the first event.
type file struct {
	*translation
	kind   *eventType
	events int
	out    *bufio.Writer
	zip    *zip.Writer // nil: not compressed
	line   []byte
}

const fileBuffer = 32 << 10

// add writes an event.
func (f *file) add(e event20) error {
	if f.out == nil {
		if err := f.begin(); err != nil {
			return err
		}
	}
	pairs := f.kind.translate(e)
	f.line = f.line[:0]
	if f.request.isJSON() {
		if f.events > 0 {
			f.line = append(f.line, ",\n"...)
		}
		f.line = appendObject(f.line, pairs)
	} else {
		f.line = appendLine(f.line, pairs)
	}
	f.events++
	_, err := f.out.Write(f.line)
	return err
}

// begin sends the headers. Clients compare the type as text, and find the name between
// `="` and the last character.
func (f *file) begin() error {
	name, extension := f.files.name(f.kind.file, f.now), ".log"
	if f.request.isJSON() {
		extension = ".json"
	}
	download := name + extension
	if f.request.Compress {
		download = name + ".zip"
	}
	h := f.w.Header()
	mark(h)
	f.setToken()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s"`, download))
	f.w.WriteHeader(http.StatusOK)

	var to io.Writer = f.w
	if f.request.Compress {
		f.zip = zip.NewWriter(f.w)
		entry, err := f.zip.CreateHeader(&zip.FileHeader{Name: name + extension, Method: zip.Deflate, Modified: f.now})
		if err != nil {
			return fmt.Errorf("beginning the archive: %w", err)
		}
		to = entry
	}
	f.out = bufio.NewWriterSize(to, fileBuffer)
	if f.request.isJSON() {
		_, err := f.out.WriteString(`{"type":"MTA","data":[`)
		return err
	}
	return nil
}

// close ends the file, if it has begun.
func (f *file) close() error {
	if f.out == nil {
		return nil
	}
	if f.request.isJSON() {
		if _, err := f.out.WriteString("]}\n"); err != nil {
			return err
		}
	}
	if err := f.out.Flush(); err != nil {
		return err
	}
	if f.zip != nil {
		return f.zip.Close()
	}
	return nil
}

// fileClock makes names of files. Clients that save a file overwrite one of the same name,
// so that no two files of a process have one instant.
type fileClock struct{ last atomic.Int64 }

func (c *fileClock) name(prefix string, now time.Time) string {
	for {
		last := c.last.Load()
		next := max(now.UnixMilli(), last+1)
		if c.last.CompareAndSwap(last, next) {
			at := time.UnixMilli(next).UTC()
			return fmt.Sprintf("%s_%s%03d", prefix, at.Format("20060102150405"), at.Nanosecond()/int(time.Millisecond))
		}
	}
}
