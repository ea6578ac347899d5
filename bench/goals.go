package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// goal is a limit that a row must meet.
type goal struct {
	kind  goalKind
	limit float64
}

type goalKind int

const (
	noGoal      goalKind = iota
	ratioAtMost          // the naive proxy's value
	ratioAtLeast
	beyondAtMost // more than the naive proxy's value
	atMost
)

// compared returns the value to compare with the limit, by round if possible.
func (g goal) compared(own, base []float64) (value float64, ok bool) {
	switch {
	case len(own) == 0:
		return 0, false
	case g.kind == atMost:
		return median(own), true
	case len(base) == 0 || median(base) == 0:
		return 0, false
	case len(own) != len(base):
		base = []float64{median(base)}
		own = []float64{median(own)}
	}
	values := make([]float64, len(own))
	for i := range own {
		if values[i] = own[i] / base[i]; g.kind == beyondAtMost {
			values[i] = own[i] - base[i]
		}
	}
	return median(values), true
}

func (g goal) isMet(value float64) bool {
	if g.kind == ratioAtLeast {
		return value >= g.limit
	}
	return value <= g.limit
}

func (g goal) String() string {
	switch g.kind {
	case ratioAtMost:
		return fmt.Sprintf("≤ %.2f times", g.limit)
	case ratioAtLeast:
		return fmt.Sprintf("≥ %.2f times", g.limit)
	case beyondAtMost:
		return fmt.Sprintf("≤ %v more", g.limit)
	case atMost:
		return fmt.Sprintf("≤ %v", g.limit)
	case noGoal:
	}
	return ""
}

const goalsNote = "Guard, log and metrics are on. *compared* is the ratio to the naive proxy, the difference or the value, as the goal is. It is the median of the rounds."

// both are the proxies that the goals compare.
var both = []string{naive, ours}

// goalsWork measures the goals for small requests.
func (b *bench) goalsWork(ctx context.Context) error {
	s := b.report.section("goals-work", "Goals: small requests, upstream over HTTP/2", "Responses of 1 KiB. "+goalsNote)
	s.goals = map[string]goal{
		"CPU per request, 64 connections":               {ratioAtMost, .80},
		"CPU per request, 16 connections":               {ratioAtMost, .90},
		"CPU per request, 1 connection":                 {ratioAtMost, 1.05},
		"CPU per request, 1000 requests per second":     {ratioAtMost, 1.05},
		"user instructions per request, 16 connections": {ratioAtMost, .75},
		"writes per request, 1 connection":              {beyondAtMost, .1},
		"writes per request, 16 connections":            {beyondAtMost, .1},
		"p50, 1000 requests per second":                 {beyondAtMost, .015},
	}
	for row, note := range map[string]string{instructions: "no counter of instructions here", writes: "perf cannot count writes here"} {
		if !b.counters.has(row) {
			s.note += " Not measured: " + row + " (" + note + ")."
		}
	}
	return b.measureTogether(ctx, s, both)
}

