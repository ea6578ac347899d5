package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"mimecast-proxy/event"
)

const (
	// checkInterval is the time between two checks of a Watcher.
	checkInterval = 2 * time.Second
	// stableTime is how long a file must stay the same before a new version counts.
	// stableReads limits the extra reads per check. Writers that truncate the file
	// first, or replace several links in turn, take less than stableTime.
	stableTime  = 250 * time.Millisecond
	stableReads = 6
)

// File is a file that a variable names. A [Watcher] rereads it while the proxy runs.
type File struct {
	// Variable is the name of the variable, such as PROXY_API_KEY_FILE.
	Variable string
	// Path is the variable's value.
	Path string

	limit int64 // bytes
	// read returns the content if it is not that of the one file at Path; nil reads
	// that file. interval is the minimum time between two reads.
	read     func() ([]byte, error)
	interval time.Duration
	// use applies the content, or returns an error and changes nothing. It must not
	// keep the slice.
	use func(content []byte) error
	// state is a func, because printers show at most the address of a func.
	state func() *fileState
}

type fileState struct {
	content     bytes.Buffer // reused, so that a check without a change allocates nothing
	seen, inUse version
	last        time.Time // of the last read, which returned read and readErr
	read        version
	readErr     error
}

// version identifies the result of a read: the content's SHA-256, or the error text.
type version struct {
	sum     [sha256.Size]byte
	failure string
}

// newFile reads a file for the first time. The error describes the problem without the
// path.
func newFile(variable, path string, limit int64, use func([]byte) error) (*File, error) {
	f := &File{Variable: variable, Path: path, limit: limit, use: use}
	return f, f.first()
}

// first reads the file for the first time.
func (f *File) first() error {
	state := new(fileState)
	f.state = func() *fileState { return state }
	v, err := f.readVersion()
	state.seen, state.inUse = v, v
	if err != nil {
		return err
	}
	return f.use(state.content.Bytes())
}

// readVersion reads the file. The content stays valid until the next call. Within
// f.interval of the last read, it returns the last result.
func (f *File) readVersion() (version, error) {
	state := f.state()
	now := time.Now()
	if f.interval > 0 && now.Sub(state.last) < f.interval {
		return state.read, state.readErr
	}
	state.last, state.read = now, version{}
	state.content.Reset()
	if state.readErr = f.readContent(&state.content); state.readErr != nil {
		state.read.failure = state.readErr.Error()
	} else {
		state.read.sum = sha256.Sum256(state.content.Bytes())
	}
	return state.read, state.readErr
}

// readContent appends the content to buf.
func (f *File) readContent(buf *bytes.Buffer) error {
	if f.read == nil {
		return readFile(f.Path, f.limit, buf)
	}
	content, err := f.read()
	buf.Write(content)
	return err
}

// Watcher applies changes of files. It compares contents, because a change can leave a
// file's time and size unchanged.
type Watcher struct {
	// Files are the files to check. If there are none, the Watcher does nothing.
	Files []*File
	// Report is called once for each new state of a file, with the error if it failed.
	// It may be nil.
	Report func(f *File, o event.ReloadOutcome, err error)
	// Changed is called after a check that applied new versions, with the variables
	// that name the files. Files that change together are applied together. It may be
	// nil.
	Changed func(variables []string)
}

// Run checks the files every 2 s, and at once after each receive from reread, until ctx
// ends. Call it once.
func (w *Watcher) Run(ctx context.Context, reread <-chan struct{}) {
	var due <-chan time.Time // never, without files
	if len(w.Files) > 0 {
		tick := time.NewTicker(checkInterval)
		defer tick.Stop()
		due = tick.C
	}
	for {
		select {
		case <-due:
		case <-reread:
			for _, f := range w.Files {
				f.state().last = time.Time{}
			}
		case <-ctx.Done():
			return
		}
		w.check(ctx)
	}
}

func (w *Watcher) check(ctx context.Context) {
	var changed []string
	for i, l := range w.readStable(ctx) {
		if f := w.Files[i]; f.apply(l, w.Report) {
			changed = append(changed, f.Variable)
		}
	}
	if len(changed) > 0 && w.Changed != nil {
		w.Changed(changed)
	}
}

// reading is one read of a file.
type reading struct {
	version
	err error
}

func sameVersion(a, b reading) bool { return a.version == b.version }

// readStable reads all files until two consecutive reads are the same. For a file that
// still changes after stableReads more reads, it returns the version seen before. Such
// a file does not delay the others.
func (w *Watcher) readStable(ctx context.Context) []reading {
	previous := make([]reading, len(w.Files))
	for i, f := range w.Files {
		previous[i] = reading{version: f.state().seen}
	}
	current := w.readAll(ctx)
	for range stableReads {
		if slices.EqualFunc(previous, current, sameVersion) {
			break
		}
		select {
		case <-time.After(stableTime):
		case <-ctx.Done():
			return nil
		}
		previous, current = current, w.readAll(ctx)
	}
	for i, l := range current {
		if !sameVersion(l, previous[i]) {
			current[i] = reading{version: w.Files[i].state().seen}
		}
	}
	return current
}

// readAll reads every file. A read from an unreachable file system can block forever
// and must not delay the shutdown. So readAll returns nil as soon as ctx ends.
func (w *Watcher) readAll(ctx context.Context) []reading {
	found := make(chan []reading, 1)
	go func() {
		looks := make([]reading, len(w.Files))
		for i, f := range w.Files {
			looks[i].version, looks[i].err = f.readVersion()
		}
		found <- looks
	}()
	select {
	case looks := <-found:
		return looks
	case <-ctx.Done():
		return nil
	}
}

// apply applies a version if it is new and valid, and reports whether it did.
func (f *File) apply(l reading, report func(*File, event.ReloadOutcome, error)) bool {
	st := f.state()
	if l.version == st.seen {
		return false
	}
	st.seen = l.version
	outcome, err := event.ReloadRestored, l.err
	if err == nil && l.version != st.inUse {
		outcome, err = event.ReloadChanged, f.use(st.content.Bytes())
	}
	if err != nil {
		outcome = event.ReloadFailed
	} else {
		st.inUse = l.version
	}
	if report != nil {
		report(f, outcome, err)
	}
	return outcome == event.ReloadChanged
}
