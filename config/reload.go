package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"time"
)

const (
	// checkInterval is how often a Watcher reads its files.
	checkInterval = 2 * time.Second
	// stableTime is how long a file has to stay the same before a new version of
	// it counts, and settleReads how often a check looks at it for that. A writer
	// that truncates first, or swaps one link after the other, takes less.
	stableTime  = 250 * time.Millisecond
	stableReads = 6
)

// File is a file that a variable names. It is read again while the proxy runs.
type File struct {
	// Variable names the file, and is the only name for it in metrics.
	Variable string
	// Path is where the file is.
	Path string

	limit int64 // bytes
	// use takes the content up, or says what is wrong with it and leaves in force
	// what is. It must not keep the slice.
	use func(content []byte) error
	// state is a func since every printer shows that as an address at most.
	state func() *fileState
}

type fileState struct {
	content     bytes.Buffer // kept, so that a check of what did not change allocates nothing
	seen, inUse version
}

// version is what a look at a file found: its content, or why there is none.
type version struct {
	sum     [sha256.Size]byte
	failure string
}

// newFile reads a file for the first time. The error says what is wrong with it.
func newFile(variable, path string, limit int64, use func([]byte) error) (*File, error) {
	state := new(fileState)
	f := &File{Variable: variable, Path: path, limit: limit, use: use, state: func() *fileState { return state }}
	v, err := f.readVersion()
	state.seen, state.inUse = v, v
	if err != nil {
		return f, err
	}
	return f, use(state.content.Bytes())
}

// readVersion reads the file. The content is kept until the next look.
func (f *File) readVersion() (version, error) {
	content := &f.state().content
	content.Reset()
	if err := readFile(f.Path, f.limit, content); err != nil {
		return version{failure: err.Error()}, err
	}
	return version{sum: sha256.Sum256(content.Bytes())}, nil
}

// Outcome is how a reload of a file ended.
type Outcome string

// The outcomes.
const (
	// Changed: a new version is in force.
	Changed Outcome = "changed"
	// Failed: the file cannot be used, and the last good version stays in force.
	Failed Outcome = "failed"
	// Restored: the file can be used again, and holds what is in force.
	Restored Outcome = "restored"
)

// Watcher takes up what changes in files. It compares contents, since neither the
// time nor the size of a file tells of every change.
type Watcher struct {
	Files []*File
	// Report is told of each new state of a file, once; err says why it failed. It
	// may be nil.
	Report func(f *File, o Outcome, err error)
	// Changed is called after a check that took new versions up, with the variables
	// that name the files. Files that change together are in force together by
	// then. It may be nil.
	Changed func(variables []string)
}

// Run checks the files every 2 s, and at once when reread says so, until ctx ends.
// Call it once.
func (w *Watcher) Run(ctx context.Context, reread <-chan struct{}) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-reread:
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

// reading is what one look at a file found.
type reading struct {
	version
	err error
}

func sameVersion(a, b reading) bool { return a.version == b.version }

// readStable returns what is in each file once two looks in a row agree on all of
// them. A file that does not settle in time is returned as it was seen before, so
// that it does not keep the others from being taken up.
func (w *Watcher) readStable(ctx context.Context) []reading {
	last := make([]reading, len(w.Files))
	for i, f := range w.Files {
		last[i] = reading{version: f.state().seen}
	}
	now := w.readAll(ctx)
	for range stableReads {
		if slices.EqualFunc(last, now, sameVersion) {
			break
		}
		select {
		case <-time.After(stableTime):
		case <-ctx.Done():
			return nil
		}
		last, now = now, w.readAll(ctx)
	}
	for i, l := range now {
		if !sameVersion(l, last[i]) {
			now[i] = reading{version: w.Files[i].state().seen}
		}
	}
	return now
}

// readAll looks at every file. A file system that is gone can block a read for ever,
// which must not keep the process from ending: when ctx ends nobody waits for it,
// and nothing is returned.
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

// apply takes a version up if it is new and can be used, and reports whether it
// did.
func (f *File) apply(l reading, report func(*File, Outcome, error)) bool {
	st := f.state()
	if l.version == st.seen {
		return false
	}
	st.seen = l.version
	outcome, err := Restored, l.err
	if err == nil && l.version != st.inUse {
		outcome, err = Changed, f.use(st.content.Bytes())
	}
	if err != nil {
		outcome = Failed
	} else {
		st.inUse = l.version
	}
	if report != nil {
		report(f, outcome, err)
	}
	return outcome == Changed
}
