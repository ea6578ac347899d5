package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// other is a second build of the proxy.
const other = "other build"

const (
	smallResponse = 1 << 10
	gibibyte      = 1 << 30
	mebibyte      = 1 << 20
)

// protocols are those to the upstream. nginx speaks HTTP/1.1 in either.
var protocols = []struct {
	name  string
	http2 bool
}{{"HTTP/2", true}, {"HTTP/1.1", false}}

// measured is what a load cost.
type measured struct {
	sample
	cpu          time.Duration
	idle, loaded int64 // resident bytes: before, and the most while under load
}

// measureLoad starts a proxy, puts a load on it and stops it.
func (b *bench) measureLoad(ctx context.Context, name string, http2 bool, l load) (m measured, err error) {
	p, err := b.startProxy(ctx, name, http2)
	if err != nil {
		return m, err
	}
	defer p.stop()
	m.idle = p.memory("VmRSS")
	p.resetPeak()
	l.address = proxyAddress
	m.sample, err = l.run(ctx, func(part func()) {
		before := p.cpu()
		part()
		m.cpu = p.cpu() - before
	})
	m.loaded = p.memory("VmHWM")
	if err == nil && m.Errors > 0 {
		err = fmt.Errorf("%s: %d of %d requests got no response: %w", name, m.Errors, m.Requests+m.Errors, m.failure)
	}
	return m, err
}

// measureEach measures all proxies in turn, round after round.
func (b *bench) measureEach(ctx context.Context, o upstreamOptions, names []string, one func(name string) error) error {
	up, err := b.startUpstream(ctx, o)
	if err != nil {
		return err
	}
	defer up.stop()
	for range b.rounds {
		for _, name := range names {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := one(name); err != nil {
				return err
			}
		}
	}
	return nil
}

const longTokenTTL = 30 * time.Minute

