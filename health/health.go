// Package health judges how well the proxy does what it is for: ok, degraded or down, with
// the component to look at, the cause, and since when.
//
// It is the one judgment. The status page, the probes, metrics, the level of log lines and
// alerts read it, and judge nothing themselves, so that they cannot contradict each other.
//
// A [Monitor] learns the outcome of each request, and reads the rest of the [Facts] when it
// judges. A few rules keep it calm and quick:
//   - A single failed request is no fault, not even a panic: the log has that. The state is
//     down if half of the requests of the last minute failed and they are five or more, or
//     if three in a row failed while only a few come. It is degraded if five or more failed
//     and more than a share of 5 % causes by chance.
//   - A state that began lasts until the share is clearly lower.
//   - A cause ends once no request met it for 2 s and enough were good since. How many are
//     enough depends on its share: after an outage one is. Only responses from Mimecast
//     count, not those of the proxy itself. A new token ends the lack of one.
//   - A shutdown only degrades the health, however many requests it cuts: it is intended.
//   - Faults of clients degrade the health if they are half of the requests. They never make
//     it down.
//   - An account without a token is down once a token request failed. A request that
//     waits makes nothing worse, unless Mimecast responds to no request at all.
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
	// judgeEvery is how often a running monitor judges without being asked.
	judgeEvery = time.Second
	// judgeIdle is the same for an idle proxy, which is to sleep and to give its memory
	// back, until a request ends.
	judgeIdle = 10 * time.Second
	// maxHistory bounds what is remembered of changes.
	maxHistory = 50
)

// Facts are what a judgment needs in addition to the outcomes of requests.
type Facts struct {
	// Accounts are those that clients use.
	Accounts []Account
	// Clients are the names that clients have now: others are forgotten.
	Clients  []string
	Draining bool
	// InFlight is the number of in-flight requests, and MaxRequests their bound; 0 means
	// that there is none.
	InFlight, MaxRequests int
	// Waiting are the requests that wait for Mimecast.
	Waiting []event.Waiting
}

// Account is what is known of an account's token.
type Account struct {
	Name string
	// Usable says that there is a token that has not expired and that Mimecast has not
	// rejected.
	Usable bool
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
	start time.Time
	state atomic.Value // event.HealthState: the last judgment's

	// recorded says that a request has ended; its capacity is 1.
	recorded chan struct{}

	// judging is held while the facts are read and judged, so that no judgment is of older
	// facts than the one before it.
	judging sync.Mutex

	mu       sync.Mutex // guards all below
	ended    uint64     // how many requests ended
	accounts map[string]*tally
	clients  map[string]*tally
	// nearCapacity is since when the proxy has been near its bound; zero: it is not.
	nearCapacity time.Time
	// scopes has what was judged last of each account and client.
	scopes    map[scopeKey]scope
	overall   begun
	requests  event.Judgment // the last one of all requests alone
	recovered *event.Recovery
	history   []event.HealthChange // newest first
	changed   []event.Health       // what Run has to report
}

// scopeKey names an account or a client.
type scopeKey struct {
	client bool
	name   string
}

// scope is what was judged of an account or a client. requests is the judgment of its
// requests alone.
type scope struct {
	begun
	requests event.Judgment
}

// begun is when a state with a cause began.
type begun struct {
	event.HealthChange
	// ill is when the state was last ok before it, and worst the worst state since.
	ill   time.Time
	worst event.HealthChange
}

// New returns a Monitor that reads the facts when it judges. now is when the proxy started.
func New(now time.Time, facts func() Facts) *Monitor {
	m := &Monitor{
		facts: facts, start: now, recorded: make(chan struct{}, 1), accounts: make(map[string]*tally), clients: make(map[string]*tally), scopes: make(map[scopeKey]scope),
		overall: begun{HealthChange: event.HealthChange{At: now, State: event.HealthOK}},
	}
	m.state.Store(event.HealthOK)
	return m
}

