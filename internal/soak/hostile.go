package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/traffic"
	"mimecast-proxy/simulator"
)

const (
	// hostileTTL is the lifetime of tokens: a renewal every few seconds. It is long enough
	// that tokens do not expire in transit, because every request must succeed.
	hostileTTL = 20 * time.Second
	// swappedSecret is the prefix of every secret.
	swappedSecret = "swapped-secret-"
	// Shutdown may take as long as these three together.
	shutdownDelay, shutdownTimeout, shutdownGrace = time.Second, 5 * time.Second, 3 * time.Second
	memoryLimit                                   = 192 << 20
	// probeTimeout is the time limit of a /livez request on a busy machine.
	probeTimeout = 10 * time.Second
)

// siege is one hostile soak: legitimate traffic through two attacked processes, one at a
// TCP port and one at a Unix socket.
type siege struct {
	options
	sim    *simulator.Server
	out    io.Writer
	places []*place
	secret string // path of the secret's file
	swaps  int

	mu    sync.Mutex
	tally tally
	lost  []string // the first few
	wrong []string
	nLost int
	nAll  int

	account traffic.Account
	crowds  map[string]int
}

// place is a process under attack.
type place struct {
	name string
	*process
	// kept reuses connections; anew opens a new one for each request.
	kept, anew *traffic.Client
	before     sample
	samples    []sample
	slowest    atomic.Int64 // /livez response, in nanoseconds
	probes     atomic.Int64
	failures   atomic.Int64
}

