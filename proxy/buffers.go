package proxy

import "sync"

const (
	// largeBuffer takes a body of many MiB along with fewer system calls and
	// goroutine switches than smallBuffer.
	smallBuffer = 32 << 10
	largeBuffer = 128 << 10
	// maxLarge bounds the large buffers: 1 MiB, even if clients stop reading.
	maxLarge = 8
)

// buffers lends buffers that bodies are copied through: large ones while there are
// any, then small ones. It implements [httputil.BufferPool].
type buffers struct {
	large, small sync.Pool
	lent         chan struct{} // has an element for each large buffer that is lent
}

func newBuffers() *buffers { return &buffers{lent: make(chan struct{}, maxLarge)} }

// Get returns a buffer with any content.
func (b *buffers) Get() []byte {
	select {
	case b.lent <- struct{}{}:
		if buf, ok := b.large.Get().(*[largeBuffer]byte); ok {
			return buf[:]
		}
		return make([]byte, largeBuffer)
	default:
		if buf, ok := b.small.Get().(*[smallBuffer]byte); ok {
			return buf[:]
		}
		return make([]byte, smallBuffer)
	}
}

// Put takes back what Get returned. Nothing may use it any more.
func (b *buffers) Put(buf []byte) {
	if len(buf) == smallBuffer {
		b.small.Put((*[smallBuffer]byte)(buf))
		return
	}
	b.large.Put((*[largeBuffer]byte)(buf))
	<-b.lent
}

// drop is Put for a buffer that something may still use.
func (b *buffers) drop(buf []byte) {
	if len(buf) == largeBuffer {
		<-b.lent
	}
}

// loan lends buffers to one response over HTTP/2. If a write fails, net/http may still send
// what it was given, so that no other response may get that buffer.
type loan struct {
	*buffers
	failed bool
}

// Put implements [httputil.BufferPool].
func (l *loan) Put(buf []byte) {
	if l.failed {
		l.drop(buf)
		return
	}
	l.buffers.Put(buf)
}
