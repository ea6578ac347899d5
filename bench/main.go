// Command bench compares the proxy's performance with a naive proxy and, if they are
// installed, nginx and haproxy. It measures them in turn, in one run on one machine:
//
//	go -C bench run .
//
// The proxy has one core; the upstream and the load share another. CPU per request is the
// scheduler's accounting of the proxy's process, which noise affects least.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var (
		role     = flag.String("role", "", "what this process is: used by bench itself")
		dir      = flag.String("dir", "", "where the certificates are: used by bench itself")
		o        upstreamOptions
		binary   = flag.String("binary", "", "the proxy's binary; built if it is empty")
		with     = flag.String("with", "", "another build of the proxy to measure beside it")
		subjects = flag.String("subjects", strings.Join([]string{ours, naive, nginx, haproxy}, ","), "proxies to measure; those not installed are left out")
		only     = flag.String("only", "cost,latency,renewals,bulk,start,rest", "what to measure; only if asked for: goals-work, goals-bulk, goals-uploads, goals-burst, ladder, settings, writes, sizing, curves, gate")
		rounds   = flag.Int("rounds", 3, "rounds, of which the median is taken")
		length   = flag.Duration("for", 4*time.Second, "length of one measurement")
		conns    = flag.String("connections", "1,16,64,256", "numbers of connections at which the cost is measured")
		out      = flag.String("out", "", "folder for the plots and the report, made if need be; none: the report to standard output alone")
		docs     = flag.String("docs", "", "folder of documents whose tables and images are replaced, such as ../docs")
		idle     = flag.Duration("idle", time.Minute, "how long an idle proxy is watched")
		listen   = flag.String("listen", proxyAddress, "used by bench itself")
		rung     = flag.String("rung", "", "used by bench itself")
		limits   gateLimits
	)
	flag.Float64Var(&limits.writes, "max-writes", .1, "writes per request beyond the naive proxy's, for gate")
	flag.Float64Var(&limits.instructions, "max-instructions", .9, "user instructions per request in terms of the naive proxy's, for gate")
	flag.BoolVar(&o.Quota, "quota", false, "used by bench itself")
	flag.BoolVar(&o.HTTP2, "http2", false, "used by bench itself")
	flag.DurationVar(&o.TokenTTL, "token-ttl", 30*time.Minute, "used by bench itself")
	flag.DurationVar(&o.TokenDelay, "token-delay", 0, "used by bench itself")
	flag.Parse()
	switch *role {
	case "upstream":
		o.Listen, o.CertFile, o.KeyFile = upstreamAddress, filepath.Join(*dir, "cert.pem"), filepath.Join(*dir, "key.pem")
		return runUpstream(ctx, o)
	case "naive":
		return runNaive(ctx, *listen, "https://"+upstreamAddress)
	case "rung":
		return runRung(ctx, *listen, *rung, *dir)
	case "":
		if pinned() {
			return pinSelf() // restarts this program as "load"
		}
	case "load":
	default:
		return fmt.Errorf("no role %q", *role)
	}
	var connections []int
	for n := range strings.SplitSeq(*conns, ",") {
		count, err := strconv.Atoi(n)
		if err != nil {
			return fmt.Errorf("-connections: %w", err)
		}
		connections = append(connections, count)
	}
	b := &bench{connections: connections, subjects: installed(strings.Split(*subjects, ",")), rounds: *rounds, duration: *length, binary: *binary, otherBinary: *with, idle: *idle, limits: limits, report: &report{rounds: *rounds}}
	return b.all(ctx, strings.Split(*only, ","), *out, *docs)
}

// pinSelf restarts this process as the load, on the core that is not the proxy's.
func pinSelf() error {
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{taskset, "-c", strconv.Itoa(restCore), self, "-role", "load"}, os.Args[1:]...)
	return syscall.Exec(taskset, args, os.Environ())
}

// all prepares the run and makes the requested measurements.
func (b *bench) all(ctx context.Context, what []string, out, docs string) (err error) {
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if out != "" { // fail now, not after all measurements
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o755); err != nil { // nginx's worker runs as another user
		return err
	}
	if err := writeCertificates(b.dir); err != nil {
		return err
	}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "mimecast-proxy")
		if err := build(ctx, b.binary); err != nil {
			return err
		}
	}
	if b.otherBinary != "" {
		b.subjects = append(b.subjects, other)
	}
	b.findTools(ctx)
	measurements := map[string]func(context.Context) error{
		"cost": b.cost, "latency": b.latency, "renewals": b.renewals, "bulk": b.bulk, "start": b.start, "rest": b.rest,
		"goals-work": b.goalsWork, "goals-bulk": b.goalsBulk, "goals-uploads": b.goalsUploads, "goals-burst": b.goalsBurst,
		"ladder": b.measureLadder, "settings": b.measureSettings, "writes": b.measureWrites, "sizing": b.sizing,
		"curves": b.curves, "gate": b.gate,
	}
	for _, name := range what {
		measure, ok := measurements[name]
		if !ok {
			err = fmt.Errorf("there is nothing to measure that is called %q", name)
		} else if failed := measure(ctx); failed != nil {
			err = fmt.Errorf("%s: %w", name, failed)
		}
		if err != nil {
			break // keep the earlier measurements
		}
	}
	return errors.Join(err, b.report.write(os.Stdout, out, docs, b.subjects))
}

// findTools looks for the tools that count, and reports what cannot be counted here.
func (b *bench) findTools(ctx context.Context) {
	var missing []string
	b.counters, missing = findCounters(ctx)
	if len(missing) > 0 {
		fmt.Fprintln(os.Stderr, "not measured, since perf cannot count it here:", strings.Join(missing, ", "))
	}
	if b.strace = hasStrace(ctx); !b.strace {
		fmt.Fprintln(os.Stderr, "not measured, since strace is not installed or may not trace: writes by destination")
	}
}

// build compiles the proxy as for a release.
func build(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, ".")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the proxy (run this in the folder bench): %w", err)
	}
	return nil
}