func runHostile(ctx context.Context, o options, dir, path string, out io.Writer) (err error) {
	sim, err := simulator.Start(simulator.Options{TokenTTL: hostileTTL, HeldMessages: 1 << 30, RequestLog: 4 * (o.clients + o.crowd), Quotas: map[string]simulator.Quota{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	s := &siege{options: o, sim: sim, out: out, secret: filepath.Join(dir, "secret"), tally: tally{}, crowds: map[string]int{}}
	if err := s.swap(); err != nil {
		return err
	}
	for _, name := range []string{"tcp", "unix"} {
		p, err := s.start(dir, path, name)
		if err != nil {
			return err
		}
		defer p.stop()
		s.places = append(s.places, p)
	}
	return s.run(ctx)
}

func (s *siege) start(dir, path, name string) (*place, error) {
	more := []string{
		"MIMECAST_BASE_URL=" + s.sim.URL, "MIMECAST_CLIENT_SECRET_FILE=" + s.secret, fmt.Sprint("GOMEMLIMIT=", memoryLimit),
		"PROXY_SHUTDOWN_DELAY=" + shutdownDelay.String(), "PROXY_SHUTDOWN_TIMEOUT=" + shutdownTimeout.String(),
	}
	if name == "unix" {
		more = append(more, "PROXY_LISTEN=unix:"+filepath.Join(dir, "data"), "PROXY_ADMIN_LISTEN=unix:"+filepath.Join(dir, "admin"))
	}
	variables, err := environ(s.sim, dir, more...)
	if err != nil {
		return nil, err
	}
	p, err := launch(path, variables)
	if err != nil {
		return nil, err
	}
	at := &place{name: name, process: p}
	at.kept = &traffic.Client{URL: url, Sim: s.sim, HTTP: p.client, MaxBody: 256 << 10}
	at.anew = &traffic.Client{URL: url, Sim: s.sim, HTTP: p.to(&p.listen, true), MaxBody: 256 << 10}
	if name == "unix" {
		at.anew.Release.Store(1 << 29) // both processes share an account, so each releases different messages
	}
	return at, nil
}

// swap replaces the application's secret at Mimecast, and then in the proxy's file.
func (s *siege) swap() error {
	secret := fmt.Sprintf("%s%d-%016x", swappedSecret, s.swaps, rand.Uint64())
	s.sim.SetCredentials(simulator.DefaultClientID, secret)
	s.swaps++
	if err := os.WriteFile(s.secret+".new", []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(s.secret+".new", s.secret)
}

// say prints. Write errors are ignored, because the exit code has the result.
func (s *siege) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func (s *siege) run(ctx context.Context) error {
	s.say("hostile soak for %v: 2 processes, each with %d honest and %d hostile clients; tokens of %v, seed %d\n\n", s.length, s.clients, s.crowd, hostileTTL, s.seed)
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	s.say("%8s %9s %9s %6s %6s %9s   %s\n", "after", "requests", "writes", "lost", "wrong", "attacks", "goroutines, descriptors, MiB resident (tcp; unix)")
	began := time.Now()
	for round := uint64(1); time.Since(began) < s.length && ctx.Err() == nil; round++ {
		s.attack(ctx, round, min(s.round, s.length-time.Since(began)), func() {})
		if err := s.settle(context.WithoutCancel(ctx)); err != nil {
			return errors.Join(err, s.verdict(nil))
		}
		attacks := 0
		for _, n := range s.crowds {
			attacks += n
		}
		s.say("%8v %9d %9d %6d %6d %9d  ", time.Since(began).Round(time.Second), s.nAll, s.account.Writes, s.nLost, len(s.wrong), attacks)
		for _, p := range s.places {
			now := p.samples[len(p.samples)-1]
			s.say(" %d, %d, %.1f;", now.goroutines, now.descriptors, mib(now.resident))
		}
		s.say("\n")
	}
	return s.verdict(s.end(context.WithoutCancel(ctx)))
}

// warmUp makes some legitimate requests and takes the first sample of each process.
func (s *siege) warmUp(ctx context.Context) error {
	for i, p := range s.places {
		r := rand.New(rand.NewPCG(s.seed, uint64(i)))
		for deadline := time.Now().Add(time.Minute); p.kept.Do(ctx, "whoami", r).Status != http.StatusOK; pause(ctx, 20*time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: no request succeeds", p.name)
			}
		}
		for range 20 {
			for _, kind := range traffic.Kinds() {
				s.ask(p, kind, r)
			}
		}
		p.client.CloseIdleConnections()
		var err error
		if p.before, err = p.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// attack runs legitimate and hostile clients for d. It then calls last, when no legitimate
// client starts another request and the hostile clients are still active.
func (s *siege) attack(ctx context.Context, round uint64, d time.Duration, last func()) {
	asking, stopAsking := context.WithTimeout(ctx, d)
	defer stopAsking()
	attacking, stopAttacking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAttacking()
	var honest, others sync.WaitGroup
	others.Go(func() {
		for pause(asking, time.Duration(rand.Int64N(int64(5*time.Second)))) {
			if err := s.swap(); err != nil {
				s.lose("swap", err.Error())
			}
		}
	})
	for i, p := range s.places {
		crowd := &hostile.Crowd{Addresses: []string{p.listen, p.listen, p.at}, Clients: s.crowd, Seed: s.seed ^ round<<8 ^ uint64(i)}
		others.Go(func() {
			crowd.Run(attacking)
			s.mu.Lock()
			defer s.mu.Unlock()
			for kind, n := range crowd.Counts() {
				s.crowds[kind] += n
			}
		})
		others.Go(func() { p.probe(asking) })
		for c := range s.clients {
			honest.Go(func() {
				r := rand.New(rand.NewPCG(s.seed, round<<24|uint64(i)<<16|uint64(c+1)))
				kinds := traffic.Kinds()
				for asking.Err() == nil {
					s.ask(p, kinds[r.IntN(len(kinds))], r)
					pause(asking, time.Duration(r.Int64N(int64(s.think)+1)))
				}
			})
		}
	}
	<-asking.Done()
	last()
	honest.Wait()
	stopAttacking()
	others.Wait()
}

// ask makes a legitimate request, even if the round ends meanwhile. No faults are injected,
// so each must succeed.
func (s *siege) ask(p *place, kind string, r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), endurance)
	defer cancel()
	client := p.anew
	if kind == "whoami" { // the only kind that net/http may safely resend
		client = p.kept
	}
	got := client.Do(ctx, kind, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nAll++
	s.tally.add(p.name+" "+kind, got.Outcome())
	switch {
	case got.Wrong != "":
		s.wrong = append(s.wrong, p.name+" "+kind+": "+got.Wrong)
	case got.Status != http.StatusOK || got.Err != nil:
		s.loseLocked(p.name+" "+kind, fmt.Sprintf("status %d %s, %v", got.Status, got.Code, got.Err))
	}
}

func (s *siege) lose(what, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseLocked(what, why)
}

func (s *siege) loseLocked(what, why string) {
	if s.nLost++; len(s.lost) < 10 {
		s.lost = append(s.lost, what+": "+why)
	}
}

// probe requests /livez as a kubelet does, five times a second.
func (p *place) probe(ctx context.Context) {
	for pause(ctx, 200*time.Millisecond) {
		began := time.Now()
		err := p.alive()
		p.slowest.Store(max(p.slowest.Load(), int64(time.Since(began))))
		p.probes.Add(1)
		if err != nil {
			p.failures.Add(1)
		}
	}
}

func (p *place) alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/livez", nil)
	if err != nil {
		return err
	}
	res, err := p.admin.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// settle waits until the processes use no more resources than before the first attack. It
// then compares the accounts.
func (s *siege) settle(ctx context.Context) error {
	for _, p := range s.places {
		p.client.CloseIdleConnections()
		for deadline := time.Now().Add(settling); ; pause(ctx, 20*time.Millisecond) {
			now, err := p.look(ctx)
			if err == nil && now.inFlight == 0 && now.kept == 0 && now.descriptors <= p.before.descriptors+10 && now.goroutines <= p.before.goroutines+20 {
				p.samples = append(p.samples, now)
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %v after the attack it holds %+v; before the first one %+v (%w)", p.name, settling, now, p.before, err)
			}
		}
	}
	s.settleAccounts()
	return nil
}

func (s *siege) settleAccounts() {
	for _, p := range s.places {
		a := p.anew.Settle()
		s.account.Writes += a.Writes
		s.account.Doubled = append(s.account.Doubled, a.Doubled...)
		s.account.Lost = append(s.account.Lost, a.Lost...)
		s.account.Denied = append(s.account.Denied, a.Denied...)
	}
	s.sim.Reset()
}

// end stops the processes under attack, with legitimate requests in flight.
func (s *siege) end(ctx context.Context) (faults []error) {
	var ended sync.WaitGroup
	took := make([]time.Duration, len(s.places))
	s.attack(ctx, 0, 3*time.Second, func() {
		for i, p := range s.places {
			began := time.Now()
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				s.lose("SIGTERM", err.Error())
			}
			ended.Go(func() {
				p.endsWithin(time.Minute)
				took[i] = time.Since(began)
			})
		}
	})
	ended.Wait()
	for i, p := range s.places {
		s.say("%s ended %v after SIGTERM.\n", p.name, took[i].Round(time.Millisecond))
		// Allow 3 s more for a busy machine.
		if took[i] > shutdownDelay+shutdownTimeout+shutdownGrace+3*time.Second {
			faults = append(faults, fmt.Errorf("%s took %v to end", p.name, took[i]))
		}
	}
	s.settleAccounts()
	return faults
}

// verdict prints a summary and returns an error if something was wrong.
func (s *siege) verdict(faults []error) error {
	s.say("\nWhat honest clients got:\n")
	for _, kind := range slices.Sorted(maps.Keys(s.tally)) {
		s.say("  %-18s %v\n", kind, s.tally[kind])
	}
	s.say("\nAttacks: ")
	for _, kind := range slices.Sorted(maps.Keys(s.crowds)) {
		s.say("%s %d, ", kind, s.crowds[kind])
	}
	s.say("\n\nWrites: %d. The client secret was replaced %d times.\n", s.account.Writes, s.swaps-1)
	for what, list := range map[string][]string{
		"carried out twice": s.account.Doubled, "answered with 200 and never carried out": s.account.Lost,
		"carried out, though the answer denied it": s.account.Denied, "wrong answers": s.wrong, "lost": s.lost,
	} {
		if len(list) > 0 {
			faults = append(faults, fmt.Errorf("%s: %q", what, list))
		}
	}
	for _, p := range s.places {
		faults = append(faults, s.verdictOf(p)...)
	}
	if len(faults) > 0 {
		s.say("\nVerdict: FAILED\n")
		return errors.Join(faults...)
	}
	s.say("\nVerdict: passed: 0 lost, 0 wrong, 0 doubled; memory, goroutines and descriptors came back.\n")
	return nil
}

func (s *siege) verdictOf(p *place) (faults []error) {
	s.say("%s: /livez answered %d of %d times, after %v at most.", p.name, p.probes.Load()-p.failures.Load(), p.probes.Load(), time.Duration(p.slowest.Load()).Round(time.Millisecond))
	if p.failures.Load() > 0 {
		faults = append(faults, fmt.Errorf("%s: /livez failed %d times", p.name, p.failures.Load()))
	}
	if bad := p.log.faults(); len(bad) > 0 {
		faults = append(faults, fmt.Errorf("%s: in the log: %q", p.name, bad))
	}
	if len(p.samples) == 0 {
		return append(faults, fmt.Errorf("%s: no look was taken", p.name))
	}
	third := (len(p.samples) + 2) / 3 // too few samples show no growth
	early, late := most(p.samples[:third]), most(p.samples[len(p.samples)-third:])
	s.say(" First third, at most: %d goroutines, %d descriptors, %.1f MiB resident. Last third: %d, %d, %.1f MiB.\n",
		early.goroutines, early.descriptors, mib(early.resident), late.goroutines, late.descriptors, mib(late.resident))
	if late.resident > memoryLimit || len(p.samples) >= 6 && late.resident > early.resident+early.resident/4+16<<20 {
		faults = append(faults, fmt.Errorf("%s: memory grew", p.name))
	}
	return faults
}