// goalsBulk measures the goals for 1 GiB in each direction.
func (b *bench) goalsBulk(ctx context.Context) error {
	s := b.report.section("goals-bulk", "Goals: 1 GiB either way", "One connection, and requests of 64 MiB, one after the other. "+goalsNote)
	s.goals = map[string]goal{
		"down, HTTP/2, throughput":   {ratioAtLeast, 1.3},
		"down, HTTP/2, CPU per MiB":  {ratioAtMost, .8},
		"up, HTTP/2, throughput":     {ratioAtLeast, 1},
		"down, HTTP/1.1, throughput": {ratioAtLeast, 1},
		"up, HTTP/1.1, throughput":   {ratioAtLeast, .98},
	}
	for _, proto := range protocols {
		err := b.inRounds(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, func() error {
			return b.withAll(ctx, apart(both), func(proxies []running) error {
				return b.addBulkInTurns(ctx, s, ", "+proto.name, proxies)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	uploadSize = 8 * mebibyte
	uploaders  = 16
	uploads    = 200 // a number, not a time, so noise changes nothing
	// uploadsIdle is how soon the uploads' memory must be free.
	uploadsIdle = 10 * time.Second
)

// goalsUploads measures the goals for kept bodies.
func (b *bench) goalsUploads(ctx context.Context) error {
	s := b.report.section("goals-uploads", "Goals: kept bodies", fmt.Sprintf("%d uploads of 8 MiB in all, %d at a time, without GOMEMLIMIT. %s", uploads, uploaders, goalsNote))
	s.goals = map[string]goal{
		"peak resident, 16 uploads of 8 MiB": {atMost, 96},
		"resident, ten seconds later":        {atMost, 40},
	}
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, both, func(name string) error {
		p, err := b.startProxy(ctx, launch{name: name, http2: true})
		if err != nil {
			return err
		}
		defer p.stop()
		m, err := p.measure(ctx, load{address: proxyAddress, request: post(uploadSize), body: uploadSize, connections: uploaders, requests: uploads, duration: time.Minute})
		if err != nil {
			return err
		}
		s.add("peak resident, 16 uploads of 8 MiB", "MiB", name, float64(m.loaded)/mebibyte)
		s.add("time for all", "s", name, m.Duration.Seconds())
		if err := sleep(ctx, uploadsIdle); err != nil {
			return err
		}
		s.add("resident, ten seconds later", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
		return nil
	})
}

const burstSize = 1000

// goalsBurst measures the goals for 1,000 requests at once to a proxy that has one upstream
// connection.
func (b *bench) goalsBurst(ctx context.Context) error {
	s := b.report.section("goals-burst", "Goals: 1000 requests at once", "Each on its own connection to the proxy, which has one to the upstream. Over HTTP/1.1 a response takes 50 ms. "+goalsNote)
	s.goals = map[string]goal{
		"HTTP/2, connections made": {atMost, 150},
		"HTTP/2, p50":              {atMost, 220},
		"HTTP/2, failures":         {atMost, 0},
		"HTTP/1.1, in all":         {atMost, 1},
		"HTTP/1.1, failures":       {atMost, 0},
	}
	for _, proto := range protocols {
		request := get(smallResponse)
		if !proto.http2 {
			request = getFrom(fmt.Sprintf("/bytes/%d?wait=50ms", smallResponse))
		}
		err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, both, func(name string) error {
			p, err := b.startProxy(ctx, launch{name: name, http2: proto.http2})
			if err != nil {
				return err
			}
			defer p.stop()
			return addBurst(ctx, s, name, proto.name, request)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addBurst sends all requests at once and adds the results.
func addBurst(ctx context.Context, s *section, name, protocol string, request []byte) error {
	clients := make([]*client, burstSize)
	for i := range clients {
		c, err := dial(ctx, proxyAddress, request, 0)
		if err != nil {
			return err
		}
		defer func() { _ = c.conn.Close() }()
		clients[i] = c
	}
	before, err := upstreamConnections(ctx)
	if err != nil {
		return err
	}
	one := burst(clients)
	after, err := upstreamConnections(ctx)
	if err != nil {
		return err
	}
	s.add(protocol+", connections made", "", name, float64(after-before))
	s.add(protocol+", p50", "ms", name, float64(one.percentile(.5).Microseconds())/1e3)
	s.add(protocol+", in all", "s", name, one.Duration.Seconds())
	s.add(protocol+", failures", "", name, float64(one.Errors))
	return nil
}

// burst has every client make one request at the same time.
func burst(clients []*client) (s sample) {
	took := make([]time.Duration, len(clients))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			<-begin
			from := time.Now()
			if _, err := c.do(); err != nil {
				took[i] = -1
				return
			}
			took[i] = time.Since(from)
		})
	}
	from := time.Now()
	close(begin)
	all.Wait()
	s.Duration = time.Since(from)
	for _, d := range took {
		if d < 0 {
			s.Errors++
		} else {
			s.latencies = append(s.latencies, d)
		}
	}
	return s.sorted()
}

// upstreamConnections asks the upstream how many TLS connections it has ever accepted.
func upstreamConnections(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+plainAddress+"/connections", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}
