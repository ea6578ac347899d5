package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a connection whose writes each wait to be let through.
type slow struct {
	net.Conn
	let chan struct{}
	end sync.Once

	mu      sync.Mutex // guards what follows
	batches []string   // what was written at once
	late    bool       // the write deadline has passed
}

var errLate = errors.New("late")

func (s *slow) Write(p []byte) (int, error) {
	if _, ok := <-s.let; !ok {
		return 0, net.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late {
		return 0, errLate
	}
	s.batches = append(s.batches, string(p))
	return len(p), nil
}

func (s *slow) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = !t.IsZero() && !t.After(time.Now())
	return nil
}

func (s *slow) Close() error { s.end.Do(func() { close(s.let) }); return nil }

func shared(many bool) (*batched, *slow) {
	s := &slow{let: make(chan struct{})}
	b := newBatched(s)
	b.share(func() bool { return many })
	return b, s
}

func TestWritesThatAreReadyAtTheSameTimeShareOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := shared(true)
		defer b.Close()
		write := func(p string) {
			if _, err := b.Write([]byte(p)); err != nil {
				t.Error(err)
			}
		}
		write("a")
		synctest.Wait() // it is being written
		write("b")
		write("c")
		s.let <- struct{}{}
		s.let <- struct{}{}
		synctest.Wait()
		if len(s.batches) != 2 || s.batches[0] != "a" || s.batches[1] != "bc" {
			t.Errorf("it wrote %q", s.batches)
		}
	})
}

func TestAWriteAmongFewIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := shared(false)
		defer b.Close()
		returned := false
		go func() { b.Write([]byte("a")); returned = true }()
		synctest.Wait()
		if returned {
			t.Error("a write returned before it was done")
		}
		s.let <- struct{}{}
		synctest.Wait()
		if !returned || len(s.batches) != 1 {
			t.Errorf("it wrote %q", s.batches)
		}
	})
}

func TestWhatMayWaitToBeWrittenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := shared(true)
		defer b.Close()
		b.Write([]byte("a"))
		synctest.Wait() // it is being written
		written := 0
		go func() {
			for range 200 {
				b.Write(make([]byte, 1<<10))
				written += 1 << 10
			}
		}()
		synctest.Wait()
		if written < maxBatch/2 || written > maxBatch+1<<10 {
			t.Errorf("%d bytes wait", written)
		}
		for written < 200<<10 {
			s.let <- struct{}{}
			synctest.Wait()
		}
	})
}

func TestALostWriteEndsTheConnection(t *testing.T) {
	near, far := net.Pipe()
	b := newBatched(near)
	b.share(func() bool { return true })
	far.Close()
	if _, err := b.Write([]byte("a")); err != nil {
		t.Errorf("the first write: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("there was something to read")
	}
	b.settle()
	if _, err := b.Write([]byte("b")); err == nil {
		t.Error("a write after one was lost returned no error")
	}
	b.Close()
}

// broken is a connection that cannot be written to, as the writer finds out before
// the reader.
type broken struct {
	net.Conn
	closed chan struct{}
}

func (b broken) Write([]byte) (int, error) { return 0, syscall.ECONNRESET }
func (b broken) Read([]byte) (int, error)  { <-b.closed; return 0, net.ErrClosed }
func (b broken) Close() error              { close(b.closed); return nil }

func TestAReaderLearnsWhyAWriteWasLost(t *testing.T) {
	b := newBatched(broken{closed: make(chan struct{})})
	b.share(func() bool { return true })
	if _, err := b.Write([]byte("a")); err != nil {
		t.Errorf("the write: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the read: %v", err)
	}
	b.settle()
}

func TestTheLastWordIsOutBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := shared(true)
		defer b.Close()
		b.Write([]byte("bye"))
		go func() { s.let <- struct{}{} }()
		b.SetWriteDeadline(time.Now())
		if len(s.batches) != 1 {
			t.Errorf("it wrote %q", s.batches)
		}
	})
}

func TestCloseEndsAWriteThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		b, _ := shared(true)
		b.Write([]byte("a"))
		synctest.Wait()
		b.Close()
		if _, err := b.Write([]byte("b")); err == nil {
			t.Error("a write after the end returned no error")
		}
	})
}

func TestBatchesLoseAndMixNothing(t *testing.T) {
	near, far := net.Pipe()
	b := newBatched(near)
	b.share(func() bool { return true })
	const writers, each = 16, 500
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for j := range each {
				p := bytes.Repeat([]byte{'a' + byte(i)}, 1+(i+j)%100)
				if _, err := b.Write(append(p, '\n')); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writing.Wait(); b.settle(); b.Close() }()
	all, err := io.ReadAll(far)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(all, []byte("\n")), []byte("\n"))
	next := make([]int, writers)
	for _, line := range lines {
		i := int(line[0] - 'a')
		if want := bytes.Repeat(line[:1], 1+(i+next[i])%100); !bytes.Equal(line, want) {
			t.Fatalf("of writer %d, write %d has become %q", i, next[i], line)
		}
		next[i]++
	}
	for i, n := range next {
		if n != each {
			t.Errorf("of writer %d there are %d writes", i, n)
		}
	}
}
