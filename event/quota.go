package event

import "time"

// PaceOutcome says how a call ended that came too early for its share of a quota.
type PaceOutcome string

// The outcomes of pacing. A call that goes at once has none.
const (
	PaceWaited    PaceOutcome = "waited"     // it waited for its turn, and was sent
	PaceWouldWait PaceOutcome = "would_wait" // it was sent at once, since pacing only observes
	PaceTooLong   PaceOutcome = "too_long"   // its turn would come too late: rejected
	PaceTooMany   PaceOutcome = "too_many"   // too many wait already: rejected
	PaceAbandoned PaceOutcome = "abandoned"  // the client went away, or the proxy shut down
)

// PaceOutcomes lists all of them.
var PaceOutcomes = []PaceOutcome{PaceWaited, PaceWouldWait, PaceTooLong, PaceTooMany, PaceAbandoned}

var paceSummaries = map[PaceOutcome]string{
	PaceWaited: "waited", PaceWouldWait: "would have waited", PaceTooLong: "rejected: the turn was too far away",
	PaceTooMany: "rejected: too many waited", PaceAbandoned: "left while waiting",
}

// Summary continues "N calls …".
func (o PaceOutcome) Summary() string { return paceSummaries[o] }

// Quota is what is known of the quota of one Mimecast function in one account, and
// who used it. Its JSON keys are stable.
type Quota struct {
	// Account is the account's name. Function is the label from a closed set; Path is the
	// path, which is for people and never a label.
	Account  string `json:"account"`
	Function string `json:"function"`
	Path     string `json:"path"`
	// Limit and Remaining are the last that Mimecast stated, SeenAt says when. Reset is
	// when the window ends; zero if it has ended and nothing is known of the next one.
	Limit     int64     `json:"limit"`
	Remaining int64     `json:"remaining"`
	Reset     time.Time `json:"reset,omitzero"`
	SeenAt    time.Time `json:"seen_at"`
	// Calls and Limited count this proxy's calls in the window, and those that got 429.
	// Others is how many calls of the window were not this proxy's, as far as is known.
	Calls   uint64 `json:"calls"`
	Limited uint64 `json:"limited"`
	Others  uint64 `json:"others"`
	// Clients are who made the calls, most calls first.
	Clients []QuotaClient `json:"clients"`
	// Waiting is how many calls wait for their turn now. Paced counts the others since
	// the function was first seen, by how pacing ended, and WaitedMS is how long they
	// waited, or would have waited, in all.
	Waiting  int                    `json:"waiting"`
	Paced    map[PaceOutcome]uint64 `json:"paced"`
	WaitedMS float64                `json:"waited_ms"`
}

// QuotaClient is what one client used of a function's quota in the window.
type QuotaClient struct {
	Client  string `json:"client"`
	Calls   uint64 `json:"calls"`
	Limited uint64 `json:"limited"`
}