// Record notes how a request ended. It is quick, and safe for concurrent use.
func (m *Monitor) Record(o event.Outcome) {
	defer m.wake()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended++
	m.tally(m.accounts, cmp.Or(o.Account, account.Default)).record(o)
	if o.Client != "" {
		m.tally(m.clients, o.Client).record(o)
	}
}

// wake ends the sleep of Run.
func (m *Monitor) wake() {
	select {
	case m.recorded <- struct{}{}:
	default: // Run has that from another request
	}
}

func (m *Monitor) tally(all map[string]*tally, name string) *tally {
	t := all[name]
	if t == nil {
		t = &tally{start: m.start}
		all[name] = t
	}
	return t
}

// State returns the state of the last judgment, without a lock: for what happens with
// every request.
func (m *Monitor) State() event.HealthState { return m.state.Load().(event.HealthState) }

// Run judges until ctx ends, and calls changed for each change: every second, and every
// ten if all is well and no request ends.
func (m *Monitor) Run(ctx context.Context, changed func(event.Health)) {
	var ended uint64
	for {
		m.Health()
		m.mu.Lock()
		all, idle := m.changed, m.ended == ended && m.overall.State == event.HealthOK
		m.changed, ended = nil, m.ended
		m.mu.Unlock()
		for _, h := range all {
			changed(h)
		}
		if idle && !m.awaitRequest(ctx) {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(judgeEvery):
		}
	}
}

// awaitRequest waits until a request ends, and reports whether one did within judgeIdle.
func (m *Monitor) awaitRequest(ctx context.Context) bool {
	timer := time.NewTimer(judgeIdle)
	defer timer.Stop()
	select {
	case <-m.recorded:
		return true
	case <-ctx.Done():
		return true
	case <-timer.C:
		return false
	}
}

// Health judges now.
func (m *Monitor) Health() event.Health {
	m.judging.Lock()
	defer m.judging.Unlock()
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
	accounts := make(map[string]Account, len(facts.Accounts))
	for _, a := range facts.Accounts {
		accounts[a.Name] = a
	}
	maps.DeleteFunc(m.accounts, func(name string, _ *tally) bool {
		_, exists := accounts[name]
		return !exists && name != account.Default // which has the requests of strangers, too
	})
	maps.DeleteFunc(m.clients, func(name string, _ *tally) bool { return !slices.Contains(facts.Clients, name) })
	maps.DeleteFunc(m.scopes, func(key scopeKey, _ scope) bool {
		_, exists := accounts[key.name]
		return key.client && m.clients[key.name] == nil || !key.client && !exists
	})
	for _, all := range []map[string]*tally{m.accounts, m.clients} {
		for _, t := range all {
			t.forgetEnded(now, accounts[t.account])
		}
	}
}

func (m *Monitor) judgeAccounts(facts Facts, now time.Time) []event.NamedJudgment {
	all := make([]event.NamedJudgment, 0, len(facts.Accounts))
	for _, a := range facts.Accounts {
		t, key := m.tally(m.accounts, a.Name), scopeKey{name: a.Name}
		was := m.scopes[key]
		requests := judgeRequests([]*tally{t}, was.requests, now)
		j := requests
		if token, ok := a.judge(t.waitedForToken(a, now)); ok && !j.State.Worse(token.State) {
			j = withCounts(token, j)
			if token.State == event.HealthDown { // all would fail
				j.AffectedShare = 1
			}
		}
		if stall := judgeStall(facts.Waiting, a.Name, t.respondedAt, now); stall.State.Worse(j.State) {
			j = withCounts(stall, j)
		}
		was.date(&j, now)
		m.scopes[key] = scope{was.begun, requests}
		all = append(all, event.NamedJudgment{Name: a.Name, Judgment: j})
	}
	return all
}

func (m *Monitor) judgeClients(now time.Time) []event.NamedJudgment {
	all := make([]event.NamedJudgment, 0, len(m.clients))
	for _, name := range slices.Sorted(maps.Keys(m.clients)) {
		key := scopeKey{client: true, name: name}
		was := m.scopes[key]
		j := judgeRequests([]*tally{m.clients[name]}, was.requests, now)
		was.date(&j, now)
		m.scopes[key] = scope{was.begun, j}
		all = append(all, event.NamedJudgment{Name: name, Judgment: j})
	}
	return all
}

