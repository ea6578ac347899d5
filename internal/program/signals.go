package program

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"mimecast-proxy/app"
	"mimecast-proxy/event"
)

// Signals are all that the proxy reports about its health at one moment.
type Signals struct {
	Health event.Health // from /api/status
	Page   string

	token struct {
		LastError string `json:"last_error"`
	}
	readyz  event.Judgment
	metrics map[string]float64 // by name without the prefix
	check   string             // output of the health check
}

// Watcher reads the signals of a program.
type Watcher struct {
	log    func() string
	admin  string // empty until the log has it
	client http.Client
	keep   bool // keep the connection after a Read
}

// Watcher returns a Watcher that opens a new connection for each Read.
func (p *Program) Watcher() *Watcher {
	return &Watcher{log: p.Stderr.String, client: http.Client{Transport: &http.Transport{}}}
}

// KeptWatcher returns a Watcher that keeps its connection, for a program that runs out of
// file descriptors.
func (p *Program) KeptWatcher() *Watcher {
	return &Watcher{log: p.Stderr.String, client: *p.Client, keep: true}
}

// adminAddress finds the address of the admin listener in the log.
var adminAddress = regexp.MustCompile(`"serving".*"admin":"([^"]+)"`)

func (w *Watcher) address() string {
	if w.admin != "" {
		return w.admin
	}
	if found := adminAddress.FindStringSubmatch(w.log()); found != nil {
		w.admin = found[1]
	}
	return w.admin
}

func (w *Watcher) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.address()+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && path != "/readyz" { // for example too many concurrent scrapes
		return nil, fmt.Errorf("%s: %s", path, res.Status)
	}
	return io.ReadAll(res.Body)
}

// Read reads all signals between two equal statuses, so that they describe the same state.
// It returns an error if the proxy does not respond.
func (w *Watcher) Read(ctx context.Context) (s Signals, err error) {
	if !w.keep {
		defer w.client.CloseIdleConnections()
	}
	for {
		var before, after Signals
		if err := w.readStatus(ctx, &before); err != nil {
			return s, err
		}
		if s, err = w.readOthers(ctx); err != nil {
			return s, err
		}
		if err := w.readStatus(ctx, &after); err != nil {
			return s, err
		}
		s.Health, s.token = after.Health, after.token
		if a, b := before.Health, after.Health; a.State == b.State && a.Cause == b.Cause && a.Since.Equal(b.Since) && before.token == after.token {
			return s, nil
		}
	}
}

func (w *Watcher) readStatus(ctx context.Context, s *Signals) error {
	var status struct {
		Health event.Health
		Token  any
	}
	status.Token = &s.token
	body, err := w.get(ctx, "/api/status")
	if err == nil {
		err = json.Unmarshal(body, &status)
	}
	s.Health = status.Health
	return err
}

func (w *Watcher) readOthers(ctx context.Context) (s Signals, err error) {
	var ready struct{ Health event.Judgment }
	bodies := map[string][]byte{"/readyz": nil, "/metrics": nil, "/": nil}
	for path := range bodies {
		if bodies[path], err = w.get(ctx, path); err != nil {
			return s, err
		}
	}
	if err := json.Unmarshal(bodies["/readyz"], &ready); err != nil {
		return s, err
	}
	s.readyz, s.Page, s.metrics = ready.Health, string(bodies["/"]), map[string]float64{}
	for line := range strings.Lines(string(bodies["/metrics"])) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "mimecast_proxy_"), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			s.metrics[name] = v
		}
	}
	var out bytes.Buffer
	err = app.Env{Environ: []string{"PROXY_ADMIN_LISTEN=" + w.address()}, Stdout: &out}.Probe(ctx, "readiness", 0)
	if s.check = out.String(); err != nil {
		s.check = err.Error()
	}
	return s, ctx.Err()
}

// Disagreement describes the first contradiction between the signals; empty if all agree.
func (s *Signals) Disagreement() string {
	if d := s.disagreement(); d != "" {
		return fmt.Sprintf("the signals differ: /api/status: %+v; %s", s.Health.Judgment, d)
	}
	return ""
}

