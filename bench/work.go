package main

import (
	"context"
	"fmt"
)

// workload is a load at which proxies are compared.
type workload struct {
	name        string
	connections int
	rate        float64 // 0 means as many requests as possible
}

// fixedRate is the rate, in requests per second, of many clients that do not wait for one
// another.
const fixedRate = 1000

// loads returns the loads, lowest first: real clients are few and slow.
func (b *bench) loads() []workload {
	loads := []workload{{fmt.Sprintf("%d requests per second", fixedRate), 64, fixedRate}}
	for i, n := range b.connections {
		name := fmt.Sprintf("%d connections", n)
		if n == 1 {
			name = "1 connection"
		}
		w := workload{name, n, 0}
		if n == 1 && i == 0 {
			loads = append([]workload{w}, loads...)
		} else {
			loads = append(loads, w)
		}
	}
	return loads
}

func (w workload) load(b *bench, of launch) load {
	return load{address: of.address(proxyPort), open: of.open, request: get(smallResponse), connections: w.connections, rate: w.rate, warmup: b.duration / 4, duration: b.duration}
}

// turns is the number of parts of a measurement. Proxies that run at the same time take
// turns, so that a machine whose speed varies is as fast for each of them.
const turns = 10

// running is a proxy that runs.
type running struct {
	launch
	process *process
}

// addWork starts proxies once and adds their cost per request at each load. The cost is the
// CPU time and the kernel's counts, which noise does not affect.
func (b *bench) addWork(ctx context.Context, s *section, loads []workload, launches ...launch) error {
	return b.withAll(ctx, launches, func(proxies []running) error {
		for _, w := range loads {
			if err := b.addCost(ctx, s, w, proxies); err != nil {
				return err
			}
		}
		return nil
	})
}

// withAll calls measure while all proxies run.
func (b *bench) withAll(ctx context.Context, launches []launch, measure func([]running) error) error {
	var proxies []running
	for _, l := range launches {
		p, err := b.startProxy(ctx, l)
		if err != nil {
			return err
		}
		defer p.stop()
		proxies = append(proxies, running{l, p})
	}
	return measure(proxies)
}

// inTurns runs a load n times against each proxy, and returns each one's sums. Of the
// memory, loaded is the most beyond idle, which is 0.
func inTurns(ctx context.Context, n int, proxies []running, of func(running) load) ([]measured, error) {
	total := make([]measured, len(proxies))
	for range n {
		for i, p := range proxies {
			m, err := p.process.measure(ctx, of(p))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			t := &total[i]
			t.cpu += m.cpu
			t.Requests += m.Requests
			t.Bytes += m.Bytes
			t.Duration += m.Duration
			t.latencies = append(t.latencies, m.latencies...)
			t.loaded = max(t.loaded, m.loaded-m.idle)
		}
	}
	return total, nil
}

// bulkTurns is the number of requests among which proxies that take turns share 1 GiB.
const bulkTurns = 16

// addBulkInTurns adds 1 GiB in each direction, for proxies that take turns.
func (b *bench) addBulkInTurns(ctx context.Context, s *section, label string, proxies []running) error {
	const size = gibibyte / bulkTurns
	for way, l := range []load{{request: get(size)}, {request: post(size), body: size}} {
		l.connections, l.duration = 1, oneRequest
		total, err := inTurns(ctx, bulkTurns, proxies, func(p running) load {
			l.address = p.address(proxyPort)
			return l
		})
		if err != nil {
			return err
		}
		for i, p := range proxies {
			s.addBulk([]string{"down", "up"}[way]+label, p.name, total[i])
		}
	}
	return nil
}

// addCost adds the cost per request of proxies at a load.
func (b *bench) addCost(ctx context.Context, s *section, w workload, proxies []running) error {
	total, err := inTurns(ctx, turns, proxies, func(p running) load {
		one := w.load(b, p.launch)
		one.warmup, one.duration = one.warmup/turns, one.duration/turns
		return one
	})
	if err != nil {
		return err
	}
	for i, p := range proxies {
		s.add("CPU per request, "+w.name, "µs", p.name, float64(total[i].cpu.Nanoseconds())/1e3/float64(total[i].Requests))
		if w.rate > 0 {
			s.add("p50, "+w.name, "ms", p.name, float64(total[i].sorted().percentile(.5).Nanoseconds())/1e6)
		}
		if err := b.addCounts(ctx, s, p, w); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// addCounts adds perf's counts. It uses a separate load, since counting costs CPU time.
func (b *bench) addCounts(ctx context.Context, s *section, p running, w workload) error {
	if len(b.counters) == 0 {
		return nil
	}
	l := w.load(b, p.launch)
	l.duration /= 2
	var counts map[string]float64
	var failed error
	m, err := l.run(ctx, func(part func()) { counts, failed = b.counters.count(ctx, p.process, part) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	for _, row := range counterRows {
		if n, ok := counts[row]; ok {
			s.add(row+" per request, "+w.name, "", p.name, n/float64(m.Requests))
		}
	}
	return nil
}
