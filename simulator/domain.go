package simulator

import "net/http"

const domainsPath = "/domain/cloud-gateway/v1/internal-domains"

// domainEntries are the account's own domains.
func (s *Simulator) domainEntries() []object {
	return []object{
		{"id": s.seal("domain", "1"), "domain": ownDomain, "local": true, "sendOnly": false, "inboundType": "known"},
		{"id": s.seal("domain", "2"), "domain": "news." + ownDomain, "local": false, "sendOnly": true, "inboundType": "any"},
	}
}

func (s *Simulator) internalDomains(*call) result { return result{data: s.domainEntries()} }

func (s *Simulator) listDomains(w http.ResponseWriter, r *http.Request) {
	all := s.domainEntries()
	from, to, meta, ok := s.restPage(r, "domains", len(all))
	if !ok {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_page_token", "The page token is not one that was given", "pageToken")
		return
	}
	s.respond(w, r, http.StatusOK, object{"meta": meta, "domains": all[from:to]})
}

func (s *Simulator) getDomain(w http.ResponseWriter, r *http.Request) {
	for _, d := range s.domainEntries() {
		if r.URL.Path == domainsPath+"/"+text(d, "id") {
			s.respond(w, r, http.StatusOK, d)
			return
		}
	}
	s.rejectREST(w, r, http.StatusNotFound, "not_found", "There is no such domain", "id")
}
