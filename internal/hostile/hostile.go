// Package hostile simulates hostile clients: slow, partial, oversized, half-closed,
// pipelined, unread and aborted connections, TLS on a plain port and garbage. Its tests
// attack the built program. The command internal/soak runs a [Crowd] of them beside
// legitimate traffic.
package hostile

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dial opens a connection to an address as the program logs it: host:port, or the path of a
// Unix socket.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	if strings.HasPrefix(address, "/") {
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// CloseWrite closes the write side of a connection, if it can be half-closed.
func CloseWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the peer may have closed it
	}
}

// Abort closes a connection with a reset, if it is a TCP connection.
func Abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // on failure, the close is not a reset
	}
	_ = c.Close() // it may be closed already
}

// FatHeader returns the beginning of a request with about that many bytes of header fields,
// perField bytes each. The header is incomplete.
func FatHeader(target string, bytes, perField int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: localhost\r\n", target)
	field := "a:" + strings.Repeat("b", max(perField-4, 0)) + "\r\n"
	b.WriteString(strings.Repeat(field, bytes/len(field)))
	return b.String()
}

// requestHeader returns a request header with a Host and more fields.
func requestHeader(line string, fields ...string) string {
	return line + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

const (
	getWhoami = "GET /identity/whoami"
	// getUnread requests more than any buffer holds.
	getUnread = "POST /api/archive/get-file?id=unread&size=64MiB"
)

// attack attacks over a separate connection. If the attack leaves the connection open, the
// crowd closes it later in one of several ways.
type attack func(r *rand.Rand, c net.Conn)

// attacks are the kinds of attack by name.
var attacks = map[string]attack{
	"says nothing":          func(*rand.Rand, net.Conn) {},
	"part of a header":      partOfHeader,
	"a header byte by byte": byteByByte,
	"fat header":            fatHeader,
	"long target":           func(r *rand.Rand, c net.Conn) { say(c, "GET /"+strings.Repeat("a", r.IntN(70_000))) },
	"TLS on a plain port":   speakTLS,
	"garbage":               garbage,
	"HTTP/2 on a plain port": func(_ *rand.Rand, c net.Conn) {
		say(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	},
	"half-closed request":        halfClosed,
	"pipelined and unread":       pipelined,
	"unread download":            func(_ *rand.Rand, c net.Conn) { say(c, requestHeader(getUnread, "Content-Length: 0")) },
	"unread admin page":          func(_ *rand.Rand, c net.Conn) { say(c, strings.Repeat(requestHeader("GET /metrics"), 200)) },
	"upload that sends nothing":  func(r *rand.Rand, c net.Conn) { say(c, upload(1+r.IntN(1<<24))) },
	"upload that stops":          stoppedUpload,
	"upload of malformed chunks": malformedChunks,
	"expects 100 and is silent": func(_ *rand.Rand, c net.Conn) {
		say(c, requestHeader("POST /_simulator/echo", "Expect: 100-continue", "Content-Length: 10"))
	},
	"upgrade": func(_ *rand.Rand, c net.Conn) {
		say(c, requestHeader(getWhoami, "Connection: Upgrade", "Upgrade: websocket"))
	},
	"two lengths": func(_ *rand.Rand, c net.Conn) {
		say(c, requestHeader("POST /_simulator/echo", "Content-Length: 4", "Content-Length: 5")+"abcde")
	},
}

// say writes text. It ignores errors, because the program may close the connection.
func say(c net.Conn, text string) { _, _ = io.WriteString(c, text) }

func upload(size int) string {
	return requestHeader("POST /_simulator/echo", fmt.Sprintf("Content-Length: %d", size))
}

func partOfHeader(r *rand.Rand, c net.Conn) {
	whole := requestHeader(getWhoami, "X-Long: "+strings.Repeat("x", 9000))
	if r.IntN(2) == 0 {
		whole = "GET /" + strings.Repeat("a", 9000)
	}
	// The sizes of read buffers come up as often as all other lengths.
	lengths := []int{1, 4094, 4095, 4096, 4097, 8191, 8192, 1 + r.IntN(len(whole)-1)}
	say(c, whole[:lengths[r.IntN(len(lengths))]])
}

func byteByByte(r *rand.Rand, c net.Conn) {
	whole := requestHeader(getWhoami, "X-A: b")
	for i := range 1 + r.IntN(len(whole)) {
		say(c, whole[i:i+1])
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
}

func fatHeader(r *rand.Rand, c net.Conn) {
	text := FatHeader("/identity/whoami", r.IntN(90_000), 6+r.IntN(100))
	if r.IntN(3) == 0 {
		text += "\r\n"
	}
	say(c, text)
}

func speakTLS(r *rand.Rand, c net.Conn) {
	if r.IntN(2) == 0 {
		say(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
		return
	}
	_ = tls.Client(c, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}).HandshakeContext(context.Background()) // the handshake must fail
}

func garbage(r *rand.Rand, c net.Conn) {
	b := make([]byte, 1+r.IntN(20_000))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	_, _ = c.Write(b)
}

func halfClosed(r *rand.Rand, c net.Conn) {
	lines := []string{
		requestHeader(getWhoami), upload(100) + strings.Repeat("x", 100), upload(100) + "x", requestHeader(getUnread, "Content-Length: 0"),
		requestHeader(getWhoami) + "GET /identity/who", requestHeader(getWhoami) + requestHeader(getUnread, "Content-Length: 0"),
	}
	say(c, lines[r.IntN(len(lines))])
	CloseWrite(c)
}

func pipelined(r *rand.Rand, c net.Conn) {
	lines := []string{getWhoami, getUnread, "GET /identity/../x", "GET //x", "GET /livez"}
	say(c, strings.Repeat(requestHeader(lines[r.IntN(len(lines))]), 1+r.IntN(300)))
	if r.IntN(2) == 0 {
		CloseWrite(c)
	}
}

func stoppedUpload(r *rand.Rand, c net.Conn) {
	size := 2 + r.IntN(1<<20)
	say(c, upload(size)+strings.Repeat("x", r.IntN(size)))
}

func malformedChunks(r *rand.Rand, c net.Conn) {
	bodies := []string{"ZZ\r\nabc\r\n", "ffffffffffffffffff\r\n", "5\r\nabc", "3\nabc\n0\n\n", "3\r\nabc\r\n0\r\n" + strings.Repeat("X-T: y\r\n", 5000)}
	say(c, requestHeader("POST /_simulator/echo", "Transfer-Encoding: chunked")+bodies[r.IntN(len(bodies))])
}

// Crowd is a number of hostile clients that come and go at random.
type Crowd struct {
	// Addresses are the listeners to attack, as Dial takes them.
	Addresses []string
	// Clients is the number of concurrent clients.
	Clients int
	// Seed determines what the clients do.
	Seed uint64
	// Stay is the longest time that a client stays connected; 0 means 3 s.
	Stay time.Duration

	mu    sync.Mutex
	count map[string]int
}

// Run runs the clients until ctx ends, and returns when all connections are closed.
func (c *Crowd) Run(ctx context.Context) {
	if c.Stay == 0 {
		c.Stay = 3 * time.Second
	}
	names := slices.Sorted(maps.Keys(attacks))
	var all sync.WaitGroup
	defer all.Wait()
	for i := range c.Clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(c.Seed, uint64(i)))
			for ctx.Err() == nil {
				c.one(ctx, r, names[r.IntN(len(names))])
			}
		})
	}
}

