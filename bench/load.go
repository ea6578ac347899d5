package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// client is one connection that repeats the same request. It reads
// no more of a response than its length asks for, since it shares a core with the
// upstream.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	body    int64 // bytes sent after the request's header
	// ask makes a request in place of what is above, for HTTP/2.
	ask func() (int64, error)
}

func dial(ctx context.Context, address string, request []byte, body int64) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), request: request, body: body}, nil
}

func get(size int64) []byte {
	return fmt.Appendf(nil, "GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", size)
}

func post(size int64) []byte {
	return fmt.Appendf(nil, "POST /sink HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n", size)
}

var errUnexpectedResponse = errors.New("not the expected response")

// do makes one request and returns the size of the response's body.
func (c *client) do() (int64, error) {
	if c.ask != nil {
		return c.ask()
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	for left := c.body; left > 0; {
		n, err := c.conn.Write(chunk[:min(left, int64(len(chunk)))])
		if left -= int64(n); err != nil {
			return 0, err
		}
	}
	length := int64(-1)
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		switch {
		case err != nil:
			return 0, err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			rest, _ := c.in.Peek(c.in.Buffered())
			return 0, fmt.Errorf("%w: %s%s", errUnexpectedResponse, line, rest)
		case len(line) == 2 && length < 0:
			return 0, fmt.Errorf("%w: no length", errUnexpectedResponse)
		case len(line) == 2:
			_, err := io.CopyN(io.Discard, c.in, length)
			return length, err
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
}

// load is what is asked of a proxy.
type load struct {
	address     string
	open        func(context.Context) (*client, error) // in place of address, if set
	request     []byte
	body        int64
	connections int
	rate        float64 // requests a second; 0: as many as can be
	warmup      time.Duration
	duration    time.Duration
}

// sample is how that went.
type sample struct {
	Requests  int64
	Errors    int64
	Bytes     int64
	Duration  time.Duration
	failure   error           // one of the errors
	latencies []time.Duration // sorted; with a rate only
}

func (s sample) percentile(p float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(len(s.latencies)-1, int(p*float64(len(s.latencies))))]
}

// run opens the connections, warms the proxy up, calls measure for the part
// that counts, and returns what happened in it.
func (l load) run(ctx context.Context, measure func(part func())) (sample, error) {
	clients := make([]*client, l.connections)
	for i := range clients {
		c, err := l.connect(ctx)
		if err != nil {
			return sample{}, err
		}
		defer func() { _ = c.conn.Close() }()
		clients[i] = c
	}
	if warm := l.runFor(clients, l.warmup, l.warmup/2); warm.Errors > 0 {
		return warm, fmt.Errorf("%d errors while warming up, such as: %w", warm.Errors, warm.failure)
	}
	var s sample
	measure(func() { s = l.runFor(clients, l.duration, 0) })
	return s, nil
}

// connect opens one connection.
func (l load) connect(ctx context.Context) (*client, error) {
	if l.open != nil {
		return l.open(ctx)
	}
	return dial(ctx, l.address, l.request, l.body)
}

// runFor has the clients ask for as long as length. With a rate, each request has
// its time, whatever became of those before it, and its latency counts from
// then: a stall delays all that were due in it. The clients begin one after
// another within ramp.
func (l load) runFor(clients []*client, length, ramp time.Duration) sample {
	var s sample
	var next atomic.Int64
	var mu sync.Mutex // guards s
	began := time.Now()
	due := func() (time.Time, bool) {
		if l.rate == 0 {
			now := time.Now()
			return now, now.Sub(began) < length
		}
		at := time.Duration(float64(next.Add(1)-1) / l.rate * float64(time.Second))
		time.Sleep(time.Until(began.Add(at)))
		return began.Add(at), at < length
	}
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			time.Sleep(ramp * time.Duration(i) / time.Duration(len(clients)))
			own := c.loop(due, l.rate > 0)
			mu.Lock()
			defer mu.Unlock()
			s.Requests += own.Requests
			s.Errors += own.Errors
			s.failure = cmp.Or(s.failure, own.failure)
			s.Bytes += own.Bytes
			s.latencies = append(s.latencies, own.latencies...)
		})
	}
	all.Wait()
	s.Duration = time.Since(began)
	slices.Sort(s.latencies)
	return s
}

func (c *client) loop(due func() (time.Time, bool), timed bool) (s sample) {
	for {
		at, ok := due()
		if !ok {
			return s
		}
		n, err := c.do()
		if err != nil {
			s.Errors++
			s.failure = err
			return s // what is left on the connection is no response to go on with
		}
		s.Requests++
		s.Bytes += n + c.body
		if timed {
			s.latencies = append(s.latencies, time.Since(at))
		}
	}
}
