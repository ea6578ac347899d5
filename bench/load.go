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

// client is one connection that repeats the same request. It parses only a response's
// status and length, because it shares a core with the upstream.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	body    int64 // bytes sent after the request's header
	// ask makes a request instead of the fields above, for HTTP/2.
	ask func() (int64, error)
}

func dial(ctx context.Context, address string, request []byte, body int64) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), request: request, body: body}, nil
}

func get(size int64) []byte { return getFrom(fmt.Sprintf("/bytes/%d", size)) }

// getFrom returns a GET request for a path.
func getFrom(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", path)
}

func post(size int64) []byte {
	return fmt.Appendf(nil, "POST /sink HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n", size)
}

var errUnexpectedResponse = errors.New("not the expected response")

// do makes one request and returns the size of the response body.
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

// load describes the requests to send to a proxy.
type load struct {
	address     string
	open        func(context.Context) (*client, error) // instead of address, if set
	request     []byte
	body        int64
	connections int
	rate        float64 // requests per second; 0 means as many as possible
	requests    int64   // in total, within duration; 0 means no limit
	warmup      time.Duration
	duration    time.Duration
	steady      bool // see runSteadily
}

// sample is the result of a load.
type sample struct {
	Requests int64
	Errors   int64
	// Reconnects counts connections that ended without a response; only runSteadily sets
	// it.
	Reconnects int64
	Served     int64 // clients that got at least one response; only runSteadily sets it
	Bytes      int64
	Duration   time.Duration
	failure    error           // one of the errors
	latencies  []time.Duration // sorted; only with a rate
}

func (s sample) percentile(p float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(len(s.latencies)-1, int(p*float64(len(s.latencies))))]
}

// run opens the connections, warms up the proxy, calls measure for the measured part, and
// returns that part's results.
func (l load) run(ctx context.Context, measure func(part func())) (sample, error) {
	if l.steady {
		return l.runSteadily(ctx, measure)
	}
	clients := make([]*client, l.connections)
	for i := range clients {
		c, err := l.connect(ctx)
		if err != nil {
			return sample{}, err
		}
		defer func() { _ = c.conn.Close() }()
		clients[i] = c
	}
	warming := l
	warming.requests = 0
	if warm := warming.runFor(clients, l.warmup, l.warmup/2); warm.Errors > 0 {
		return warm, fmt.Errorf("%d errors while warming up, such as: %w", warm.Errors, warm.failure)
	}
	var s sample
	measure(func() { s = l.runFor(clients, l.duration, 0) })
	return s, nil
}

// runSteadily is run for more connections than the proxy keeps idle. Clients start one by
// one during the warm-up, never all pause, and reconnect if a kept connection was closed.
// Only requests that end during the measurement count.
func (l load) runSteadily(ctx context.Context, measure func(part func())) (s sample, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	steady := steadyLoad{load: l}
	ramp := max(l.warmup/2, time.Duration(l.connections)*time.Millisecond) // otherwise, the proxy closes connections that it cannot read in time
	for i := range l.connections {
		all.Go(func() {
			if sleep(ctx, ramp*time.Duration(i)/time.Duration(l.connections)) == nil {
				steady.loop(ctx)
			}
		})
	}
	if err := errors.Join(sleep(ctx, l.warmup), steady.awaitAll(ctx)); err != nil {
		return s, err
	}
	measure(func() {
		began := time.Now()
		steady.counting.Store(true)
		err = sleep(ctx, l.duration)
		steady.counting.Store(false)
		s.Duration = time.Since(began)
	})
	stop()
	all.Wait()
	s.Served = steady.served.Load()
	s.Requests, s.Bytes, s.Errors, s.Reconnects = steady.requests.Load(), steady.bytes.Load(), steady.rejected.Load(), steady.reconnects.Load()
	if failure, ok := steady.failure.Load().(error); ok {
		s.failure = failure
	}
	return s, err
}

// steadyLoad is shared by the clients of runSteadily.
type steadyLoad struct {
	load
	counting                              atomic.Bool
	served                                atomic.Int64 // clients that got at least one response
	requests, bytes, rejected, reconnects atomic.Int64
	failure                               atomic.Value
}

// awaitAll waits until each client has had a response, for at most a minute.
func (l *steadyLoad) awaitAll(ctx context.Context) error {
	for range 600 {
		if int(l.served.Load()) == l.connections {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// loop has one client send requests until ctx ends.
func (l *steadyLoad) loop(ctx context.Context) {
	var c *client
	var once sync.Once
	defer func() {
		if c != nil {
			_ = c.conn.Close()
		}
	}()
	for ctx.Err() == nil {
		if c == nil {
			var err error
			if c, err = l.connect(ctx); err != nil {
				_ = sleep(ctx, 10*time.Millisecond)
				continue
			}
		}
		n, err := c.do()
		if err == nil {
			once.Do(func() { l.served.Add(1) })
		}
		switch counting := l.counting.Load(); {
		case errors.Is(err, errUnexpectedResponse):
			l.rejected.Add(1)
			l.failure.Store(err)
			return
		case err != nil:
			_ = c.conn.Close()
			c = nil
			if counting {
				l.reconnects.Add(1)
			}
			_ = sleep(ctx, 50*time.Millisecond)
		case counting:
			l.requests.Add(1)
			l.bytes.Add(n + c.body)
		}
	}
}

// connect opens one connection.
func (l load) connect(ctx context.Context) (*client, error) {
	if l.open != nil {
		return l.open(ctx)
	}
	return dial(ctx, l.address, l.request, l.body)
}

// runFor has the clients send requests for length. With a rate, each request has a fixed
// due time, and its latency counts from then. A stall thus delays every request that was
// due in it. The clients start one by one within ramp.
func (l load) runFor(clients []*client, length, ramp time.Duration) sample {
	var s sample
	var next atomic.Int64
	var mu sync.Mutex // guards s
	began := time.Now()
	due := func() (time.Time, bool) {
		if l.rate == 0 {
			now := time.Now()
			return now, now.Sub(began) < length && (l.requests == 0 || next.Add(1) <= l.requests)
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
	return s.sorted()
}

func (s sample) sorted() sample {
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
			return s // the connection may hold the rest of a response
		}
		s.Requests++
		s.Bytes += n + c.body
		if timed {
			s.latencies = append(s.latencies, time.Since(at))
		}
	}
}