// date fills in since when a scope has had its state and cause.
func (b *begun) date(j *event.Judgment, now time.Time) {
	if b.State != j.State || b.Cause != j.Cause {
		b.HealthChange = event.HealthChange{At: now, State: j.State, Component: j.Component, Cause: j.Cause}
	}
	j.Since = b.At
}

// pendingTime is how long the renewal of a rejected token may take without being a fault.
const pendingTime = 2 * time.Second

// waitedForToken returns for how long the account has had no usable token.
func (t *tally) waitedForToken(a Account, now time.Time) time.Duration {
	switch {
	case a.Usable:
		t.noTokenSince = time.Time{}
		return 0
	case t.noTokenSince.IsZero():
		t.noTokenSince = now
	}
	return now.Sub(t.noTokenSince)
}

// judge returns the state of an account's token; false if nothing is wrong with it. waited
// is how long the account has had no usable token.
func (a Account) judge(waited time.Duration) (event.Judgment, bool) {
	component := event.ComponentMimecast // a token endpoint that fails is Mimecast's
	cause := event.Cause(event.TokenUnavailable)
	if a.Refused {
		component, cause = event.ComponentCredentials, event.Cause(event.CredentialsRefused)
	}
	switch {
	case a.Usable && a.Refused: // only other credentials help
		return a.judgment(event.HealthDegraded, component, cause), true
	case a.Usable && a.Failures < 2: // one that fails may pass
		return event.Judgment{}, false
	case a.Usable:
		return a.judgment(event.HealthDegraded, component, event.CauseTokenNotRenewed), true
	case a.Error != "":
		return a.judgment(event.HealthDown, component, cause), true
	case !a.Fetched.IsZero() && waited < pendingTime:
		return event.Judgment{}, false // it is being replaced
	default:
		return a.judgment(event.HealthDegraded, component, event.CauseTokenPending), true
	}
}

