// Package health judges how well the proxy does what it is for: ok, degraded or down, with
// the component to look at, the cause, and since when.
//
// It is the one judgment. The status page, the probes, metrics, the level of log lines and
// alerts read it, and judge nothing themselves, so that they cannot contradict each other.
//
// A [Monitor] learns the outcome of each request, and reads the rest of the [Facts] when it
// judges. A few rules keep it calm and quick:
//   - A single failed request is no fault: it takes three if they are half of all, or else
//     five and 5 % of the requests of the last minute. Half of the requests make it down.
//   - A cause ends once no request met it for 2 s, and so many were good since that it can
//     hardly exist any more. How many depends on how large its share was: after an
//     outage one is enough. A new token ends what was wrong with the last one.
//   - What a client does wrong degrades the health if it concerns half of the requests. It
//     never makes it down.
package health

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
)

const (
	// judgeEvery is how often a running monitor judges, in case nobody asks.
	judgeEvery = time.Second
	// maxHistory bounds what is remembered of changes.
	maxHistory = 50
)

// Facts are what a judgment needs beside the outcomes of requests.
type Facts struct {
	// Accounts are those that clients use.
	Accounts []Account
	// Clients are the names that clients have now: others are forgotten.
	Clients  []string
	Draining bool
	// InFlight is the number of in-flight requests, and MaxRequests their bound; 0 means
	// that there is none.
	InFlight, MaxRequests int
	// Waiting are when those in-flight requests were sent to Mimecast to which no
	// response began, oldest first.
	Waiting []time.Time
}

// Account is what is known of an account's token.
type Account struct {
	Name string
	// Valid says that there is a token that has not expired, Rejected that Mimecast
	// responded 401 to it and that there is no newer one.
	Valid, Rejected bool
	// Fetched is when the token was asked for; zero without one.
	Fetched time.Time
	// Failures are how many token requests failed in a row, and Error is why the last
	// one did, without a secret; empty after one that succeeded. Refused says that
	// Mimecast rejects the credentials.
	Failures int
	Error    string
	Refused  bool
}

// Monitor judges. It must be made by New.
type Monitor struct {
	facts func() Facts
	state atomic.Value // event.HealthState: the last judgment's

	mu       sync.Mutex // guards all below
	accounts map[string]*tally
	clients  map[string]*tally
	// nearCapacity is since when the proxy has been near its bound; zero: it is not.
	nearCapacity time.Time
	// begun has since when each scope has had its state and cause, by [scopeKey].
	begun     map[scopeKey]begun
	overall   begun
	recovered *event.Recovery
	history   []event.HealthChange // newest first
	changed   []event.Health       // what Run has to report
}

// scopeKey names an account or a client.
type scopeKey struct {
	client bool
	name   string
}

// begun is when a state with a cause began. ill is when the state was last ok before it.
type begun struct {
	state     event.HealthState
	component event.Component
	cause     event.Cause
	account   string
	at, ill   time.Time
}

// New returns a Monitor that reads the facts when it judges. now is when the proxy started.
func New(now time.Time, facts func() Facts) *Monitor {
	m := &Monitor{
		facts: facts, accounts: make(map[string]*tally), clients: make(map[string]*tally), begun: make(map[scopeKey]begun),
		overall: begun{state: event.HealthOK, at: now},
	}
	m.state.Store(event.HealthOK)
	return m
}

// Record notes how a request ended. It is quick, and safe for concurrent use.
func (m *Monitor) Record(o event.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of(m.accounts, cmp.Or(o.Account, account.Default)).record(o)
	if o.Client != "" {
		of(m.clients, o.Client).record(o)
	}
}

func of(all map[string]*tally, name string) *tally {
	t := all[name]
	if t == nil {
		t = new(tally)
		all[name] = t
	}
	return t
}

// State returns the state of the last judgment, without a lock: for what happens with
// every request.
func (m *Monitor) State() event.HealthState { return m.state.Load().(event.HealthState) }

