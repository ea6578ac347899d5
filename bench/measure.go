package main

import (
	"context"
	"errors"
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

// protocols are the upstream protocols. nginx always speaks HTTP/1.1.
var protocols = []protocol{{"HTTP/2", true}, {"HTTP/1.1", false}}

type protocol struct {
	name  string
	http2 bool
}

// id returns the protocol's part of a section ID.
func (p protocol) id() string {
	if p.http2 {
		return "http2"
	}
	return "http1"
}

// measured is the cost of a load.
type measured struct {
	sample
	cpu          time.Duration
	idle, loaded int64 // resident bytes: before the load, and the peak under it
}

// measureLoad starts a proxy, runs a load against it and stops it.
func (b *bench) measureLoad(ctx context.Context, name string, http2 bool, l load) (measured, error) {
	p, err := b.startProxy(ctx, launch{name: name, http2: http2})
	if err != nil {
		return measured{}, err
	}
	defer p.stop()
	l.address = proxyAddress
	m, err := p.measure(ctx, l)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return m, err
}

// measure runs a load against a proxy.
func (p *process) measure(ctx context.Context, l load) (m measured, err error) {
	m.idle = p.memory("VmRSS")
	p.resetPeak()
	m.sample, err = l.run(ctx, func(part func()) {
		before := p.cpu()
		part()
		m.cpu = p.cpu() - before
	})
	m.loaded = p.memory("VmHWM")
	if err == nil && m.Errors > 0 {
		err = fmt.Errorf("%d of %d requests got no response: %w", m.Errors, m.Requests+m.Errors, m.failure)
	}
	return m, err
}

// measureEach measures all proxies in turn, round by round.
func (b *bench) measureEach(ctx context.Context, o upstreamOptions, names []string, one func(name string) error) error {
	return b.inRounds(ctx, o, func() error {
		for _, name := range names {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := one(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// measureTogether measures the cost of small requests of proxies that run at the same time.
func (b *bench) measureTogether(ctx context.Context, s *section, names []string) error {
	return b.inRounds(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, func() error {
		return b.addWork(ctx, s, b.loads(), apart(names)...)
	})
}

// apart returns proxies that can run at the same time.
func apart(names []string) []launch {
	var launches []launch
	for i, name := range names {
		launches = append(launches, launch{name: name, http2: true, host: loopback(i)})
	}
	return launches
}

// loopback returns the address of one of several proxies that run at the same time.
func loopback(i int) string { return fmt.Sprintf("127.0.0.%d", i+1) }

// inRounds starts an upstream and calls round as often as asked for.
func (b *bench) inRounds(ctx context.Context, o upstreamOptions, round func() error) error {
	up, err := b.startUpstream(ctx, o)
	if err != nil {
		return err
	}
	defer up.stop()
	for range b.rounds {
		if err := round(); err != nil {
			return err
		}
	}
	return nil
}

const longTokenTTL = 30 * time.Minute

// cost measures CPU per request and throughput at several numbers of connections.
func (b *bench) cost(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section("cost-"+proto.id(), "Small responses, upstream over "+proto.name,
			"Responses of 1 KiB, at full load. CPU is the CPU time of the proxy process per request.")
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
				s.add("requests per second"+at, "", name, float64(m.Requests)/m.Duration.Seconds())
				if connections == 64 {
					s.add("resident, just started", "MiB", name, float64(m.idle)/mebibyte)
					s.add("resident, peak under load"+at, "MiB", name, float64(m.loaded)/mebibyte)
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

// latency measures the latency that a proxy adds at a fixed rate.
func (b *bench) latency(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section("latency-"+proto.id(), fmt.Sprintf("Latency at %d requests per second, upstream over %s", fixedRate, proto.name),
			"Responses of 1 KiB over 64 connections. Each request has a scheduled time, and its latency counts from then.")
		err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, append([]string{direct}, b.subjects...), func(name string) error {
			return b.addPercentiles(ctx, s, "", name, proto.http2, 2*b.duration)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addPercentiles adds a load's percentiles at the fixed rate, under a label.
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

// renewals measures latency with and without token renewals.
func (b *bench) renewals(ctx context.Context) error {
	s := b.report.section("renewals", fmt.Sprintf("Latency at %d requests per second across renewals", fixedRate),
		"As above over HTTP/2, for longer. In the run with renewals, a token lives 15 s and a token request takes 500 ms.")
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

// idleTime is how long a proxy must have no work to count as idle.
const idleTime = 25 * time.Second

// rest measures an idle proxy: its memory before and after work, and the cost of its
// timers.
func (b *bench) rest(ctx context.Context) error {
	s := b.report.section("rest", "At rest", fmt.Sprintf("Resident memory %v after the first response, and %[1]v after full load over 64 connections. Then each proxy is watched for %v. Wake-ups are the context switches of all its threads. CPU time is extrapolated to a day.", idleTime, b.idle))
	s.goals = map[string]goal{"resident, idle after work": {atMost, 16}, "wake-ups per second": {atMost, 5}}
	rounds := b.rounds
	b.rounds = 1
	defer func() { b.rounds = rounds }()
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
		p, err := b.startProxy(ctx, launch{name: name, http2: true})
		if err != nil {
			return err
		}
		defer p.stop()
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		s.add("resident, idle from the start", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
		l := load{address: proxyAddress, request: get(smallResponse), connections: 64, duration: b.duration}
		if _, err := l.run(ctx, func(part func()) { part() }); err != nil {
			return err
		}
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		s.add("resident, idle after work", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
		return b.addIdle(ctx, s, name, p)
	})
}

// addIdle measures an idle proxy's CPU time and wake-ups.
func (b *bench) addIdle(ctx context.Context, s *section, name string, p *process) error {
	cpu, switches, began := p.cpu(), p.switches(), time.Now()
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	cpu, switches = p.cpu()-cpu, p.switches()-switches
	took := time.Since(began)
	s.add("wake-ups per second", "", name, float64(switches)/took.Seconds())
	s.add("CPU time per day", "s", name, cpu.Seconds()*float64(24*time.Hour)/float64(took))
	s.add("resident, at the end", "MiB", name, float64(p.memory("VmRSS"))/mebibyte)
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bulk measures 1 GiB in one response and in one request.
func (b *bench) bulk(ctx context.Context) error {
	for _, proto := range protocols {
		s := b.report.section("bulk-"+proto.id(), "1 GiB either way, upstream over "+proto.name, "One connection, one request. Memory is the peak resident memory minus the idle resident memory.")
		err := b.measureEach(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
			return b.addBulk(ctx, s, name, proto.http2, "")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addBulk adds both directions, under a label.
func (b *bench) addBulk(ctx context.Context, s *section, name string, http2 bool, label string) error {
	for _, way := range []struct {
		name string
		load
	}{
		{"down", load{request: get(gibibyte), connections: 1}},
		{"up", load{request: post(gibibyte), body: gibibyte, connections: 1}},
	} {
		way.duration = oneRequest
		m, err := b.measureLoad(ctx, name, http2, way.load)
		if err != nil {
			return err
		}
		s.addBulk(way.name+label, name, m)
	}
	return nil
}

// oneRequest is a duration in which only one request of a connection begins.
const oneRequest = time.Millisecond

func (s *section) addBulk(label, name string, m measured) {
	s.add(label+", throughput", "MiB/s", name, float64(m.Bytes)/mebibyte/m.Duration.Seconds())
	s.add(label+", CPU per MiB", "µs", name, float64(m.cpu.Microseconds())/(float64(m.Bytes)/mebibyte))
	s.add(label+", memory", "MiB", name, float64(m.loaded-m.idle)/mebibyte)
}

// start measures the time from exec to the first response, including the token request, and
// the size of the executable.
func (b *bench) start(ctx context.Context) error {
	s := b.report.section("start", "Start", "From exec to the end of the first proxied response, token request included. The client retries every 100 µs until the port listens.")
	rounds := b.rounds
	b.rounds = 10
	defer func() { b.rounds = rounds }()
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, b.subjects, func(name string) error {
		began := time.Now()
		p, err := b.startProxy(ctx, launch{name: name, http2: true})
		if err != nil {
			return err
		}
		s.add("first response", "ms", name, float64(time.Since(began).Microseconds())/1e3)
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

// curves measures the proxy's costs as the work grows.
func (b *bench) curves(ctx context.Context) error {
	up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL})
	if err != nil {
		return err
	}
	defer up.stop()
	return errors.Join(b.curveOfConnections(ctx), b.curveOfSizes(ctx), b.curveOfUploads(ctx))
}

const (
	cpuPerRequest = "CPU per request, µs"
	cpuPerMiB     = "CPU per MiB, µs"
	residentPeak  = "peak resident, MiB"
	reconnects    = "reconnections"
	served        = "clients served"
)

func (b *bench) curveOfConnections(ctx context.Context) error {
	s := b.report.section("curve-connections", "By connections", "Responses of 1 KiB, at full load. Reconnections are of clients whose connection the proxy closed between two requests.")
	s.names = []string{cpuPerRequest, residentPeak, served, reconnects}
	cpu, memory := b.report.curve("connections", "connections", cpuPerRequest), b.report.curve("memory", "connections", residentPeak)
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		m, err := b.measureLoad(ctx, ours, true, load{request: get(smallResponse), connections: n, warmup: 2 * b.duration, duration: b.duration, steady: true})
		if err != nil {
			return err
		}
		label := fmt.Sprintf("%d connections", n)
		s.add(label, "", cpuPerRequest, cpu.add(float64(n), float64(m.cpu.Nanoseconds())/1e3/float64(m.Requests)))
		s.add(label, "", residentPeak, memory.add(float64(n), float64(m.loaded)/mebibyte))
		s.add(label, "", served, float64(m.Served))
		s.add(label, "", reconnects, float64(m.Reconnects))
	}
	return nil
}

func (b *bench) curveOfSizes(ctx context.Context) error {
	s := b.report.section("curve-sizes", "By size", "Four responses at a time.")
	s.names = []string{cpuPerMiB, residentPeak}
	cpu, memory := b.report.curve("sizes", "response, KiB", cpuPerMiB), b.report.curve("sizes-memory", "response, KiB", residentPeak)
	for size := int64(1 << 10); size <= gibibyte; size <<= 5 {
		m, err := b.measureLoad(ctx, ours, true, load{request: get(size), connections: 4, warmup: b.duration / 4, duration: b.duration})
		if err != nil {
			return err
		}
		label := fmt.Sprintf("%d KiB", size>>10)
		s.add(label, "", cpuPerMiB, cpu.add(float64(size>>10), float64(m.cpu.Microseconds())/(float64(m.Bytes)/mebibyte)))
		s.add(label, "", residentPeak, memory.add(float64(size>>10), float64(m.loaded)/mebibyte))
	}
	return nil
}

func (b *bench) curveOfUploads(ctx context.Context) error {
	s := b.report.section("curve-uploads", "By uploads", "Uploads of 1 MiB, again and again.")
	s.names = []string{residentPeak, served, reconnects}
	memory := b.report.curve("uploads", "concurrent uploads of 1 MiB", residentPeak)
	for _, n := range []int{1, 10, 100, 1000} {
		m, err := b.measureLoad(ctx, ours, true, load{request: post(mebibyte), body: mebibyte, connections: n, warmup: b.duration, duration: 2 * b.duration, steady: true})
		if err != nil {
			return err
		}
		label := fmt.Sprintf("%d uploads", n)
		s.add(label, "", residentPeak, memory.add(float64(n), float64(m.loaded)/mebibyte))
		s.add(label, "", served, float64(m.Served))
		s.add(label, "", reconnects, float64(m.Reconnects))
	}
	return nil
}
