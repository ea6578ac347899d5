package app

import (
	"context"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"mimecast-proxy/cgroup"
	"mimecast-proxy/config"
)

// reload takes up what changes in the files that variables name, until ctx ends. A
// signal makes it look at once.
func (p *parts) reload(ctx context.Context) {
	w := &config.Watcher{Files: p.cfg.Files, Report: p.reportFile, Changed: p.takeUp}
	now := make(chan struct{})
	watching := make(chan struct{})
	go func() { defer close(watching); w.Run(ctx, now) }()
	defer func() { <-watching }()
	for {
		select {
		case <-p.reread:
			p.tel.Logger().Info("rereading the files", "files", len(p.cfg.Files))
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

// takeUp hands on what the variables name now. The client ID and the secret need
// no handing on, but a token.
func (p *parts) takeUp(variables []string) {
	changed := func(name string) bool { return slices.Contains(variables, name) }
	redactSecrets(p.redactor, p.cfg)
	if changed("PROXY_API_KEY_FILE") {
		p.guard.SetKeys(p.cfg.APIKey.Values())
	}
	if changed("MIMECAST_CA_FILE") {
		if pool, err := roots(p.cfg.CA); err != nil {
			p.tel.Logger().Warn("the new certificate authorities are not used", "error", err)
		} else {
			p.trust(pool)
		}
	}
	if changed("MIMECAST_CLIENT_ID_FILE") || changed("MIMECAST_CLIENT_SECRET_FILE") {
		p.source.CredentialsChanged()
	}
}

// reportFile logs each new state of a file.
func (p *parts) reportFile(f *config.File, outcome config.Outcome, err error) {
	p.fileReload(f.Variable, string(outcome))
	log := p.tel.Logger().With("variable", f.Variable, "file", f.Path)
	switch outcome {
	case config.Changed:
		log.Info("file reloaded")
	case config.Restored:
		log.Info("file can be used again; it did not change")
	case config.Failed:
		log.Warn("file cannot be used; the last good version stays in force", "error", err)
	}
}

// withMemoryLimit adds GOMEMLIMIT to an environment without it: three quarters of
// the control group's limit, since the rest of the process needs memory too.
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

// tokenPath returns the path by which a client's request would reach the token
// endpoint; empty where none would.
func tokenPath(cfg config.Config) string {
	base, token := cfg.BaseURL, cfg.TokenURL
	if base.Scheme != token.Scheme || authority(base) != authority(token) {
		return ""
	}
	within := strings.ToLower(strings.TrimSuffix(base.Path, "/")) + "/"
	rest, ok := strings.CutPrefix("/"+strings.TrimPrefix(strings.ToLower(token.Path), "/")+"/", within)
	if !ok {
		return ""
	}
	return "/" + strings.TrimSuffix(rest, "/")
}

// authority returns host and port, the scheme's own one included.
func authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") + ":" + port
}
