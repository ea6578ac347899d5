// Command soak runs the program for a long time with mixed traffic. Mimecast and the network
// fail at random, and tokens live for seconds. At the end it reports whether a response was
// lost or wrong, or a request executed twice. It also reports growth of memory, goroutines
// and file descriptors.
//
//	go run ./internal/soak -for 30m
//
// With -hostile, Mimecast and the network do not fail. Instead, crowds of hostile clients come
// and go beside the traffic, and the client secret is replaced every few seconds. At the end
// the program is stopped during the attack.
//
//	go run ./internal/soak -hostile -for 30m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"time"

	"mimecast-proxy/internal/relay"
	"mimecast-proxy/internal/traffic"
	"mimecast-proxy/simulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// options are the command-line options.
type options struct {
	length, round, think time.Duration
	clients              int
	seed                 uint64
	hostile              bool
	crowd                int
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&o.length, "for", 30*time.Minute, "how long")
	flags.DurationVar(&o.round, "round", time.Minute, "how long between two looks at the accounts, for which the traffic pauses")
	flags.IntVar(&o.clients, "clients", 16, "how many ask at the same time")
	flags.DurationVar(&o.think, "think", 20*time.Millisecond, "how long a client pauses between two requests, at most")
	flags.Uint64Var(&o.seed, "seed", 0, "what faults and requests are made up from; 0 takes a new one")
	flags.BoolVar(&o.hostile, "hostile", false, "set hostile clients on the program, in place of faults")
	flags.IntVar(&o.crowd, "crowd", 200, "how many hostile clients there are at the same time, for each of two processes")
	if err = flags.Parse(args); err == nil && (o.length <= 0 || o.round <= 0 || o.clients <= 0 || o.crowd <= 0 || o.think < 0) {
		err = errors.New("-for, -round, -clients and -crowd must be more than nothing, and -think not less")
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o, err
}

// tokenTTL is the lifetime of tokens. A few seconds mean that half an hour has about as
// many renewals as a production day.
const tokenTTL = 4 * time.Second

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, path, err := build()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.hostile {
		return runHostile(ctx, o, dir, path, out)
	}
	return runFaults(ctx, o, dir, path, out)
}

func runFaults(ctx context.Context, o options, dir, path string, out io.Writer) (err error) {
	sim, err := simulator.Start(simulator.Options{
		TokenTTL: tokenTTL, HeldMessages: 1 << 30, RequestLog: 4 * o.clients,
		Quotas: map[string]simulator.Quota{"/api/audit/get-audit-events": {Calls: 40, Window: time.Second}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	net, err := relay.Start(strings.TrimPrefix(sim.URL, "https://"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	variables, err := environ(sim, dir, "MIMECAST_BASE_URL=https://"+net.Addr(), "MIMECAST_CLIENT_SECRET="+simulator.DefaultClientSecret,
		"PROXY_RATE_LIMIT_WAIT=3s", "PROXY_RESPONSE_TIMEOUT=5s", "PROXY_DIAL_TIMEOUT=3s")
	if err != nil {
		return err
	}
	p, err := launch(path, variables)
	if err != nil {
		return err
	}
	defer p.stop()
	s := &soak{options: o, sim: sim, net: net, proxy: p, out: out, rand: rand.New(rand.NewPCG(o.seed, 0)), tally: tally{}}
	s.client = &traffic.Client{URL: url, Sim: sim, HTTP: p.client, MaxBody: 256 << 10}
	return s.run(ctx)
}