func (s *Signals) disagreement() string {
	h := &s.Health.Judgment
	current := fmt.Sprintf(`health{component=%q,state=%q}`, h.Component, h.State)
	states := 0.0
	for name, v := range s.metrics {
		if strings.HasPrefix(name, "health{") {
			states += v
		}
	}
	switch {
	case s.readyz.State != h.State || s.readyz.Component != h.Component || s.readyz.Cause != h.Cause:
		return fmt.Sprintf("/readyz: %+v", s.readyz)
	case s.metrics[current] != 1 || states != 1:
		return fmt.Sprintf("metrics: %s is %v of %v", current, s.metrics[current], states)
	case h.Cause != event.Cause(event.ShuttingDown) && s.metrics[fmt.Sprintf(`account_health{account="default",state=%q}`, h.State)] != 1:
		return fmt.Sprintf("account_health: %+v", s.Health.Accounts)
	case h.State == event.HealthOK && s.token.LastError != "" && s.metrics[`token_valid{account="default"}`] == 0:
		return "token_valid is 0: " + s.token.LastError
	case h.State == event.HealthDown && (h.Cause == "token_unavailable" || h.Cause == "credentials_refused") && s.metrics[`token_valid{account="default"}`] == 1:
		return "token_valid is 1"
	case strings.HasPrefix(s.check, "ready") && (h.State == event.HealthOK) != (s.check == "ready\n"):
		return "healthcheck: " + s.check
	case h.State != event.HealthOK && strings.HasPrefix(s.check, "ready") && !strings.Contains(s.check, string(h.State)+" since"):
		return "healthcheck: " + s.check
	case pageState(s.Page) != string(h.State):
		return "page: " + pageState(s.Page)
	default:
		return ""
	}
}

// pageHealth is the part of the page that shows the proxy's health.
var pageHealth = regexp.MustCompile(`id="health"[^>]* class="health (\w+)"`)

func pageState(page string) string {
	if found := pageHealth.FindStringSubmatch(page); found != nil {
		return found[1]
	}
	return ""
}

const watchEvery = time.Second

// WatchSignals compares the program's signals every second and at the end of the test. At
// the end it also compares the levels of request lines with the logged health. It skips
// moments in which the program does not respond.
func (p *Program) WatchSignals() {
	w := p.Watcher()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	compare := func(ctx context.Context) {
		if w.address() == "" {
			return
		}
		if s, err := w.Read(ctx); err == nil {
			if d := s.Disagreement(); d != "" {
				p.t.Error(d)
			}
		}
	}
	go func() {
		defer close(ended)
		for tick := time.NewTicker(watchEvery); ; {
			select {
			case <-tick.C:
				compare(ctx)
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	p.t.Cleanup(func() {
		stop()
		<-ended
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		end := time.Now()
		if p.Ended() {
			end = p.endedAt
		} else {
			compare(last)
		}
		for _, line := range wrongLevels(p.Stderr.String(), end) {
			p.t.Errorf("a level that differs from the health: %s", line)
		}
	})
}

// levelTime is how long after a health change the log lines may still have the old level.
const levelTime = time.Second

// wrongLevels returns the request lines of a JSON log whose level does not match the
// health at that time: error only if it is down, warn only if it is not.
func wrongLevels(log string, end time.Time) (wrong []string) {
	type entry struct {
		Msg, Level string
		State      event.HealthState
		Time       time.Time
		line       string
	}
	var requests []entry
	changes := []entry{{State: event.HealthOK}}
	for line := range strings.Lines(log) {
		e := entry{line: line}
		switch err := json.Unmarshal([]byte(line), &e); {
		case err != nil:
		case e.Msg == "request":
			requests = append(requests, e)
		case e.Msg == "health changed":
			changes = append(changes, e)
		}
	}
	for _, r := range requests {
		if end.Sub(r.Time) < levelTime {
			continue // a change may not be logged yet
		}
		down, up := false, false
		for i, c := range changes {
			began := !c.Time.After(r.Time.Add(levelTime))
			lasted := i+1 == len(changes) || changes[i+1].Time.After(r.Time.Add(-levelTime))
			down = down || began && lasted && c.State == event.HealthDown
			up = up || began && lasted && c.State != event.HealthDown
		}
		if r.Level == "error" && !down || r.Level == "warn" && !up {
			wrong = append(wrong, r.line)
		}
	}
	return wrong
}