// cost is CPU per request and throughput, at several numbers of connections.
func (b *bench) cost(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section("Small answers, upstream over "+proto.name,
			"Answers of 1 KiB, as many as can be. CPU is the proxy's own, per request.")
		for _, connections := range b.connections {
			err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
				m, err := b.measureLoad(ctx, name, proto.http2, load{request: get(smallResponse), connections: connections, warmup: b.duration / 4, duration: b.duration})
				if err != nil {
					return err
				}
				at := fmt.Sprintf(", %d connections", connections)
				if connections == 1 {
					at = ", 1 connection"
				}
				s.add("CPU per request"+at, "µs", name, float64(m.cpu.Nanoseconds())/1e3/float64(m.Requests))
				s.add("requests a second"+at, "", name, float64(m.Requests)/m.Duration.Seconds())
				if connections == 64 {
					s.add("resident, just started", "MiB", name, float64(m.idle)/mebibyte)
					s.add("resident, most under load"+at, "MiB", name, float64(m.loaded)/mebibyte)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

const fixedRate = 1000

// latency is what a proxy adds at a fixed rate.
func (b *bench) latency(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section(fmt.Sprintf("Latency at %d requests a second, upstream over %s", fixedRate, proto.name),
			"Answers of 1 KiB over 64 connections. Each request has its time, whatever became of those before it, and its latency counts from then.")
		err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, append([]string{direct}, b.subjects...), func(name string) error {
			return b.addPercentiles(ctx, s, "", name, proto.http2, 2*b.duration)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addPercentiles adds the percentiles of a load at the fixed rate, under a label.
func (b *bench) addPercentiles(ctx context.Context, s *section, label, name string, http2 bool, length time.Duration) error {
	l := load{request: get(smallResponse), connections: 64, rate: fixedRate, warmup: b.duration / 4, duration: length}
	var m measured
	var err error
	if name == direct {
		l.address = plainAddress
		l.request = []byte(strings.Replace(string(l.request), "Accept:", "Authorization: Bearer x\r\nAccept:", 1))
		m.sample, err = l.run(ctx, func(part func()) { part() })
	} else {
		m, err = b.measureLoad(ctx, name, http2, l)
	}
	if err != nil {
		return err
	}
	for _, p := range []struct {
		share float64
		name  string
	}{{.5, "p50"}, {.99, "p99"}, {.999, "p99.9"}, {1, "slowest"}} {
		s.add(p.name+label, "ms", name, float64(m.percentile(p.share).Microseconds())/1e3)
	}
	return nil
}

// renewals is the same while tokens are renewed, and while they are not.
func (b *bench) renewals(ctx context.Context) error {
	s := b.report.section(fmt.Sprintf("Latency at %d requests a second across renewals", fixedRate),
		"As above over HTTP/2, for longer. With renewals a token lives 15 s and a token request takes 500 ms.")
	names := slices.DeleteFunc(slices.Clone(b.subjects), func(n string) bool { return n == nginx || n == haproxy })
	length := max(45*time.Second, b.duration)
	rounds := b.rounds
	b.rounds = 1
	defer func() { b.rounds = rounds }()
	for _, with := range []struct {
		label    string
		lifetime time.Duration
	}{{", no renewal", longTokenTTL}, {", with renewals", 15 * time.Second}} {
		err := b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: with.lifetime, TokenDelay: 500 * time.Millisecond}, names, func(name string) error {
			return b.addPercentiles(ctx, s, with.label, name, true, length)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// idleTime is how long a proxy has had nothing to do when it counts as idle.
const idleTime = 25 * time.Second

// idleMemory is what is resident before there is any work, and after it.
func (b *bench) idleMemory(ctx context.Context) error {
	s := b.report.section("At rest", fmt.Sprintf("Resident %v after the first answer, and as long after the last of as many as could be over 64 connections.", idleTime))
	rounds := b.rounds
	b.rounds = 1
	defer func() { b.rounds = rounds }()
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
		p, err := b.startProxy(ctx, name, true)
		if err != nil {
			return err
		}
		defer p.stop()
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		s.add("idle from the start", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
		l := load{address: proxyAddress, request: get(smallResponse), connections: 64, duration: b.duration}
		if _, err := l.run(ctx, func(part func()) { part() }); err != nil {
			return err
		}
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		s.add("idle after work", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
		return nil
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bulk is 1 GiB in one response, and in one request.
func (b *bench) bulk(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section("1 GiB either way, upstream over "+proto.name, "One connection, one request. Memory is the most that was resident, less what was resident idle.")
		err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
			for _, way := range []struct {
				name string
				load
			}{
				{"down", load{request: get(gibibyte), connections: 1}},
				{"up", load{request: post(gibibyte), body: gibibyte, connections: 1}},
			} {
				way.duration = time.Millisecond // one request begins within it
				m, err := b.measureLoad(ctx, name, proto.http2, way.load)
				if err != nil {
					return err
				}
				s.add(way.name+", throughput", "MiB/s", name, float64(m.Bytes)/mebibyte/m.Duration.Seconds())
				s.add(way.name+", CPU per MiB", "µs", name, float64(m.cpu.Microseconds())/(float64(m.Bytes)/mebibyte))
				s.add(way.name+", memory", "MiB", name, float64(m.loaded-m.idle)/mebibyte)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// start is the time from exec to the first response, the token included, and the
// size of what is executed.
func (b *bench) start(ctx context.Context) error {
	s := b.report.section("Start", "From exec to the end of the first proxied answer, the token included; a port that does not listen yet is asked again every 100 µs.")
	rounds := b.rounds
	b.rounds = 10
	defer func() { b.rounds = rounds }()
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
		began := time.Now()
		p, err := b.startProxy(ctx, name, true)
		if err != nil {
			return err
		}
		s.add("first answer", "ms", name, float64(time.Since(began).Microseconds())/1e3)
		p.stop()
		if name == ours {
			info, err := os.Stat(b.binary)
			if err != nil {
				return err
			}
			s.add("size of the binary", "MiB", name, float64(info.Size())/mebibyte)
		}
		return nil
	})
}

// curves are the proxy's costs as the work grows.
func (b *bench) curves(ctx context.Context) error {
	up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL})
	if err != nil {
		return err
	}
	defer up.stop()
	cpu, memory := b.report.curve("connections", "connections", "CPU per request, µs"), b.report.curve("memory", "connections", "resident, MiB")
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		m, err := b.measureLoad(ctx, ours, true, load{request: get(smallResponse), connections: n, warmup: b.duration, duration: b.duration})
		if err != nil {
			return err
		}
		cpu.add(float64(n), float64(m.cpu.Nanoseconds())/1e3/float64(m.Requests))
		memory.add(float64(n), float64(m.loaded)/mebibyte)
	}
	perByte, most := b.report.curve("sizes", "answer, KiB", "CPU per MiB, µs"), b.report.curve("sizes-memory", "answer, KiB", "resident, MiB")
	for size := int64(1 << 10); size <= gibibyte; size <<= 5 {
		m, err := b.measureLoad(ctx, ours, true, load{request: get(size), connections: 4, warmup: b.duration / 4, duration: b.duration})
		if err != nil {
			return err
		}
		perByte.add(float64(size>>10), float64(m.cpu.Microseconds())/(float64(m.Bytes)/mebibyte))
		most.add(float64(size>>10), float64(m.loaded)/mebibyte)
	}
	uploads := b.report.curve("uploads", "concurrent uploads of 1 MiB", "resident, MiB")
	for _, n := range []int{1, 10, 100, 1000} {
		m, err := b.measureLoad(ctx, ours, true, load{request: post(mebibyte), body: mebibyte, connections: n, duration: b.duration})
		if err != nil {
			return err
		}
		uploads.add(float64(n), float64(m.loaded)/mebibyte)
	}
	return nil
}
