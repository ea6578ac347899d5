package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

// gate is an output whose Write blocks while shut is locked.
type gate struct {
	buffer
	shut sync.Mutex
}

func (g *gate) Write(p []byte) (int, error) {
	g.shut.Lock()
	defer g.shut.Unlock()
	return g.buffer.Write(p)
}

func TestLogWriterKeepsLinesWholeAndInOrder(t *testing.T) {
	var out bytes.Buffer
	w := telemetry.NewLogWriter(&out, nil)
	for i := range 1000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	w.Close()
	w.Close() // a second Close does nothing
	lines := strings.Split(out.String(), "\n")
	for i := range 1000 {
		if lines[i] != fmt.Sprintf("line %d", i) {
			t.Fatalf("%d: %q", i, lines[i])
		}
	}
	if len(lines) != 1001 || w.Dropped() != 0 {
		t.Errorf("%d lines, %d dropped", len(lines), w.Dropped())
	}
	fmt.Fprintln(w, "late")
	if w.Dropped() != 1 || strings.Contains(out.String(), "late") {
		t.Error("a line after the end is not dropped and counted")
	}
}

func TestLogWriterShowsALineSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out buffer
		w := telemetry.NewLogWriter(&out, nil)
		fmt.Fprintln(w, "first")
		synctest.Wait()
		if out.String() != "first\n" {
			t.Errorf("at once %q", out.String())
		}
		fmt.Fprintln(w, "second")
		time.Sleep(51 * time.Millisecond)
		synctest.Wait()
		if out.String() != "first\nsecond\n" {
			t.Errorf("50 ms later %q", out.String())
		}
		w.Close()
	})
}

func TestNobodyWaitsForALogThatIsNotRead(t *testing.T) {
	out := &gate{}
	out.shut.Lock()
	w := telemetry.NewLogWriter(out, nil)
	tel := newTelemetry(t, telemetry.Options{Output: w})
	h := tel.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	req, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	const requests = 20_000 // several times the queue's capacity
	for range requests {
		h.ServeHTTP(discard{}, req)
	}
	dropped := w.Dropped()
	if dropped == 0 || dropped >= requests {
		t.Fatalf("%d of %d lines were dropped", dropped, requests)
	}
	hasSeries(t, scrape(t, tel), fmt.Sprintf("log_lines_dropped_total %.0f", float64(dropped)))
	out.shut.Unlock()
	tel.Logger().Info("readable again")
	w.Close()
	told, lines := uint64(0), uint64(0)
	for text := range strings.Lines(out.String()) {
		var line struct {
			Level, Msg string
			Lines      uint64
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if line.Msg == "log lines dropped" && line.Level == "warn" {
			told += line.Lines
		} else {
			lines++
		}
	}
	if told != w.Dropped() || lines+told != requests+1 {
		t.Errorf("%d dropped, the log says %d and has %d lines", w.Dropped(), told, lines)
	}
}

func TestEndWaitsASecondForALogThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, out := io.Pipe() // Write blocks until a reader reads
		w := telemetry.NewLogWriter(out, nil)
		fmt.Fprintln(w, "unread")
		began := time.Now()
		w.Close()
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		r.Close()
	})
}

// failing is an output that returns each of errs once, then succeeds.
type failing struct {
	buffer
	errs  []error
	takes int // bytes accepted with each error
}

func (f *failing) Write(p []byte) (int, error) {
	if len(f.errs) == 0 {
		return f.buffer.Write(p)
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	n, _ := f.buffer.Write(p[:min(len(p), f.takes)])
	return n, err
}

func TestLogWriterGoesOnAfterAnError(t *testing.T) {
	for name, c := range map[string]struct {
		out     *failing
		want    string
		dropped uint64
	}{
		"full for a while":    {&failing{errs: []error{syscall.EAGAIN, syscall.EAGAIN}, takes: 2}, "one\ntwo\n", 0},
		"gone":                {&failing{errs: []error{syscall.EPIPE}}, "two\nmimecast-proxy: 1 log lines dropped\n", 1},
		"gone within a line":  {&failing{errs: []error{syscall.EPIPE}, takes: 2}, "on\ntwo\nmimecast-proxy: 1 log lines dropped\n", 1},
		"takes it in parts":   {&failing{errs: []error{nil, nil}, takes: 1}, "one\ntwo\n", 0},
		"takes nothing":       {&failing{errs: []error{nil}}, "two\nmimecast-proxy: 1 log lines dropped\n", 1},
		"gone, and once more": {&failing{errs: []error{syscall.EPIPE, syscall.EPIPE}}, "three\nmimecast-proxy: 2 log lines dropped\n", 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := telemetry.NewLogWriter(c.out, nil)
			for _, line := range []string{"one\n", "two\n"} {
				io.WriteString(w, line)
				time.Sleep(time.Second)
			}
			if c.dropped == 2 {
				io.WriteString(w, "three\n")
			}
			w.Close()
			if got := c.out.String(); got != c.want || w.Dropped() != c.dropped {
				t.Errorf("%s: %q, %d dropped", name, got, w.Dropped())
			}
		})
	}
}

func TestLogWriterNeitherDiesNorSpinsOnAClosedOrFullPipe(t *testing.T) {
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w := telemetry.NewLogWriter(out, nil)
	for range 10 {
		fmt.Fprintln(w, "nobody reads")
	}
	w.Close()
	if w.Dropped() != 10 {
		t.Errorf("%d dropped", w.Dropped())
	}
	out.Close()
	w = telemetry.NewLogWriter(out, nil)
	fmt.Fprintln(w, "closed")
	w.Close()
	if w.Dropped() != 1 {
		t.Errorf("%d dropped", w.Dropped())
	}
}

func TestLogWriterRedactsWhatGoesPastTheLogger(t *testing.T) {
	redactor := new(telemetry.Redactor)
	redactor.Set("client secret", secret.New("a-secret-of-the-account"), secret.New("level"))
	var out bytes.Buffer
	w := telemetry.NewLogWriter(&out, redactor)
	fmt.Fprintln(w, "mimecast-proxy: a-secret-of-the-account at this level")
	newTelemetry(t, telemetry.Options{Output: w}).Logger().Info("m", "any", []string{"a-secret-of-the-account"})
	w.Close()
	first, second, _ := strings.Cut(out.String(), "\n")
	if first != "mimecast-proxy: [redacted] at this [redacted]" || !strings.Contains(second, `"level":"info"`) || !strings.Contains(second, `"any":["[redacted]"]`) {
		t.Errorf("%q", out.String())
	}
}