// one makes one connection and attacks over it.
func (c *Crowd) one(ctx context.Context, r *rand.Rand, name string) {
	ctx, leave := context.WithTimeout(ctx, time.Duration(r.Int64N(int64(c.Stay))))
	defer leave()
	conn, err := Dial(ctx, c.Addresses[r.IntN(len(c.Addresses))])
	if err != nil {
		name = "not connected"
	}
	c.mu.Lock()
	if c.count == nil {
		c.count = map[string]int{}
	}
	c.count[name]++
	c.mu.Unlock()
	if err != nil {
		<-ctx.Done()
		return
	}
	end := Abort
	if r.IntN(2) == 0 {
		end = func(conn net.Conn) { _ = conn.Close() }
	}
	// If nobody reads at the other end, a write blocks until the connection is closed.
	stop := context.AfterFunc(ctx, func() { end(conn) })
	if r.IntN(4) == 0 { // some clients read
		go func() { _, _ = io.Copy(io.Discard, conn) }() // until the connection ends
	}
	attacks[name](r, conn)
	if r.IntN(4) == 0 { // some leave at once
		leave()
	}
	<-ctx.Done()
	if stop() {
		end(conn)
	}
}

// Counts returns the number of connections so far by kind of attack.
func (c *Crowd) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.count)
}
