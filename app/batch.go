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

// batchOptions returns the options for relaying batch files; zero if BatchRelay is off.
func (p *components) batchOptions() batch.Options {
	if !p.cfg.BatchRelay {
		return batch.Options{}
	}
	return batch.Options{
		Download: p.download,
		BaseURL:  calledURL,
		// Each one buffers a list of files: usually 200 KiB, at most 8 MiB.
		MaxLists: max(4, dataLimits(p.cfg).MaxPartial/16),
		Trace: batch.Trace{
			Answered: func(ctx context.Context, status int, took time.Duration) {
				p.tel.Answered(ctx, status, http.Header{}, took) // the headers are not Mimecast's
			},
			Denied: func(ctx context.Context, code event.Code) { p.tel.Denied(ctx, code, false) },
			Failed: p.tel.Failed,
		},
	}
}

// batchListing returns the guard's Policy.RouteAs: a client that may request a list of batch
// files may also download the files in it. It returns nil if batch files are not relayed.
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
