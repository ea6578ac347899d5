package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"mimecast-proxy/internal/relay"
	"mimecast-proxy/internal/traffic"
	"mimecast-proxy/simulator"
)

// tally counts outcomes by kind of request.
type tally map[string]map[string]int

func (t tally) add(kind, outcome string) {
	if t[kind] == nil {
		t[kind] = map[string]int{}
	}
	t[kind][outcome]++
}

// soak is one run.
type soak struct {
	options
	sim    *simulator.Server
	net    *relay.Relay
	proxy  *process
	client *traffic.Client
	out    io.Writer
	rand   *rand.Rand // for the faults

	mu       sync.Mutex
	tally    tally
	made     int
	answered int
	wrong    []string // the first few
	hung     int      // requests that did not end
	faults   map[string]int

	account traffic.Account
	samples []sample
}

const (
	// endurance is a client's timeout, longer than the proxy's own.
	endurance = time.Minute
	// settling is the time limit for things to calm down at the end of a round.
	settling = time.Minute
)

func (s *soak) run(ctx context.Context) error {
	s.faults = map[string]int{}
	s.say("soaking for %v with %d clients, tokens of %v, seed %d\n\n", s.length, s.clients, tokenTTL, s.seed)
	s.say("%8s %9s %9s %6s %6s %8s %10s %6s %9s %9s\n", "after", "requests", "writes", "lost", "wrong", "doubled", "goroutines", "fds", "heap MiB", "RSS MiB")
	began := time.Now()
	for round := uint64(1); time.Since(began) < s.length && ctx.Err() == nil; round++ {
		s.ask(ctx, round, min(s.round, s.length-time.Since(began)))
		if err := s.settle(ctx); err != nil {
			return errors.Join(err, s.verdict())
		}
		last := s.samples[len(s.samples)-1]
		s.say("%8v %9d %9d %6d %6d %8d %10d %6d %9.1f %9.1f\n", time.Since(began).Round(time.Second), s.made, s.account.Writes,
			len(s.account.Lost)+s.hung, len(s.wrong), len(s.account.Doubled), last.goroutines, last.descriptors, mib(last.heap), mib(last.resident))
	}
	return s.verdict()
}

// say prints. Write errors are ignored, because the exit code has the result.
func (s *soak) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// ask makes requests and injects faults for d.
func (s *soak) ask(ctx context.Context, round uint64, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.gremlin(ctx) })
	for i := range s.clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(s.seed, round<<16|uint64(i+1)))
			for ctx.Err() == nil {
				s.request(r)
				pause(ctx, time.Duration(r.Int64N(int64(s.think)+1)))
			}
		})
	}
}

// request makes one request and completes it even if the round ends meanwhile.
func (s *soak) request(r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), endurance)
	defer cancel()
	leaves := r.IntN(25) == 0
	if leaves {
		defer time.AfterFunc(time.Duration(r.Int64N(int64(30*time.Millisecond))), cancel).Stop()
	}
	kinds := traffic.Kinds()
	got := s.client.Do(ctx, kinds[r.IntN(len(kinds))], r)
	outcome := got.Outcome()
	if got.Err != nil && leaves {
		outcome = "left"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	if got.Status != 0 {
		s.answered++
	}
	if errors.Is(got.Err, context.DeadlineExceeded) {
		s.hung++
	}
	if got.Wrong != "" && len(s.wrong) < 10 {
		s.wrong = append(s.wrong, got.Kind+": "+got.Wrong)
	}
	s.tally.add(got.Kind, outcome)
}

