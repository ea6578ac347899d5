package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"

	"mimecast-proxy/app"
)

// runProfiled runs the proxy in this process and writes its CPU profile.
func runProfiled(ctx context.Context, profile string) error {
	f, err := os.Create(profile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	err = app.Env{Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}.Serve(ctx)
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// profile writes ../default.pgo, which go build uses to optimize. The load is a sidecar's:
// small responses, with some larger ones and some uploads.
func (b *bench) profile(ctx context.Context) error {
	var profiles []string
	for _, proto := range protocols {
		up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: proto.http2, TokenTTL: longTokenTTL})
		if err != nil {
			return err
		}
		path := filepath.Join(b.dir, fmt.Sprintf("cpu-%d.pprof", len(profiles)))
		profiles = append(profiles, path)
		if err := b.profiled(ctx, path); err != nil {
			return err
		}
		up.stop()
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-proto", "-output", "../default.pgo"}, profiles...)...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func (b *bench) profiled(ctx context.Context, path string) error {
	p, err := start(ctx, proxyCore, b.environment(), b.self, "-role", "profiled", "-dir", path)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := b.awaitResponse(ctx, launch{}); err != nil {
		return fmt.Errorf("%w; it said: %s", err, p.output())
	}
	for _, l := range []load{
		{request: get(smallResponse), connections: 64, duration: 5 * b.duration},
		{request: get(64 << 10), connections: 16, duration: b.duration},
		{request: post(16 << 10), body: 16 << 10, connections: 16, duration: b.duration},
	} {
		l.address = proxyAddress
		if _, err := l.run(ctx, func(part func()) { part() }); err != nil {
			return err
		}
	}
	return nil
}
