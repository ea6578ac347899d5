package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/event"
)

const (
	maxTimeout    = 5 * time.Second
	retryInterval = 250 * time.Millisecond
	// minTimeout is long enough for a running proxy to respond that it is not ready.
	minTimeout = time.Second
)

// probePaths are the admin paths of the probes that Probe can query.
var probePaths = map[string]string{"readiness": "/readyz", "startup": "/startupz", "liveness": "/livez"}

// Probe queries a probe of the running proxy: "readiness", "startup" or "liveness". It retries
// until the probe passes or the wait ends; at least one request is sent. For readiness it
// prints the proxy's health, otherwise the probe's response.
func (p Env) Probe(ctx context.Context, probe string, wait time.Duration) error {
	path, ok := probePaths[probe]
	if !ok {
		return &ExitError{Code: ExitUsage, Err: fmt.Errorf("--probe is %q: use readiness, startup or liveness", probe)}
	}
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	a, err := p.runningProxy()
	if err != nil {
		return err
	}
	defer a.client.CloseIdleConnections()
	deadline := time.Now().Add(wait)
	for {
		line, err := a.ask(ctx, path, a.timeout(deadline))
		if err == nil {
			_, err := fmt.Fprintln(p.Stdout, line)
			return err
		}
		if time.Until(deadline) <= 0 {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case <-time.After(min(retryInterval, time.Until(deadline))):
		case <-ctx.Done():
		}
	}
}

// Quit asks the running proxy to drain and stop. It returns an error unless the proxy runs with
// PROXY_QUIT_ENDPOINT=true.
func (p Env) Quit(ctx context.Context) error {
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	a, err := p.runningProxy()
	if err != nil {
		return err
	}
	defer a.client.CloseIdleConnections()
	res, err := a.do(ctx, http.MethodPost, "/quitquitquit")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		return nil
	case http.StatusNotFound:
		return errors.New("the running proxy does not offer this: start it with PROXY_QUIT_ENDPOINT=true")
	default:
		return fmt.Errorf("the running proxy responded with status %d", res.StatusCode)
	}
}

// adminClient sends requests to a running proxy's admin listener.
type adminClient struct {
	address config.Address
	client  *http.Client
}

// runningProxy returns a client for the admin listener. It reads only the listener's address,
// since the rest of the configuration may be missing here.
func (p Env) runningProxy() (*adminClient, error) {
	address, err := config.AdminAddress(p.Environ)
	if err != nil {
		return nil, err
	}
	if address.IsZero() {
		return nil, errors.New("PROXY_ADMIN_LISTEN is off, and this command needs the admin listener: set it and restart the proxy")
	}
	return newAdminClient(address), nil
}

func newAdminClient(address config.Address) *adminClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, address.Network, reachable(address))
	}
	return &adminClient{address, &http.Client{Timeout: maxTimeout, Transport: &http.Transport{DialContext: dial}}}
}

// timeout returns how long to wait for one response, between minTimeout and maxTimeout.
func (a *adminClient) timeout(deadline time.Time) time.Duration {
	left := time.Until(deadline)
	if left <= 0 {
		return maxTimeout // the only attempt
	}
	return min(maxTimeout, max(left, minTimeout))
}

// reachable returns the address to dial for a listener. It replaces an unspecified IP address
// with localhost.
func reachable(a config.Address) string {
	host, port, err := net.SplitHostPort(a.Address)
	if ip := net.ParseIP(host); a.Network == "tcp" && err == nil && (host == "" || ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return a.Address
}

func (a *adminClient) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no response from the proxy at %v: check that it runs, with the same PROXY_ADMIN_LISTEN (%w)", a.address, err)
	}
	return res, nil
}

// ask queries a probe, and returns the line to print if it passes.
func (a *adminClient) ask(ctx context.Context, path string, wait time.Duration) (string, error) {
	if path == probePaths["readiness"] {
		health, err := a.ready(ctx, wait)
		return readiness(health), err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	res, err := a.do(ctx, http.MethodGet, path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	text := strings.Join(strings.FieldsFunc(string(body), func(r rune) bool { return r == '\n' }), "; ")
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: status %d: %w", path, res.StatusCode, err)
	case res.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s: status %d: %s", path, res.StatusCode, text)
	default:
		return text, nil
	}
}

// ready returns the health that /readyz reports. It returns an error if the proxy is not
// ready.
func (a *adminClient) ready(ctx context.Context, wait time.Duration) (event.Judgment, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	res, err := a.do(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return event.Judgment{}, err
	}
	defer res.Body.Close()
	var state struct {
		Reasons []string
		Health  event.Judgment
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(body, &state)
	}
	switch {
	case res.StatusCode == http.StatusOK:
		return state.Health, nil
	case err != nil || len(state.Reasons) == 0:
		return state.Health, fmt.Errorf("not ready: status %d", res.StatusCode)
	default:
		return state.Health, fmt.Errorf("not ready: %s", strings.Join(state.Reasons, "; "))
	}
}

// readiness returns the line to print for a proxy that is ready.
func readiness(h event.Judgment) string {
	if h.State == event.HealthOK || h.State == "" {
		return "ready"
	}
	return fmt.Sprintf("ready, but %s since %s (%s, %s): %s %s", h.State, stampOf(h.Since), h.Component, h.Cause, h.Text, h.Advice)
}
