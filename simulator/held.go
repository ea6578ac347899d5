package simulator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// holdPolicy is the policy that holds every message in the queue.
const holdPolicy = "Default Spam Scanning Definition"

// heldEvery is the interval at which the held messages arrived.
const heldEvery = 5 * time.Minute

// held remembers what was done with the held messages. The messages themselves are
// generated.
type held struct {
	mu   sync.Mutex
	done map[int]string
	log  []heldAction
}

// heldAction is what was done with one message.
type heldAction struct {
	message int
	verb    string
	at      time.Time
}

// HeldID returns the identifier of the ith message in the hold queue, starting at 0 with
// the newest.
func (s *Simulator) HeldID(i int) string { return s.seal("held", strconv.Itoa(i)) }

func (s *Simulator) heldIndex(id string) (int, bool) {
	text, ok := s.unseal("held", id)
	i, err := strconv.Atoi(text)
	return i, ok && err == nil && i >= 0 && i < s.opts.HeldMessages
}

// heldMessage returns the ith message in the queue.
func (s *Simulator) heldMessage(i int) message {
	m := s.message(int64(i))
	m.at = s.started.UTC().Truncate(time.Second).Add(-time.Duration(i+1) * heldEvery)
	return m
}

// holdList lists the queue. Its result's data is the list itself.
func (s *Simulator) holdList(c *call) result {
	page, meta, ok := s.pageOf("held", c, s.remaining(c))
	if !ok {
		return invalidPageToken
	}
	res := result{page: meta}
	for _, i := range page {
		res.data = append(res.data, s.heldEntry(i))
	}
	return res
}

// pageOf returns the page of the ascending numbers that the call asks for. It starts where
// the previous page ended, even if some numbers were removed since.
func (s *Simulator) pageOf(kind string, c *call, numbers []int) (page []int, meta object, ok bool) {
	first := 0
	if token := c.Meta.Pagination.PageToken; token != "" {
		text, sealed := s.unseal("page of "+kind, token)
		var err error
		if first, err = strconv.Atoi(text); !sealed || err != nil {
			return nil, nil, false
		}
	}
	at, _ := slices.BinarySearch(numbers, first)
	size := c.Meta.Pagination.PageSize
	end := min(at+size, len(numbers))
	meta = object{"pageSize": size, "totalCount": len(numbers)}
	if end < len(numbers) {
		meta["next"] = s.seal("page of "+kind, strconv.Itoa(numbers[end]))
	}
	return numbers[at:end], meta, true
}

// remaining returns the indexes of the messages that match the call and are still in the
// queue.
func (s *Simulator) remaining(c *call) []int {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	var indexes []int
	for i := range s.opts.HeldMessages {
		if _, done := s.held.done[i]; !done && s.heldMatches(c, i) {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

func (s *Simulator) heldMatches(c *call, i int) bool {
	if len(c.Data) == 0 {
		return true
	}
	m := s.heldMessage(i)
	if from, err := parseTime(c.arg("start")); err == nil && m.at.Before(from) {
		return false
	}
	if to, err := parseTime(c.arg("end")); err == nil && m.at.After(to) {
		return false
	}
	by, _ := c.Data[0]["searchBy"].(object)
	value := strings.ToLower(text(by, "value"))
	switch text(by, "fieldName") {
	case "recipient":
		return strings.Contains(m.recipient, value)
	case "sender":
		return strings.Contains(m.sender, value)
	case "subject":
		return strings.Contains(strings.ToLower(m.subject), value)
	}
	return true
}

func (s *Simulator) heldEntry(i int) object {
	m := s.heldMessage(i)
	person := func(address string) object { return object{"displayableName": "", "emailAddress": address} }
	return object{
		"id": s.HeldID(i), "dateReceived": m.at.Format(bodyTime), "from": person(m.sender), "fromHeader": person(m.sender),
		"to": person(m.recipient), "subject": m.subject, "route": strings.ToUpper(m.route), "size": m.size, "hasAttachments": m.attachments > 0,
		"reason": holdPolicy, "reasonCode": "default_spam_scanning_definition", "reasonId": s.seal("reason", "spam"),
		"policyInfo": holdPolicy, "spamScore": m.spam,
	}
}

// holdAction returns a function that releases or rejects messages, one per item of data.
// It counts a call even if the message is gone. A second count for an identifier thus
// shows a request that ran twice.
func (s *Simulator) holdAction(name string) function {
	verb := strings.TrimPrefix(name, "hold-")
	return func(c *call) result {
		var res result
		for _, item := range c.Data {
			ids := []string{text(item, "id")}
			if list, ok := item["ids"].([]any); ok {
				ids = ids[:0]
				for _, id := range list {
					ids = append(ids, fmt.Sprint(id))
				}
			}
			for _, id := range ids {
				if fail := s.actOnHeld(name, verb, id); fail != nil {
					res.fail = append(res.fail, fail)
				} else {
					res.data = append(res.data, object{"id": id, verb: true})
				}
			}
		}
		return res
	}
}

func (s *Simulator) actOnHeld(name, verb, id string) (fail object) {
	i, ok := s.heldIndex(id)
	if !ok {
		return failure(object{"id": id}, "err_gateway_message_not_found", "There is no such message in the hold queue")
	}
	s.journal.execute(name, id)
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	if was, done := s.held.done[i]; done {
		return failure(object{"id": id}, "err_gateway_message_already_actioned", "The message is gone from the hold queue: "+was)
	}
	if s.held.done == nil {
		s.held.done = map[int]string{}
	}
	s.held.done[i] = verb
	s.held.log = append(s.held.log, heldAction{i, verb, s.opts.Now().UTC().Truncate(time.Second)})
	return nil
}

// holdSummary returns the number of held messages by policy.
func (s *Simulator) holdSummary(*call) result {
	n := len(s.remaining(&call{}))
	if n == 0 {
		return result{}
	}
	return result{data: []object{{"policyInfo": holdPolicy, "numberOfItems": n}}}
}

// heldReleaseLog is the log of releases and rejections.
var heldReleaseLog = logbook{
	name: "held release", list: "heldReleaseLogs", back: logRetention, entry: (*Simulator).heldRelease, recorded: (*Simulator).heldReleaseTimes,
}

func (s *Simulator) heldReleaseTimes() []time.Time {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	var times []time.Time
	for _, a := range s.held.log {
		times = append(times, a.at)
	}
	return times
}

func (s *Simulator) heldRelease(n int64, at time.Time) object {
	s.held.mu.Lock()
	a := s.held.log[n]
	s.held.mu.Unlock()
	m := s.heldMessage(a.message)
	person := func(address string) object { return object{"displayableName": "", "emailAddress": address} }
	return object{
		"id": s.HeldID(a.message), "status": orElse(a.verb == "release", "released", "rejected"), "released": at.Format(bodyTime),
		"operator": object{"displayableName": "", "emailAddress": people[0] + "@" + ownDomain}, "subject": m.subject, "route": m.route, "size": m.size,
		"fromEnv": person(m.sender), "fromHdr": person(m.sender), "to": []object{person(m.recipient)}, "attachments": m.attachments > 0,
		"policy": holdPolicy, "heldReason": holdPolicy, "heldGroup": "administrator", "rejectReason": "", "detectionLevel": "relaxed",
		"spamScore": m.spam, "messageInfo": "",
	}
}
