package simulator

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// rulesPath is one of the newer REST collections, which use methods and put identifiers in
// the path.
const rulesPath = "/policy-management/cloud-gateway/v1/blocked-senders/policies"

// maxRules is how many policies there can be.
const maxRules = 1000

// rules are the policies of one collection.
type rules struct {
	mu   sync.Mutex
	last int
	byID map[string]object
}

// withLock calls f with the collection, with the lock held. It seeds the collection on
// first use.
func (rs *rules) withLock(s *Simulator, f func(map[string]object)) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.byID == nil {
		rs.byID = map[string]object{}
		for i := range 3 {
			r := s.randFor("rule", int64(i))
			rs.add(s, object{"description": "Blocked by the help desk", "option": "block_sender", "enabled": true,
				"from": object{"type": "email_domain", "value": pick(r, domains)}, "to": object{"type": "everyone"}})
		}
	}
	f(rs.byID)
}

func (rs *rules) add(s *Simulator, rule object) string {
	rs.last++
	id := s.seal("rule", strconv.Itoa(rs.last))
	rule["id"] = id
	rs.byID[id] = rule
	return id
}

func ruleID(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, rulesPath+"/") }

func (s *Simulator) listRules(w http.ResponseWriter, r *http.Request) {
	var data []object
	s.rules.withLock(s, func(byID map[string]object) {
		for _, id := range slices.Sorted(maps.Keys(byID)) {
			data = append(data, maps.Clone(byID[id]))
		}
	})
	from, to, meta, ok := s.restPage(r, "rules", len(data))
	if !ok {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_page_token", "The page token is not one that was given", "pageToken")
		return
	}
	s.respond(w, r, http.StatusOK, object{"meta": meta, "policies": nonNil(data[from:to])})
}

func (s *Simulator) createRule(w http.ResponseWriter, r *http.Request) {
	rule, ok := s.readObject(w, r)
	if !ok {
		return
	}
	var full bool
	var made object
	s.rules.withLock(s, func(byID map[string]object) {
		if full = len(byID) >= maxRules; !full {
			s.journal.execute("create-policy", executionID(r.Header, s.rules.add(s, rule)))
			made = maps.Clone(rule)
		}
	})
	if full {
		s.rejectREST(w, r, http.StatusConflict, "too_many", "There are too many policies", "")
		return
	}
	s.respond(w, r, http.StatusCreated, made)
}

// readObject parses the body as a JSON object. If that fails, it rejects the request.
func (s *Simulator) readObject(w http.ResponseWriter, r *http.Request) (rule object, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err == nil {
		err = json.Unmarshal(body, &rule)
	}
	if err != nil || rule == nil {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_body", "The body must be a JSON object", "")
		return nil, false
	}
	return rule, true
}

func (s *Simulator) getRule(w http.ResponseWriter, r *http.Request) {
	var rule object
	s.rules.withLock(s, func(byID map[string]object) { rule = maps.Clone(byID[ruleID(r)]) })
	s.writeRule(w, r, rule)
}

func (s *Simulator) writeRule(w http.ResponseWriter, r *http.Request, rule object) {
	if rule == nil {
		s.rejectREST(w, r, http.StatusNotFound, "not_found", "There is no such policy", "id")
		return
	}
	s.respond(w, r, http.StatusOK, rule)
}

func (s *Simulator) patchRule(w http.ResponseWriter, r *http.Request) {
	change, ok := s.readObject(w, r)
	if !ok {
		return
	}
	delete(change, "id")
	var rule object
	s.rules.withLock(s, func(byID map[string]object) {
		if old := byID[ruleID(r)]; old != nil {
			s.journal.execute("update-policy", executionID(r.Header, ruleID(r)))
			maps.Copy(old, change)
			rule = maps.Clone(old)
		}
	})
	s.writeRule(w, r, rule)
}

func (s *Simulator) deleteRule(w http.ResponseWriter, r *http.Request) {
	known := false
	s.rules.withLock(s, func(byID map[string]object) {
		_, known = byID[ruleID(r)]
		delete(byID, ruleID(r))
	})
	s.journal.execute("delete-policy", executionID(r.Header, ruleID(r)))
	if !known {
		s.writeRule(w, r, nil)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
