package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
)

const (
	// maxSupport bounds the running proxy's response, in bytes.
	maxSupport = 8 << 20
	// maxErrors is how many recent errors are printed.
	maxErrors = 20
)

// support returns the data for /api/support in addition to the status.
func (s *instance) support() admin.Support {
	version, revision, goVersion := Build()
	return admin.Support{
		Version: version, Revision: revision, Go: goVersion, System: runtime.GOOS + "/" + runtime.GOARCH,
		Settings: convert(s.cfg.Settings(), s.shown),
	}
}

// shown converts a setting, and redacts secrets. It corrects the origin of settings that are
// not from the operator's environment.
func (s *instance) shown(from config.Setting) admin.Setting {
	isSet := func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return value != "" && strings.EqualFold(name, from.Name)
	}
	switch {
	case from.Name == "PROXY_LISTEN" && s.supervisor.Data != nil, from.Name == "PROXY_ADMIN_LISTEN" && s.supervisor.Admin != nil:
		from.Origin = "inherited socket"
	case from.Origin == config.OriginVariable && !slices.ContainsFunc(s.environ, isSet):
		from.Origin = "the proxy itself"
	}
	return admin.Setting{Name: from.Name, Value: s.redactor.Redact(from.Value), Origin: s.redactor.Redact(from.Origin), Changed: from.Changed}
}

// Support prints a support bundle: the state of the running proxy, and Check's report in this
// environment. It returns an error if the proxy cannot be reached, but none if the check
// fails.
func (p Env) Support(ctx context.Context) error {
	asking, stop := p.untilSignal(ctx)
	bundle, err := p.askSupport(asking)
	stopped := context.Cause(asking)
	stop()
	if stopped != nil {
		return stopped
	}
	version, revision, goVersion := Build()
	b := &strings.Builder{}
	fmt.Fprintf(b, "Support bundle of mimecast-proxy, %s\nIt contains no secrets, but request paths, addresses and file names: read it before you send it.\n\n", stampOf(time.Now()))
	fmt.Fprintf(b, "This command: version %s, revision %s, %s, %s/%s\n", version, revision, goVersion, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		fmt.Fprintf(b, "\n## The running proxy\n\n%v\n", err)
	} else {
		writeSupport(b, bundle)
	}
	b.WriteString("\n## The check, with the variables of this command\n\n")
	if _, err := io.WriteString(p.Stdout, b.String()); err != nil {
		return err
	}
	return errors.Join(err, p.checkForSupport(ctx))
}

// checkForSupport prints Check's report. It returns an error only if the output fails.
func (p Env) checkForSupport(ctx context.Context) error {
	err := p.Check(ctx, CheckOptions{Path: DefaultCheckPath})
	if e, ok := errors.AsType[*ExitError](err); err == nil || ok && e.Err == nil { // Check has printed everything
		return nil
	}
	_, err = fmt.Fprintf(p.Stdout, "FAILED  %v\n", err)
	return err
}

func (p Env) askSupport(ctx context.Context) (*admin.Support, error) {
	a, err := p.runningProxy()
	if err != nil {
		return nil, err
	}
	defer a.client.CloseIdleConnections()
	res, err := a.do(ctx, http.MethodGet, "/api/support")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the running proxy responded with status %d: run this command on its machine, with the same version", res.StatusCode)
	}
	bundle := new(admin.Support)
	if err := json.NewDecoder(io.LimitReader(res.Body, maxSupport)).Decode(bundle); err != nil {
		return nil, fmt.Errorf("the response of the running proxy cannot be read: %w", err)
	}
	return bundle, nil
}

func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// writeSupport writes the response of the running proxy.
func writeSupport(b *strings.Builder, s *admin.Support) {
	st := &s.Status
	fmt.Fprintf(b, "The proxy:    version %s, revision %s, %s, %s\n", s.Version, s.Revision, s.Go, s.System)
	b.WriteString("\n## Configuration\n\n")
	for _, v := range s.Settings {
		origin := oneLine(v.Origin)
		if !v.Changed.IsZero() {
			origin += ", changed at " + stampOf(v.Changed)
		}
		fmt.Fprintf(b, "%-24s %s  (%s)\n", v.Name, oneLine(v.Value), origin)
	}
	b.WriteString("\n## Status\n\n")
	writeHealth(b, &st.Health)
	fmt.Fprintf(b, "running     since %s, for %v\n", stampOf(st.Started), st.Now.Sub(st.Started).Round(time.Second))
	fmt.Fprintf(b, "account     client ID %s at %s\n", st.Account.ClientID, st.Account.BaseURL)
	fmt.Fprintf(b, "listening   %s\n", st.Listen)
	writeToken(b, &st.Token)
	fmt.Fprintf(b, "requests    %d since the start, %d in the last minute, %d of %d in flight\n", st.Total, st.LastMinute, st.InFlight, st.MaxRequests)
	if r := st.RateLimit; r != nil && r.Limit != nil && r.Remaining != nil {
		fmt.Fprintf(b, "rate limit  %v of %v left at %s\n", *r.Remaining, *r.Limit, stampOf(r.SeenAt))
	}
	for _, d := range st.Denials {
		fmt.Fprintf(b, "rejected    %d times %s, last at %s\n", d.Count, d.Reason, stampOf(d.LastAt))
	}
	for _, w := range st.Warnings {
		fmt.Fprintf(b, "warning     %s\n", oneLine(w))
	}
	fmt.Fprintf(b, "\n## Recent errors\n\n")
	if f := st.TokenFailure; f != nil {
		fmt.Fprintf(b, "%s  token request, %s: %s\n", stampOf(f.Time), f.Outcome, oneLine(f.Error))
	}
	for _, r := range s.Errors[:min(len(s.Errors), maxErrors)] {
		fmt.Fprintf(b, "%s  %s %s: %d %s\n", stampOf(r.Time), r.Method, r.Path, r.Status, oneLine(cmp.Or(r.Error, string(r.Fault))))
	}
	if st.TokenFailure == nil && len(s.Errors) == 0 {
		b.WriteString("none\n")
	}
}

func writeHealth(b *strings.Builder, h *event.Health) {
	fmt.Fprintf(b, "state       %s", h.State)
	if h.Component != "" {
		fmt.Fprintf(b, ", %s, %s", h.Component, h.Cause)
	}
	fmt.Fprintf(b, ", since %s: %s\n", stampOf(h.Since), strings.TrimSpace(oneLine(h.Text+" "+h.Advice)))
	if r := h.Recovered; r != nil {
		fmt.Fprintf(b, "recovered   at %s: %s, %s, %s since %s\n", stampOf(r.At), r.State, r.Component, r.Cause, stampOf(r.Since))
	}
}

func writeToken(b *strings.Builder, t *admin.TokenState) {
	switch {
	case t.Valid:
		fmt.Fprintf(b, "token       valid until %s\n", stampOf(t.Expiry))
	case t.Held:
		fmt.Fprintf(b, "token       expired at %s\n", stampOf(t.Expiry))
	default:
		b.WriteString("token       none\n")
	}
	if t.LastError != "" {
		fmt.Fprintf(b, "            %d token requests failed: %s\n", t.Failures, oneLine(t.LastError))
	}
}

// oneLine replaces line ends and repeated blanks by one space.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
