package app

import (
	"context"
	"io/fs"
	"slices"
	"strconv"

	"mimecast-proxy/cgroup"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
)

// reload watches the files that variables name, and applies their changes until ctx ends. A
// signal triggers a check at once.
func (p *components) reload(ctx context.Context) {
	w := &config.Watcher{Files: p.cfg.Files, Report: p.reportFile, Changed: p.takeUp}
	now := make(chan struct{})
	watching := make(chan struct{})
	go func() { defer close(watching); w.Run(ctx, now) }()
	defer func() { <-watching }()
	for {
		select {
		case <-p.reread:
			p.tel.Logger().Info("file reload requested", "files", len(p.cfg.Files))
		case <-ctx.Done():
			return
		}
		select {
		case now <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// takeUp applies the changed files of the variables. Token requests read the client ID and
// secret themselves, so a change of these only triggers a new token.
func (p *components) takeUp(variables []string) {
	changed := func(name string) bool { return slices.Contains(variables, name) }
	redactSecrets(p.redactor, p.cfg)
	if changed("PROXY_API_KEY_FILE") {
		if err := p.accounts.apply(directoryOf(p.cfg)); err != nil {
			p.tel.Logger().Warn("API keys rejected", "error", err)
		}
	}
	if changed("PROXY_CLIENTS_FILE") {
		for _, w := range p.cfg.Clients.Current().Warnings {
			p.tel.Logger().Warn(configurationWarning, "detail", w)
		}
	}
	if changed("MIMECAST_CA_FILE") {
		if pool, err := roots(p.cfg.CA); err != nil {
			p.tel.Logger().Warn("certificate authorities rejected", "error", err)
		} else {
			p.accounts.trust(pool)
			p.download.Trust(pool)
		}
	}
	if changed("PROXY_TLS_CERT_FILE") || changed("PROXY_TLS_KEY_FILE") {
		if err := p.cfg.TLS.Mismatch(); err != nil {
			p.tel.Logger().Warn("TLS certificate rejected", "error", err, "detail", "PROXY_TLS_CERT_FILE and PROXY_TLS_KEY_FILE do not match; the last good pair stays in force.")
		}
	}
	if changed("MIMECAST_PROFILE") || changed("MIMECAST_CLIENT_ID_FILE") || changed("MIMECAST_CLIENT_SECRET_FILE") {
		p.accounts.credentialsChanged()
	}
}

// reportFile logs and counts each change in the state of a file.
func (p *components) reportFile(f *config.File, outcome event.ReloadOutcome, err error) {
	p.tel.FileReloaded(event.FileVariableOf(f.Variable), outcome)
	log := p.tel.Logger().With("variable", f.Variable, "file", f.Path)
	switch outcome {
	case event.ReloadChanged:
		log.Info("file reloaded")
	case event.ReloadRestored:
		log.Info("file restored", "detail", "Its content did not change.")
	case event.ReloadFailed:
		log.Warn("file reload failed", "error", err, "detail", "The last good version stays in force.")
	}
}

// withMemoryLimit adds GOMEMLIMIT to an environment without it. The value is three quarters of
// the cgroup's limit, since the process also needs memory outside Go's heap.
func withMemoryLimit(environ []string, root fs.FS) []string {
	const name = "GOMEMLIMIT"
	if slices.ContainsFunc(environ, func(v string) bool { return named(name)(v) && v != name+"=" }) {
		return environ
	}
	limit := cgroup.MemoryLimit(root)
	if limit == 0 {
		return environ
	}
	return append(slices.Clone(environ), name+"="+strconv.FormatInt(limit/4*3, 10))
}
