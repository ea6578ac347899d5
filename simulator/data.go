package simulator

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	accountCode = "CSIM22A104"
	accountName = "Harbour Mills Ltd"
	ownDomain   = "harbourmills.example"
	// messageEvery is the interval between messages: 2,160 a day.
	messageEvery = 40 * time.Second
	// bodyTime is the time format of the functions under /api: no colon in the zone.
	bodyTime = "2006-01-02T15:04:05-0700"
)

var (
	people = []string{"amelia.hart", "ben.osei", "carla.mendes", "dev.patel", "erin.walsh", "farid.nasser",
		"grace.lin", "henrik.dahl", "ines.moreau", "jack.turner", "kofi.mensah", "lena.fischer"}
	outsiders = []string{"orders", "newsletter", "m.silva", "accounts", "t.nakamura", "no-reply", "support", "p.novak"}
	domains   = []string{"brightwater.example", "oakline.example", "mail.example.net", "parcelway.example", "example.org"}
	subjects  = []string{"Invoice 20418", "Minutes of Tuesday's meeting", "Your parcel is on its way", "Re: contract draft",
		"Quarterly figures", "Password expires soon", "Lunch on Friday?", "Purchase order 7731", "Updated price list",
		"Action required: verify your mailbox", "Grüße aus Kiel", "Fwd: travel plans"}
)

// randFor returns a random source for one thing. It is the same for the same seed, kind
// and number, so nothing has to be stored.
func (s *Simulator) randFor(kind string, n int64) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kind)) // hash.Hash never returns an error
	return rand.New(rand.NewPCG(s.opts.Seed^h.Sum64(), uint64(n)))
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// oneInN returns true once in n calls on average.
func oneInN(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func address(r *rand.Rand) string {
	// RFC 5737 reserves this range for documentation.
	return fmt.Sprintf("198.51.100.%d", 1+r.IntN(254))
}

func hexText(r *rand.Rand, bytes int) string {
	b := make([]byte, bytes)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return hex.EncodeToString(b)
}

// message is an email that passed through. All logs agree on it.
type message struct {
	n                              int64
	at                             time.Time
	id, sender, recipient, subject string
	ip, route, aggregate           string
	size, attachments              int
	spam                           int
	held, malicious, rejected      bool
}

// message returns the nth message since 1970.
func (s *Simulator) message(n int64) message {
	r := s.randFor("message", n)
	m := message{n: n, at: time.Unix(0, 0).UTC().Add(time.Duration(n) * messageEvery), ip: address(r), subject: pick(r, subjects)}
	inside, outside := pick(r, people)+"@"+ownDomain, pick(r, outsiders)+"@"+pick(r, domains)
	switch r.IntN(10) {
	case 0:
		m.route, m.sender, m.recipient = "internal", inside, pick(r, people)+"@"+ownDomain
	case 1, 2, 3:
		m.route, m.sender, m.recipient = "outbound", inside, outside
	default:
		m.route, m.sender, m.recipient = "inbound", outside, inside
	}
	m.id = fmt.Sprintf("<%s-%d@%s>", hexText(r, 8), n, m.sender[strings.IndexByte(m.sender, '@')+1:])
	m.aggregate = fmt.Sprintf("%s_%d", hexText(r, 11), m.at.Unix())
	m.size, m.spam = 2_000+r.IntN(60_000), r.IntN(12)
	if oneInN(r, 4) {
		m.attachments = 1 + r.IntN(3)
		m.size += m.attachments * r.IntN(900_000)
	}
	m.held, m.malicious, m.rejected = oneInN(r, 20), oneInN(r, 30), oneInN(r, 40)
	return m
}

// messageAt returns the last message that had passed by t.
func (s *Simulator) messageAt(t time.Time) message {
	return s.message(t.UnixNano() / int64(messageEvery))
}
