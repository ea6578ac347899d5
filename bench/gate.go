package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// gateLimits are the proxy's limits per request, relative to the naive proxy.
type gateLimits struct {
	writes       float64 // beyond the naive proxy's, per request
	instructions float64 // as a multiple of the naive proxy's user instructions
}

var errGate = errors.New("the proxy takes too much for a request")

const (
	// With one connection, a response takes one write even on a slow machine. With more, a
	// slow machine flushes it in two.
	gateWriteConnections = 1
	// The log is written on a timer, so a very slow machine writes it more often per
	// request. Writes that the code causes show in every attempt.
	gateAttempts = 3
	// Instructions are counted at a load where concurrent requests share batched work.
	gateConnections = 16
)

// gate fails if the proxy makes more writes or uses more instructions per request than its
// limits. Counts do not depend on how busy the machine is. It reports what it cannot count.
func (b *bench) gate(ctx context.Context) error {
	up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL})
	if err != nil {
		return err
	}
	defer up.stop()
	return errors.Join(b.gateWrites(ctx), b.gateInstructions(ctx))
}

func (b *bench) gateWrites(ctx context.Context) error {
	if !b.strace {
		fmt.Fprintln(os.Stderr, "writes per request: not checked, since strace is not installed or may not trace")
		return nil
	}
	var beyond float64
	for range gateAttempts {
		total := map[string]float64{}
		for _, name := range both {
			var err error
			if total[name], err = b.gateCount(ctx, name); err != nil {
				return err
			}
		}
		if beyond = total[ours] - total[naive]; beyond <= b.limits.writes {
			return nil
		}
	}
	return fmt.Errorf("%w: %.2f writes beyond the naive proxy's; at most %v", errGate, beyond, b.limits.writes)
}

// gateCount counts a proxy's writes, except those that wake Go's own poller.
func (b *bench) gateCount(ctx context.Context, name string) (float64, error) {
	counts, err := b.countWrites(ctx, launch{name: name, http2: true}, gateWriteConnections)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "writes per request, %s: %.3f to the client, %.3f to the upstream, %.3f to the log\n", name, counts[toClient], counts[toUpstream], counts[toLog])
	return counts[toClient] + counts[toUpstream] + counts[toLog], nil
}

func (b *bench) gateInstructions(ctx context.Context) error {
	if !b.counters.has(instructions) {
		fmt.Fprintln(os.Stderr, "user instructions per request: not checked, since perf is not installed or cannot count them here")
		return nil
	}
	perRequest := map[string]float64{}
	for _, name := range both {
		n, err := b.countInstructions(ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "user instructions per request, %s: %.0f\n", name, n)
		perRequest[name] = n
	}
	if ratio := perRequest[ours] / perRequest[naive]; ratio > b.limits.instructions {
		return fmt.Errorf("%w: %.2f times the naive proxy's user instructions; at most %v", errGate, ratio, b.limits.instructions)
	}
	return nil
}

func (b *bench) countInstructions(ctx context.Context, name string) (float64, error) {
	p, err := b.startProxy(ctx, launch{name: name, http2: true})
	if err != nil {
		return 0, err
	}
	defer p.stop()
	var counts map[string]float64
	var failed error
	l := load{address: proxyAddress, request: get(smallResponse), connections: gateConnections, warmup: time.Second, duration: 4 * time.Second}
	m, err := l.run(ctx, func(part func()) {
		counts, failed = counters{"instructions:u": instructions}.count(ctx, p, part)
	})
	return counts[instructions] / float64(max(m.Requests, 1)), errors.Join(err, failed)
}
