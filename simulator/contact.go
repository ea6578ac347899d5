package simulator

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

const contactPath = "/account/cloud-gateway/v1/emergency-contact"

// emergencyContact is the person whom Mimecast calls in an emergency.
type emergencyContact struct {
	mu    sync.Mutex
	entry object
}

// change replaces the contact with the result of f and returns a copy of it.
func (c *emergencyContact) change(f func(object) object) object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entry == nil {
		c.entry = object{
			"accountCode": accountCode, "contactName": "Amelia Hart", "contactEmailAddress": people[0] + "@" + ownDomain,
			"mobilePhone": "+44 7700 900000", "telephone": "", "alternateEmailAddresses": []string{}, // reserved for fiction
		}
	}
	c.entry = f(c.entry)
	return maps.Clone(c.entry)
}

func (s *Simulator) getContact(w http.ResponseWriter, r *http.Request) {
	s.respond(w, r, http.StatusOK, s.contact.change(func(o object) object { return o }))
}

// patchContact changes the members that the body has.
func (s *Simulator) patchContact(w http.ResponseWriter, r *http.Request) {
	s.changeContact(w, r, "update-emergency-contact", func(old, body object) object {
		maps.Copy(old, body)
		return old
	})
}

// putContact replaces the contact.
func (s *Simulator) putContact(w http.ResponseWriter, r *http.Request) {
	s.changeContact(w, r, "replace-emergency-contact", func(_, body object) object { return body })
}

func (s *Simulator) changeContact(w http.ResponseWriter, r *http.Request, name string, f func(old, body object) object) {
	body, ok := s.readObject(w, r)
	if !ok {
		return
	}
	address, given := body["contactEmailAddress"].(string)
	if given && !strings.Contains(address, "@") || !given && r.Method == http.MethodPut {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_value", "The address is not an email address", "contactEmailAddress")
		return
	}
	s.journal.execute(name, executionID(r.Header, address))
	s.respond(w, r, http.StatusOK, s.contact.change(func(old object) object {
		changed := f(old, body)
		changed["accountCode"] = accountCode
		return changed
	}))
}
