package main

import (
	"context"
	"fmt"
	"time"
)

// sizing measures what the proxy uses at each load, as a basis for resource limits.
func (b *bench) sizing(ctx context.Context) error {
	s := b.report.section("sizing", "Sizing", "Responses of 1 KiB, Mimecast over HTTP/2, the proxy on one core with all defaults.")
	s.names = []string{"per second", "CPU, % of a core", "median latency, ms", "peak resident, MiB"}
	small, upload := get(smallResponse), load{request: post(uploadSize), body: uploadSize, connections: uploaders, requests: uploads}
	loads := []struct {
		name string
		load
	}{
		{"10 requests per second", load{request: small, connections: 4, rate: 10}},
		{"100 requests per second", load{request: small, connections: 16, rate: 100}},
		{fmt.Sprintf("%d requests per second", fixedRate), load{request: small, connections: 64, rate: fixedRate}},
		{"all that 16 connections can send", load{request: small, connections: 16}},
		{"all that 64 connections can send", load{request: small, connections: 64}},
		{"all that 1000 connections can send", load{request: small, connections: 1000}},
		{"downloads of 64 MiB, one at a time", load{request: get(64 * mebibyte), connections: 1}},
		{"uploads of 8 MiB, one at a time", load{request: upload.request, body: upload.body, connections: 1}},
		{"uploads of 8 MiB, 16 at a time", upload},
	}
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, []string{ours}, func(name string) error {
		for _, l := range loads {
			if l.warmup, l.duration = b.duration/4, b.duration; l.requests > 0 {
				l.warmup, l.duration = 0, time.Minute
			}
			m, err := b.measureLoad(ctx, name, true, l.load)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			s.add(l.name, "", s.names[0], float64(m.Requests)/m.Duration.Seconds())
			s.add(l.name, "", s.names[1], 100*m.cpu.Seconds()/m.Duration.Seconds())
			if l.rate > 0 {
				s.add(l.name, "", s.names[2], float64(m.percentile(.5).Microseconds())/1e3)
			}
			s.add(l.name, "", s.names[3], float64(m.loaded)/mebibyte)
		}
		return nil
	})
}
