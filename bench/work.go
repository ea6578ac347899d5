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

func (w workload) load(b *bench) load {
	return load{request: get(smallResponse), connections: w.connections, rate: w.rate, warmup: b.duration / 4, duration: b.duration}
}

// addWork starts a proxy once and adds its cost per request at each load. The cost is its
// CPU time and the kernel's counts, which noise does not affect.
func (b *bench) addWork(ctx context.Context, s *section, l launch, loads []workload) error {
	p, err := b.startProxy(ctx, l)
	if err != nil {
		return err
	}
	defer p.stop()
	for _, w := range loads {
		one := w.load(b)
		one.address, one.open = proxyAddress, l.open
		m, err := p.measure(ctx, one)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		s.add("CPU per request, "+w.name, "µs", l.name, float64(m.cpu.Nanoseconds())/1e3/float64(m.Requests))
		if w.rate > 0 {
			s.add("p50, "+w.name, "ms", l.name, float64(m.percentile(.5).Nanoseconds())/1e6)
		}
		if err := b.addCounts(ctx, s, p, l.name, w, one); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// addCounts adds perf's counts. It uses a separate load, since counting costs CPU time.
func (b *bench) addCounts(ctx context.Context, s *section, p *process, name string, w workload, l load) error {
	if len(b.counters) == 0 {
		return nil
	}
	l.duration /= 2
	var counts map[string]float64
	var failed error
	m, err := l.run(ctx, func(part func()) { counts, failed = b.counters.count(ctx, p, part) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	for _, row := range counterRows {
		if n, ok := counts[row]; ok {
			s.add(row+" per request, "+w.name, "", name, n/float64(m.Requests))
		}
	}
	return nil
}