func (a Account) judgment(state event.HealthState, component event.Component, cause event.Cause) event.Judgment {
	d := cause.Condition()
	advice := d.Remedy
	if a.Error != "" && !a.Refused {
		advice = strings.ToUpper(a.Error[:1]) + strings.TrimSuffix(a.Error[1:], ".") + ". The proxy keeps trying."
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
	requests := judgeRequests(slices.Collect(maps.Values(m.accounts)), m.requests, now)
	m.requests = requests
	worst := requests
	consider := func(j event.Judgment) {
		if j.State.Worse(worst.State) {
			worst = withCounts(j, requests)
		}
	}
	// An account's judgment knows its token, so it is preferred if both states are equal.
	if j := worstOf(h.Accounts, func(j *event.Judgment, name string) { j.Account = name }); j.State != event.HealthOK && !worst.State.Worse(j.State) {
		worst = withCounts(j, requests)
		if traits[indexOf(j)].noToken {
			worst.AffectedShare = max(worst.AffectedShare, j.AffectedShare*portion(h.Accounts, j.Account))
		}
	}
	consider(m.judgeCapacity(facts, now))
	consider(worstOf(slices.DeleteFunc(slices.Clone(h.Clients), byTheClient), func(j *event.Judgment, name string) { j.Client = name }))
	if facts.Draining {
		consider(judgment(event.HealthDegraded, event.Cause(event.ShuttingDown)))
	}
	return worst
}

// portion returns the share of an account in the requests of all; 1 if it has no name.
func portion(all []event.NamedJudgment, account string) float64 {
	var its, requests int
	for _, one := range all {
		requests += one.Requests
		if one.Name == account {
			its = one.Requests
		}
	}
	switch {
	case account == "":
		return 1
	case requests == 0:
		return 1 / float64(len(all))
	default:
		return float64(its) / float64(requests)
	}
}

// byTheClient reports whether a client itself is to blame: others are not concerned.
func byTheClient(one event.NamedJudgment) bool { return one.Component == event.ComponentClient }

// worstOf returns the worst of some judgments, as one of the whole: what is down for one
// of several degrades it.
func worstOf(all []event.NamedJudgment, name func(*event.Judgment, string)) event.Judgment {
	worst := event.NamedJudgment{Judgment: event.Judgment{State: event.HealthOK}}
	for _, one := range all {
		if one.State.Worse(worst.State) {
			worst = one
		}
	}
	j := worst.Judgment
	alike := func(one event.NamedJudgment) bool { return one.State == j.State && one.Cause == j.Cause }
	if j.State == event.HealthOK || !slices.ContainsFunc(all, func(one event.NamedJudgment) bool { return !alike(one) }) {
		return j
	}
	name(&j, worst.Name)
	if slices.ContainsFunc(all, func(one event.NamedJudgment) bool { return one.State != event.HealthDown }) {
		j.State = event.HealthDegraded
	}
	j.Text = worst.Name + ": " + j.Text
	return j
}

func judgment(state event.HealthState, cause event.Cause) event.Judgment {
	d := cause.Condition()
	return event.Judgment{State: state, Component: d.Component, Cause: cause, Text: d.Summary + ".", Advice: d.Remedy}
}

const (
	// Above capacityShare of MaxRequests in flight for capacityTime, the proxy is near its
	// capacity, until the share is below staysNear. A shorter time is a peak.
	capacityShare = 0.9
	staysNear     = 0.8
	capacityTime  = 5 * time.Second
)

func (m *Monitor) judgeCapacity(facts Facts, now time.Time) event.Judgment {
	share := capacityShare
	if !m.nearCapacity.IsZero() {
		share = staysNear
	}
	near := facts.MaxRequests > 0 && float64(facts.InFlight) > share*float64(facts.MaxRequests)
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
	// Requests stall if several have waited for stallTime, or one for longStall, and
	// Mimecast responded to no other in that time. If it did, it is only slow.
	stallTime = 10 * time.Second
	longStall = 30 * time.Second
	minStall  = 3
)

func judgeStall(waiting []event.Waiting, account string, responded, now time.Time) event.Judgment {
	several, one := 0, false
	for _, w := range waiting {
		if w.Account != account {
			continue
		}
		since := w.Since
		if responded.After(since) {
			since = responded
		}
		if now.Sub(since) >= stallTime {
			several++
		}
		one = one || now.Sub(since) >= longStall
	}
	if one || several >= minStall {
		return judgment(event.HealthDegraded, event.CauseMimecastStalled)
	}
	return event.Judgment{State: event.HealthOK}
}

// note dates the judgment of the whole, and remembers its changes.
func (m *Monitor) note(h *event.Health, now time.Time) {
	m.state.Store(h.State)
	was := m.overall
	if was.State == h.State && was.Cause == h.Cause && was.Account == h.Account {
		h.Since = was.At
		return
	}
	if len(m.history) == 0 && h.Cause == event.CauseTokenPending { // every start has that
		h.Since = was.At
		m.overall = begun{HealthChange: event.HealthChange{At: was.At, State: h.State, Component: h.Component, Cause: h.Cause}}
		return
	}
	h.Since = now
	change := event.HealthChange{At: now, State: h.State, Component: h.Component, Cause: h.Cause, Account: h.Account}
	next := begun{HealthChange: change, ill: was.ill, worst: was.worst}
	if was.State == event.HealthOK || was.ill.IsZero() {
		next.ill, next.worst = now, change
	}
	if h.State.Worse(next.worst.State) {
		next.worst = change
	}
	if bad := was.worst; h.State == event.HealthOK && !was.ill.IsZero() {
		m.recovered = &event.Recovery{At: now, State: bad.State, Component: bad.Component, Cause: bad.Cause, Since: was.ill}
	}
	m.overall = next
	m.history = slices.Insert(m.history, 0, change)
	m.history = m.history[:min(len(m.history), maxHistory)]
	h.Recovered = m.recovered
	m.changed = append(m.changed, *h)
	m.changed = m.changed[max(0, len(m.changed)-maxHistory):]
}
