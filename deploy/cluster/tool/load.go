package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// counts are the results of a load.
type counts struct {
	mu sync.Mutex

	Sent     int            `json:"sent"`
	Statuses map[int]int    `json:"statuses"`
	Errors   map[string]int `json:"errors"`
	// Resent counts the requests that net/http resent after losing the connection. Other
	// clients might fail such requests.
	Resent      int     `json:"resent"`
	Connections int     `json:"connections"`
	Slowest     float64 `json:"slowest"` // seconds
}

// loader sends requests at a steady rate, alternating GET and POST.
type loader struct {
	url, keyFile string
	client       *http.Client
	counts       counts
}

// load sends requests until ctx is done, then waits for those in flight. It prints the
// counts every second and at the end.
func load(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	rate := flags.Int("rate", 200, "requests per second")
	keepAlive := flags.Bool("keep-alive", true, "reuse connections")
	keyFile := flags.String("key", "", "file with the proxy's key, read for each request")
	if err := flags.Parse(args); err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: !*keepAlive, MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	l := &loader{
		url: flags.Arg(0), keyFile: *keyFile,
		client: &http.Client{Transport: transport, Timeout: 30 * time.Second},
		counts: counts{Statuses: map[int]int{}, Errors: map[string]int{}},
	}
	tick, report := time.NewTicker(time.Second/time.Duration(*rate)), time.NewTicker(time.Second)
	defer tick.Stop()
	defer report.Stop()
	begin := time.Now()
	var inFlight sync.WaitGroup
	for started := 0; ; {
		select {
		case <-ctx.Done():
			inFlight.Wait()
			return l.counts.print(stdout)
		case <-report.C:
			if err := l.counts.print(stdout); err != nil {
				return err
			}
		case <-tick.C:
			// A ticker drops ticks on a busy machine, so compute from the clock how many
			// are due.
			for due := int(time.Since(begin).Seconds() * float64(*rate)); started < due; started++ {
				inFlight.Go(func() { l.send(started) })
			}
		}
	}
}

// send makes one request. It does not use load's context, because load waits for requests
// in flight.
func (l *loader) send(n int) {
	var connections, reused atomic.Int32
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			connections.Add(1)
			if i.Reused {
				reused.Add(1)
			}
		},
	})
	begin := time.Now()
	status, err := l.request(ctx, n)
	l.counts.add(status, err, int(connections.Load()), int(reused.Load()), time.Since(begin))
}

func (l *loader) request(ctx context.Context, n int) (status int, err error) {
	method, path, body := http.MethodGet, "/identity/whoami", io.Reader(nil)
	if n%2 == 1 {
		method, path, body = http.MethodPost, "/api/account/get-account", strings.NewReader(`{"data":[]}`)
	}
	req, err := http.NewRequestWithContext(ctx, method, l.url+path, body)
	if err != nil {
		return 0, err
	}
	if l.keyFile != "" {
		key, err := os.ReadFile(l.keyFile)
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Proxy-Key", strings.TrimSpace(string(key)))
	}
	res, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func (c *counts) add(status int, err error, connections, reused int, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Sent++
	if err != nil {
		// Drop the ports, which differ each time.
		c.Errors[cmp.Or(rootOf(err).Error(), "unknown")]++
	} else {
		c.Statuses[status]++
	}
	c.Resent += max(0, connections-1)
	c.Connections += connections - reused
	c.Slowest = max(c.Slowest, took.Seconds())
}

func rootOf(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

func (c *counts) print(w io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}