// Run judges every second until ctx ends, and calls changed for each change.
func (m *Monitor) Run(ctx context.Context, changed func(event.Health)) {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		m.Health()
		m.mu.Lock()
		all := m.changed
		m.changed = nil
		m.mu.Unlock()
		for _, h := range all {
			changed(h)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Health judges now.
func (m *Monitor) Health() event.Health {
	facts := m.facts() // which takes other locks
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(facts, now)
	h := event.Health{
		Accounts: m.judgeAccounts(facts, now),
		Clients:  m.judgeClients(now),
	}
	h.Judgment = m.judge(facts, h, now)
	m.note(&h, now)
	h.Recovered, h.History = m.recovered, slices.Clone(m.history)
	return h
}

// forget drops what has ended, and accounts and clients that no longer exist.
func (m *Monitor) forget(facts Facts, now time.Time) {
	maps.DeleteFunc(m.accounts, func(name string, _ *tally) bool {
		return name != account.Default && !slices.ContainsFunc(facts.Accounts, func(a Account) bool { return a.Name == name })
	})
	maps.DeleteFunc(m.clients, func(name string, _ *tally) bool { return !slices.Contains(facts.Clients, name) })
	tokens := make(map[string]Account, len(facts.Accounts))
	for _, a := range facts.Accounts {
		tokens[a.Name] = a
	}
	for _, all := range []map[string]*tally{m.accounts, m.clients} {
		for _, t := range all {
			t.forgetCured(now, tokens[t.account].newer)
		}
	}
}

// newer reports whether the account has got a token since a request failed, which
// Mimecast has not rejected.
func (a Account) newer(failed time.Time) bool {
	return a.Valid && !a.Rejected && a.Fetched.After(failed)
}

func (m *Monitor) judgeAccounts(facts Facts, now time.Time) []event.NamedJudgment {
	all := make([]event.NamedJudgment, 0, len(facts.Accounts))
	for _, a := range facts.Accounts {
		j := judge([]*tally{of(m.accounts, a.Name)}, now)
		if t, ok := a.judge(); ok && !j.State.Worse(t.State) {
			j = withCounts(t, j)
		}
		m.date(&j, scopeKey{name: a.Name}, now)
		all = append(all, event.NamedJudgment{Name: a.Name, Judgment: j})
	}
	return all
}

func (m *Monitor) judgeClients(now time.Time) []event.NamedJudgment {
	all := make([]event.NamedJudgment, 0, len(m.clients))
	for _, name := range slices.Sorted(maps.Keys(m.clients)) {
		j := judge([]*tally{m.clients[name]}, now)
		m.date(&j, scopeKey{client: true, name: name}, now)
		all = append(all, event.NamedJudgment{Name: name, Judgment: j})
	}
	return all
}

// date fills in since when a scope has had its state and cause.
func (m *Monitor) date(j *event.Judgment, key scopeKey, now time.Time) {
	b, known := m.begun[key]
	if !known || b.state != j.State || b.cause != j.Cause {
		b = begun{state: j.State, cause: j.Cause, at: now}
		m.begun[key] = b
	}
	j.Since = b.at
}

// judge returns the state of an account's token; not ok if nothing is wrong with it.
func (a Account) judge() (event.Judgment, bool) {
	component := event.ComponentMimecast // a token endpoint that fails is Mimecast's
	cause := event.Cause(event.TokenUnavailable)
	if a.Refused {
		component, cause = event.ComponentCredentials, event.Cause(event.CredentialsRefused)
	}
	switch usable := a.Valid && !a.Rejected; {
	case usable && a.Failures < 2: // one that fails may pass
		return event.Judgment{}, false
	case usable && !a.Refused:
		return a.judgment(event.HealthDegraded, component, event.CauseTokenNotRenewed), true
	case usable:
		return a.judgment(event.HealthDegraded, component, cause), true
	case a.Error != "":
		return a.judgment(event.HealthDown, component, cause), true
	case a.Rejected:
		return event.Judgment{}, false // it is being replaced
	default:
		return a.judgment(event.HealthDegraded, component, event.CauseTokenPending), true
	}
}

func (a Account) judgment(state event.HealthState, component event.Component, cause event.Cause) event.Judgment {
	d := cause.Condition()
	advice := d.Remedy
	if a.Error != "" && !a.Refused {
		advice = strings.TrimSuffix(a.Error, ".") + ". The proxy keeps trying."
	}
	return event.Judgment{State: state, Component: component, Cause: cause, Text: d.Summary + ".", Advice: advice}
}

// withCounts is a judgment with the counts of another one.
func withCounts(j, counted event.Judgment) event.Judgment {
	j.WindowSeconds, j.Requests, j.Failed, j.AffectedShare = counted.WindowSeconds, counted.Requests, counted.Failed, counted.AffectedShare
	return j
}

// judge returns the state of the whole.
func (m *Monitor) judge(facts Facts, h event.Health, now time.Time) event.Judgment {
	requests := judge(slices.Collect(maps.Values(m.accounts)), now)
	worst := requests
	consider := func(j event.Judgment) {
		if j.State.Worse(worst.State) {
			worst = withCounts(j, requests)
		}
	}
	// An account's judgment knows its token, and so is the better one if both say the same.
	if j := worstOf(h.Accounts, func(j *event.Judgment, name string) { j.Account = name }); j.State != event.HealthOK && !worst.State.Worse(j.State) {
		worst = withCounts(j, requests)
	}
	consider(m.judgeCapacity(facts, now))
	consider(judgeStall(facts, now))
	consider(worstOf(slices.DeleteFunc(slices.Clone(h.Clients), byTheClient), func(j *event.Judgment, name string) { j.Client = name }))
	if facts.Draining {
		consider(judgment(event.HealthDegraded, event.Cause(event.ShuttingDown)))
	}
	return worst
}

// byTheClient reports whether a client itself is to blame: others are not concerned.
func byTheClient(one event.NamedJudgment) bool { return one.Component == event.ComponentClient }

// worstOf returns the worst of some judgments, as one of the whole: what is down for one
// of several degrades it.
func worstOf(all []event.NamedJudgment, name func(*event.Judgment, string)) event.Judgment {
	worst, others := event.NamedJudgment{Judgment: event.Judgment{State: event.HealthOK}}, false
	for _, one := range all {
		if one.State.Worse(worst.State) {
			worst = one
		}
		others = others || one.State != event.HealthDown
	}
	j := worst.Judgment
	if j.State == event.HealthOK || len(all) == 1 {
		return j
	}
	name(&j, worst.Name)
	if others {
		j.State = event.HealthDegraded
	}
	j.Text = worst.Name + ": " + j.Text
	return j
}

func judgment(state event.HealthState, cause event.Cause) event.Judgment {
	d := cause.Condition()
	return event.Judgment{State: state, Component: d.Component, Cause: cause, Text: d.Summary + ".", Advice: d.Remedy}
}

// capacityShare is how much of MaxRequests may be in flight, and capacityTime for how long
// more is a peak.
const (
	capacityShare = 0.9
	capacityTime  = 5 * time.Second
)

func (m *Monitor) judgeCapacity(facts Facts, now time.Time) event.Judgment {
	near := facts.MaxRequests > 0 && float64(facts.InFlight) > capacityShare*float64(facts.MaxRequests)
	switch {
	case !near:
		m.nearCapacity = time.Time{}
	case m.nearCapacity.IsZero():
		m.nearCapacity = now
	case now.Sub(m.nearCapacity) >= capacityTime:
		return judgment(event.HealthDegraded, event.CauseNearCapacity)
	}
	return event.Judgment{State: event.HealthOK}
}

const (
	// Requests stall if several have waited for stallTime, or one for longStall.
	stallTime = 10 * time.Second
	longStall = 30 * time.Second
)

func judgeStall(facts Facts, now time.Time) event.Judgment {
	n := 0
	for _, sent := range facts.Waiting {
		if now.Sub(sent) >= stallTime {
			n++
		}
	}
	// Of those that came later, some may have got a response: then Mimecast is only slow.
	all := n == len(facts.Waiting)
	if n >= minOfFew && all || n > 0 && now.Sub(facts.Waiting[0]) >= longStall {
		return judgment(event.HealthDegraded, event.CauseMimecastStalled)
	}
	return event.Judgment{State: event.HealthOK}
}

// note dates the judgment of the whole, and remembers its changes.
func (m *Monitor) note(h *event.Health, now time.Time) {
	m.state.Store(h.State)
	was := m.overall
	if was.state == h.State && was.cause == h.Cause && was.account == h.Account {
		h.Since = was.at
		return
	}
	h.Since = now
	m.overall = begun{state: h.State, component: h.Component, cause: h.Cause, account: h.Account, at: now, ill: was.ill}
	switch {
	case was.state == event.HealthOK:
		m.overall.ill = now
	case h.State == event.HealthOK:
		m.recovered = &event.Recovery{At: now, State: was.state, Component: was.component, Cause: was.cause, Since: was.ill}
	}
	m.history = slices.Insert(m.history, 0, event.HealthChange{At: now, State: h.State, Component: h.Component, Cause: h.Cause, Account: h.Account})
	m.history = m.history[:min(len(m.history), maxHistory)]
	h.Recovered = m.recovered
	m.changed = append(m.changed, *h)
	m.changed = m.changed[max(0, len(m.changed)-maxHistory):]
}