// gremlin repeatedly breaks something and restores it.
func (s *soak) gremlin(ctx context.Context) {
	for {
		if !pause(ctx, time.Duration(s.rand.Int64N(int64(1500*time.Millisecond)))) {
			return
		}
		name, mend := s.mischief()
		s.mu.Lock()
		s.faults[name]++
		s.mu.Unlock()
		on := pause(ctx, time.Duration(s.rand.Int64N(int64(2500*time.Millisecond))))
		mend()
		if !on {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// mischief breaks something. It returns a name, and a function that restores it.
func (s *soak) mischief() (name string, mend func()) {
	network := func(name string, f relay.Fault) (string, func()) {
		s.net.Set(f)
		return name, s.net.Clear
	}
	n, few := s.rand.Int64N(200_000), 1+s.rand.IntN(8)
	switch s.rand.IntN(12) {
	case 0:
		return network("reset on the way up", relay.Fault{Direction: relay.Up, After: n, Do: relay.Reset, Count: few})
	case 1:
		return network("reset on the way down", relay.Fault{Direction: relay.Down, After: n, Do: relay.Reset, Count: few})
	case 2:
		return network("closed", relay.Fault{Direction: relay.Down, After: n, Do: relay.Close, Count: few})
	case 3:
		name, mend := network("silent", relay.Fault{Direction: relay.Down, After: n, Do: relay.Stall, Count: 1})
		return name, func() { mend(); s.net.Inject(relay.Reset) }
	case 4:
		return network("slow", relay.Fault{Direction: relay.Down, Pace: 2 * time.Millisecond})
	case 5:
		s.net.Refuse(true)
		s.net.Inject(relay.Reset)
		return "network down", func() { s.net.Refuse(false) }
	case 6:
		s.sim.RevokeTokens()
		return "tokens revoked", func() {}
	default:
		return s.misbehave()
	}
}

// misbehave injects one of the simulator's named faults.
func (s *soak) misbehave() (string, func()) {
	names := slices.DeleteFunc(simulator.FaultNames(), func(name string) bool {
		// Leave out faults that take minutes, and those that change a response without
		// making it wrong.
		return slices.Contains([]string{"slow-body", "token-hang", "hang", "redirect", "redirect-away", "proxy-like", "token-huge-expiry", "token-no-expiry", "token-zero-expiry"}, name)
	})
	name := names[s.rand.IntN(len(names))]
	f, err := simulator.NamedFault(name)
	if err != nil {
		panic(err) // the names are the simulator's
	}
	if !strings.HasPrefix(name, "token-") {
		f.Count = 1 + s.rand.IntN(20)
	}
	id := s.sim.AddFault(f)
	return name, func() { s.sim.RemoveFault(id) }
}

// settle waits until no request is in flight, then compares the accounts.
func (s *soak) settle(ctx context.Context) error {
	s.sim.ClearFaults()
	s.net.Clear()
	s.net.Inject(relay.Reset)
	s.proxy.client.CloseIdleConnections()
	var now sample
	for deadline := time.Now().Add(settling); ; {
		var err error
		if now, err = s.proxy.look(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("the program is gone: %w", err)
		}
		if now.inFlight == 0 && now.kept == 0 && s.quiet() {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v without traffic %d requests are under way, and %d bytes are kept", settling, now.inFlight, now.kept)
		}
		pause(context.WithoutCancel(ctx), 20*time.Millisecond)
	}
	s.samples = append(s.samples, now)
	a := s.client.Settle()
	s.sim.Reset()
	s.account.Writes += a.Writes
	s.account.Unknown += a.Unknown
	s.account.Done += a.Done
	s.account.Doubled = append(s.account.Doubled, a.Doubled...)
	s.account.Lost = append(s.account.Lost, a.Lost...)
	s.account.Denied = append(s.account.Denied, a.Denied...)
	return nil
}

func (s *soak) quiet() bool {
	return !slices.ContainsFunc(s.sim.Requests(), func(r simulator.Request) bool { return !r.Done })
}

// verdict prints a summary and returns an error if something was wrong.
func (s *soak) verdict() error {
	s.say("\nWhat clients got:\n")
	for _, kind := range slices.Sorted(maps.Keys(s.tally)) {
		s.say("  %-13s", kind)
		for _, outcome := range slices.Sorted(maps.Keys(s.tally[kind])) {
			s.say(" %s %d,", outcome, s.tally[kind][outcome])
		}
		s.say("\n")
	}
	s.say("\nWhat failed: ")
	for _, name := range slices.Sorted(maps.Keys(s.faults)) {
		s.say("%s %d, ", name, s.faults[name])
	}
	s.say("\n\nWrites: %d. Ended without a word on whether they were carried out: %d, of which %d were.\n", s.account.Writes, s.account.Unknown, s.account.Done)
	var faults []error
	for what, list := range map[string][]string{
		"carried out twice": s.account.Doubled, "answered with 200 and never carried out": s.account.Lost,
		"carried out, though the answer denied it": s.account.Denied, "wrong answers": s.wrong, "in the log": s.proxy.log.faults(),
	} {
		if len(list) > 0 {
			faults = append(faults, fmt.Errorf("%s: %q", what, list))
		}
	}
	if s.hung > 0 {
		faults = append(faults, fmt.Errorf("%d requests had no end after %v", s.hung, endurance))
	}
	faults = append(faults, s.drift()...)
	if len(faults) > 0 {
		s.say("\nVerdict: FAILED\n")
		return errors.Join(faults...)
	}
	s.say("\nVerdict: passed: 0 lost, 0 wrong, 0 doubled; memory, goroutines and descriptors stayed as they were.\n")
	return nil
}

// drift compares the first third of the samples with the last, and the proxy's counters
// with the clients'.
func (s *soak) drift() (faults []error) {
	if len(s.samples) == 0 {
		return []error{errors.New("no look was taken")}
	}
	third := (len(s.samples) + 2) / 3
	early, late := most(s.samples[:third]), most(s.samples[len(s.samples)-third:])
	s.say("First third, at most: %d goroutines, %d descriptors, %.1f MiB resident. Last third: %d, %d, %.1f MiB.\n",
		early.goroutines, early.descriptors, mib(early.resident), late.goroutines, late.descriptors, mib(late.resident))
	if late.goroutines > early.goroutines+20 || late.descriptors > early.descriptors+20 || late.resident > early.resident+early.resident/4+8<<20 {
		faults = append(faults, errors.New("memory, goroutines or descriptors grew"))
	}
	counted := s.samples[len(s.samples)-1].requests
	s.say("Requests: %d made, %d answered, %d counted by the program.\n", s.made, s.answered, counted)
	if counted < s.answered || counted > s.made {
		faults = append(faults, errors.New("the program's count of requests is not what clients made"))
	}
	return faults
}

func most(samples []sample) (m sample) {
	for _, s := range samples {
		m.goroutines = max(m.goroutines, s.goroutines)
		m.descriptors = max(m.descriptors, s.descriptors)
		m.resident = max(m.resident, s.resident)
	}
	return m
}
