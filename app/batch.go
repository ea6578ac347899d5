package app

import (
	"context"
	"net/http"
	"time"

	"mimecast-proxy/batch"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/intercept"
)

// batchOptions say how batch files are relayed.
func (p *components) batchOptions() batch.Options {
	if !p.cfg.BatchRelay {
		return batch.Options{}
	}
	return batch.Options{
		Download: p.download,
		BaseURL:  calledURL,
		// Each holds a list of files, of at most 8 MiB but usually 200 KiB.
		MaxLists: max(4, dataLimits(p.cfg).MaxPartial/16),
		Trace: batch.Trace{
			Answered: func(ctx context.Context, status int, took time.Duration) {
				p.tel.Answered(ctx, status, http.Header{}, took) // whose headers are not Mimecast's
			},
			Denied: func(ctx context.Context, code event.Code) { p.tel.Denied(ctx, code, false) },
			Failed: p.tel.Failed,
		},
	}
}

// batchListing is the guard's Policy.RouteAs: a client that may request a list of batch
// files may download the files of that list. It is nil if none are relayed.
func batchListing(cfg config.Config) func(path string) string {
	if !cfg.BatchRelay {
		return nil
	}
	return batch.ListPath
}

// calledURL returns the scheme and host that a client called.
func calledURL(r *http.Request) string {
	if base := intercept.BaseURL(r.Context()); base != "" {
		return base
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
