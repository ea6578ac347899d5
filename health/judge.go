package health

import (
	"fmt"
	"time"

	"mimecast-proxy/event"
)

const (
	// So many requests must fail, at least. One says nothing, and a share of few little.
	minFailed = 5
	minOfFew  = 3 // if at least half of all failed
	// From these shares on the state is degraded or down.
	degradedShare = 0.05
	downShare     = 0.5
)

// judge returns the state of the requests that some tallies counted.
func judge(tallies []*tally, now time.Time) event.Judgment {
	long, short := counts{window: window}, counts{window: recently}
	for _, t := range tallies {
		long.add(t, now, window)
		short.add(t, now, recently)
	}
	if long.accepted <= fewRequests && len(tallies) > 0 {
		rare := counts{window: longWindow}
		for _, t := range tallies {
			rare.addLast(t, now)
		}
		rejected, most := long.rejected()
		if rejected > 0 {
			rare.bad[most] += rejected
		}
		long = rare
	}
	for _, c := range []counts{long, short} {
		if j, ok := c.judge(notTheClients); ok && j.State == event.HealthDown {
			return j
		}
	}
	for _, of := range []func(kind) bool{notTheClients, theClients} {
		if j, ok := long.judge(of); ok {
			return j
		}
	}
	if j, ok := long.judgeRejections(); ok {
		return j
	}
	return long.judgment(event.HealthOK, good, 0)
}

func theClients(k kind) bool    { return conditions[k].Component == event.ComponentClient }
func notTheClients(k kind) bool { return !theClients(k) }

// judge returns the state that the failed requests of some kinds make; not ok for a
// healthy one.
func (c *counts) judge(of func(kind) bool) (event.Judgment, bool) {
	failed, most := c.failed(of)
	share := float64(failed) / float64(max(c.accepted, 1))
	slow := most >= upstreamWasSlow
	switch {
	case failed < minOfFew, failed < minFailed && share < downShare, share < degradedShare:
		return event.Judgment{}, false
	case most != good && (slow || theClients(most)): // the requests were carried out, or the proxy is not to blame
		return c.judgment(event.HealthDegraded, most, failed), share >= downShare && failed >= minFailed
	case share >= downShare:
		return c.judgment(event.HealthDown, most, failed), true
	default:
		return c.judgment(event.HealthDegraded, most, failed), true
	}
}

// judgeRejections looks at rejected requests if all were rejected. Otherwise the others
// show how the proxy is, and anyone who can connect can cause rejections.
func (c *counts) judgeRejections() (event.Judgment, bool) {
	rejected, most := c.rejected()
	if c.accepted > 0 || rejected < minFailed {
		return event.Judgment{}, false
	}
	j := c.judgment(event.HealthDegraded, most, rejected)
	j.Requests, j.AffectedShare = rejected, 1
	j.Text = fmt.Sprintf("%s: the proxy rejected all %d requests in the last %s.", conditions[most].Summary, rejected, inWords(c.window))
	return j, true
}

func (c *counts) judgment(state event.HealthState, k kind, failed int) event.Judgment {
	j := event.Judgment{State: state, WindowSeconds: int(c.window / time.Second), Requests: c.accepted, Failed: failed}
	if c.accepted > 0 {
		j.AffectedShare = float64(failed) / float64(c.accepted)
	}
	if k == good {
		j.Text = fmt.Sprintf("All is well: %s in the last %s.", requests(c.accepted), inWords(c.window))
		return j
	}
	d := conditions[k]
	j.Component, j.Cause, j.Advice = d.Component, d.Cause, d.Remedy
	j.Text = fmt.Sprintf("%s: %d of %s in the last %s.", d.Summary, failed, requests(c.accepted), inWords(c.window))
	return j
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

// inWords returns a window as a text calls it.
func inWords(d time.Duration) string {
	if d == time.Minute {
		return "minute"
	}
	if d < time.Minute {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}
