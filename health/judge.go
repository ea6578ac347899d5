package health

import (
	"fmt"
	"math"
	"time"

	"mimecast-proxy/event"
)

const (
	// The least numbers of failed requests: a share of a few requests is mostly chance.
	minFailed = 5
	minInARow = 3 // of a client that calls rarely
	// From these shares on the state is degraded or down.
	degradedShare = 0.05
	downShare     = 0.5
	// Below these shares it no longer is. The distance keeps the state from flapping.
	staysDegraded = 0.025
	staysDown     = 0.35
	minToStay     = 3
)

// judgeRequests returns the state of the requests that some tallies counted. was is what
// it was.
func judgeRequests(tallies []*tally, was event.Judgment, now time.Time) event.Judgment {
	long, short := countWithin(tallies, now, window), countWithin(tallies, now, recently)
	if short.accepted <= fewRequests {
		short = countLast(tallies, now, window)
		short.few = false // of many, three in a row fail by chance
	}
	short.recent = true
	if long.accepted <= fewRequests {
		rejections := long.bad
		long = countLast(tallies, now, longWindow)
		for k, n := range rejections {
			if traits[k].class == rejected {
				long.bad[k], long.anyBad = n, long.anyBad || n > 0
			}
		}
		short = long
	}
	for _, c := range []counts{long, short} {
		if j, ok := c.judgeFailed(was); ok && j.State == event.HealthDown {
			return j
		}
	}
	if j, ok := long.judgeFailed(was); ok {
		return j
	}
	for _, of := range []class{slow, clients} {
		if j, ok := long.judgeMost(of, was); ok {
			return j
		}
	}
	if j, ok := long.judgeRejected(); ok {
		return j
	}
	return long.healthy()
}

// judgeFailed returns the state due to failed requests; false if that is healthy.
func (c *counts) judgeFailed(was event.Judgment) (event.Judgment, bool) {
	n, most := c.of(failed, was.Cause)
	share := c.share(n)
	if most == good {
		return event.Judgment{}, false
	}
	if was.State != event.HealthOK && traits[indexOf(was)].class != failed {
		was.State = event.HealthOK
	}
	switch {
	case n >= minFailed && float64(n) >= c.forDown():
		return c.judgment(event.HealthDown, most, n), true
	case c.few && c.run >= minInARow && share < downShare:
		return c.inARow(most), true
	case c.few && c.run >= minInARow, was.State == event.HealthDown && n >= minToStay && share >= staysDown:
		return c.judgment(event.HealthDown, most, n), true
	case n >= minFailed && n > byChance(c.accepted), was.State != event.HealthOK && n >= minToStay && share >= staysDegraded:
		return c.judgment(event.HealthDegraded, most, n), true
	default:
		return event.Judgment{}, false
	}
}

// forDown returns how many requests must fail to make the state down: half of them, and in
// a short time more than chance adds.
func (c *counts) forDown() float64 {
	half := downShare * float64(c.accepted)
	if c.recent {
		half += 0.9 * math.Sqrt(float64(c.accepted))
	}
	return half
}

// byChance returns how many of some requests may fail at most by chance if no more than
// degradedShare do in the long run.
func byChance(requests int) int {
	expected := degradedShare * float64(requests)
	return int(expected + 3*math.Sqrt(expected))
}

// judgeMost returns a degraded state if at least half of the requests are of a class.
func (c *counts) judgeMost(of class, was event.Judgment) (event.Judgment, bool) {
	n, most := c.of(of, was.Cause)
	atLeast, share := minFailed, downShare
	if was.State == event.HealthDegraded && traits[indexOf(was)].class == of {
		atLeast, share = minToStay, staysDown
	}
	return c.judgment(event.HealthDegraded, most, n), n >= atLeast && c.share(n) >= share
}

// judgeRejected looks at rejected requests if all were rejected. Otherwise the others
// show how the proxy is, and anyone who can connect can cause rejections.
func (c *counts) judgeRejected() (event.Judgment, bool) {
	n, most := c.of(rejected, "")
	if c.accepted > 0 || n < minFailed {
		return event.Judgment{}, false
	}
	only := *c
	only.accepted, only.window = n, window
	j := only.judgment(event.HealthDegraded, most, n)
	j.Text = fmt.Sprintf("%s: the proxy rejected all %d requests in the last minute.", traits[most].Summary, n)
	return j, true
}

func (c *counts) share(n int) float64 { return float64(n) / float64(max(c.accepted, 1)) }

func (c *counts) judgment(state event.HealthState, k kind, n int) event.Judgment {
	j := event.Judgment{State: state, WindowSeconds: int(c.window / time.Second), Requests: c.accepted, Failed: n, AffectedShare: c.share(n)}
	if k == good {
		return j
	}
	d := traits[k]
	j.Component, j.Cause, j.Advice = d.Component, d.Cause, d.Remedy
	j.Text = fmt.Sprintf("%s: %d of %s in the last %s.", d.Summary, n, requests(c.accepted), inWords(c.window))
	return j
}

// inARow is the judgment of the last requests alone, which all failed.
func (c *counts) inARow(k kind) event.Judgment {
	only := *c
	only.accepted = c.run
	j := only.judgment(event.HealthDown, k, c.run)
	j.Text = fmt.Sprintf("%s: the last %d requests failed.", traits[k].Summary, c.run)
	return j
}

func (c *counts) healthy() event.Judgment {
	n, _ := c.of(failed, "")
	j := c.judgment(event.HealthOK, good, n)
	j.Text = fmt.Sprintf("All is well: %s in the last %s.", requests(c.accepted), inWords(c.window))
	if n > 0 {
		j.Text = fmt.Sprintf("All is well: %d of %s in the last %s failed.", n, requests(c.accepted), inWords(c.window))
	}
	return j
}

// indexOf returns the kind of a judgment's cause; that of [event.Other] for one that is no
// kind.
func indexOf(j event.Judgment) kind {
	for k := range traits {
		if traits[k].Cause == j.Cause && traits[k].Component == j.Component {
			return kind(k)
		}
	}
	return kind(event.Other.Index())
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
