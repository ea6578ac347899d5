// Command tool runs beside the proxy in the pods of the tests. It is a simulated Mimecast,
// a client that counts its responses, or the process that keeps a pod's namespaces.
//
//	tool pause
//	tool simulator [-after DURATION] [-application ID:SECRET]
//	tool shared FOLDER
//	tool load [-rate N] [-keep-alive=false] [-key FILE] URL
//	tool ready|stop
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mimecast-proxy/simulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("which one: pause, simulator, shared, load, ready or stop")
	}
	switch args[0] {
	case "pause":
		<-ctx.Done()
		return nil
	case "simulator":
		return simulate(ctx, args[1:], stdout)
	case "shared":
		return share(ctx, args[1:])
	case "load":
		return load(ctx, args[1:], stdout)
	case "ready": // run in a simulator's container
		_, err := os.Stat(caFile)
		return err
	case "stop": // run in a load's container, where PID 1 is the load
		return syscall.Kill(1, syscall.SIGTERM)
	default:
		return fmt.Errorf("%q is not a command", args[0])
	}
}

// caFile is in a volume that the simulator shares with the proxy.
const caFile = "/var/run/simulator/ca.pem"

// simulate serves a simulated Mimecast at 127.0.0.1:18443 until ctx is done. It prints each
// application whose token a request has used.
func simulate(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("simulator", flag.ContinueOnError)
	after := flags.Duration("after", 0, "time before it responds")
	application := flags.String("application", "", "a second application to accept, as ID:SECRET")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := simulator.Options{Address: "127.0.0.1:18443", Quotas: map[string]simulator.Quota{}}
	if id, secret, ok := strings.Cut(*application, ":"); ok {
		o.Applications = []simulator.Application{{ClientID: id, ClientSecret: secret}}
	}
	sim, err := simulator.Start(o)
	if err != nil {
		return err
	}
	// The proxy needs the certificate to start, even while Mimecast is down.
	down := 0
	if *after > 0 {
		down = sim.AddFault(simulator.Fault{Path: "/", Cut: "request"})
	}
	if err := os.WriteFile(caFile, sim.CA, 0o644); err != nil { //nolint:gosec // a certificate is public
		return errors.Join(err, sim.Close())
	}
	begin := time.NewTimer(*after)
	defer begin.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	seen := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return sim.Close()
		case <-begin.C:
			sim.RemoveFault(down)
			fmt.Fprintln(stdout, "responds")
		case <-look.C:
			for id := range sim.Counts().Applications {
				if !seen[id] {
					seen[id] = true
					fmt.Fprintln(stdout, "application", id)
				}
			}
		}
	}
}

// share serves a simulated Mimecast to other pods until ctx is done, at port 8443. args is
// a folder with tls.crt and tls.key. Tests use it for pods that only a policy may change.
func share(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("shared FOLDER: with tls.crt and tls.key")
	}
	srv := &http.Server{
		Addr: ":8443", Handler: simulator.New(simulator.Options{Quotas: map[string]simulator.Quota{}}).API(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // no clients are left
	defer stop()
	err := srv.ListenAndServeTLS(filepath.Join(args[0], "tls.crt"), filepath.Join(args[0], "tls.key"))
	if ctx.Err() != nil {
		return nil
	}
	return err
}
