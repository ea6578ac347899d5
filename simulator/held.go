package simulator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// heldEvery is how far apart the messages in the hold queue arrived.
const heldEvery = 5 * time.Minute

// held remembers what was done with the messages of the hold queue. The
// messages themselves are made up.
type held struct {
	mu   sync.Mutex
	done map[int]string
}

// HeldID returns the identifier of the ith message in the hold queue, counted
// from the newest.
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

// holdList lists the queue as the members of data themselves. A page begins
// at the end of the one before, even if messages were released meanwhile.
func (s *Simulator) holdList(c *call) result {
	first := 0
	if token := c.Meta.Pagination.PageToken; token != "" {
		text, ok := s.unseal("page of held", token)
		var err error
		if first, err = strconv.Atoi(text); !ok || err != nil {
			return failed(nil, "err_validation_invalid_page_token", "The page token is not one that was given for this function")
		}
	}
	waiting := s.remaining(c)
	at, _ := slices.BinarySearch(waiting, first)
	size := c.Meta.Pagination.PageSize
	end := min(at+size, len(waiting))
	res := result{page: object{"pageSize": size, "totalCount": len(waiting)}}
	if end < len(waiting) {
		res.page["next"] = s.seal("page of held", strconv.Itoa(waiting[end]))
	}
	for _, i := range waiting[at:end] {
		res.data = append(res.data, s.heldEntry(i))
	}
	return res
}

// remaining returns the messages that still are in the queue and that the call is
// about.
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
		"reason": "Default Spam Scanning Definition", "reasonCode": "default_spam_scanning_definition", "reasonId": s.seal("reason", "spam"),
		"policyInfo": "Default Spam Scanning Definition", "spamScore": m.spam,
	}
}

// holdAction releases or rejects messages, each item of data by itself. It
// counts each call, even if the message is gone: a
// second count for an id is a request that ran twice.
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
	return nil
}
