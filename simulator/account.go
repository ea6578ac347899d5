package simulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// whoami responds with the account. A client of a parent account names another account
// in the x-mc-accountcode header.
func (s *Simulator) whoami(w http.ResponseWriter, r *http.Request) {
	code := accountCode
	if v := r.Header.Get("X-Mc-Accountcode"); v != "" {
		code = v
	}
	s.respond(w, r, http.StatusOK, object{
		"version": 1, "type": "application",
		"account-codes": object{"cg": code, "ci": "ci-" + strings.ToLower(code), "x1": nil, "lead": nil},
		"home-account":  object{"code": accountCode, "name": accountName, "region": "eu"},
	})
}

// packages are the products that the account has bought.
var packages = []string{"Email Security", "Targeted Threat Protection", "Archive"}

func (s *Simulator) provisionedPackages(*call) result {
	var res result
	for i, name := range packages {
		res.data = append(res.data, object{"products": object{"id": strconv.Itoa(1001 + i), "name": name}})
	}
	return res
}

func (s *Simulator) supportInfo(*call) result {
	return result{data: []object{{
		"partnerName": "", "supportPackage": "Basic", "customerDevelopmentManager": "", "mailtoLink": "mailto:support@mimecast.example",
		"supportJurisdiction": "EU", "renewalDate": "2027-03-31", "hostingJurisdiction": "EU", "customerAdvocate": "",
		"mainProduct": packages[0], "officePhone": "+44 20 7946 0000", // reserved for fiction
	}}}
}

func (s *Simulator) getAccount(*call) result {
	return result{data: []object{{
		"accountCode": accountCode, "accountName": accountName, "region": "eu", "type": "full", "archive": true, "gateway": true,
		"passphrase": "", "supportCode": "4711-0815", "maxRetention": 3653, "maxRetentionConfirmed": true, "minRetentionEnabled": false,
		"automatedSegmentPurge": true, "userCount": len(people), "mimecastId": "10-0104-00422", "contactEmail": "it@" + ownDomain, "domain": ownDomain,
		"packages": packages, "policyInheritance": false, "databaseCode": "eu",
	}}}
}

// restPage returns the page that r asks for, for the newer REST functions. The query has
// pageSize and pageToken, the response meta.pagination.
func (s *Simulator) restPage(r *http.Request, kind string, total int) (from, to int, meta object, ok bool) {
	q := r.URL.Query()
	size, err := strconv.Atoi(q.Get("pageSize"))
	if err != nil || size < 1 || size > maxPage {
		size = defaultPage
	}
	if token := q.Get("pageToken"); token != "" {
		text, sealed := s.unseal("page of "+kind, token)
		if from, err = strconv.Atoi(text); !sealed || err != nil {
			return 0, 0, nil, false
		}
	}
	from = min(from, total)
	to = min(from+size, total)
	page := object{"pageSize": size, "totalCount": total}
	if to < total {
		page["nextPageToken"] = s.seal("page of "+kind, strconv.Itoa(to))
	}
	return from, to, object{"pagination": page}, true
}

// rejectREST responds with the error envelope of the newer REST functions.
func (s *Simulator) rejectREST(w http.ResponseWriter, r *http.Request, status int, code, message, field string) {
	s.respond(w, r, status, object{"errors": []object{{"code": code, "message": message, "field": field}}})
}

const customerCount = 12

func customerCode(i int) string { return fmt.Sprintf("CSIM%02dB%03d", 30+i, 100+7*i) }

func (s *Simulator) customerEntry(i int) object {
	r := s.randFor("customer", int64(i))
	return object{"code": customerCode(i), "name": fmt.Sprintf("%s %s", pick(r, []string{"Northgate", "Brook", "Elm", "Quay"}), pick(r, []string{"Ltd", "Partners", "Group"})),
		"status": "active", "users": 5 + r.IntN(400)}
}

func (s *Simulator) customers(w http.ResponseWriter, r *http.Request) {
	from, to, meta, ok := s.restPage(r, "customers", customerCount)
	if !ok {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_page_token", "The page token is not one that was given", "pageToken")
		return
	}
	data := []object{}
	for i := from; i < to; i++ {
		data = append(data, s.customerEntry(i))
	}
	s.respond(w, r, http.StatusOK, object{"meta": meta, "data": data})
}

func (s *Simulator) customer(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	for i := range customerCount {
		if customerCode(i) == code {
			s.respond(w, r, http.StatusOK, s.customerEntry(i))
			return
		}
	}
	s.rejectREST(w, r, http.StatusNotFound, "not_found", "There is no such customer", "code")
}

// threatEvents lists threats. Its meta.query, which Mimecast does not send, is the query
// as received, byte for byte.
func (s *Simulator) threatEvents(w http.ResponseWriter, r *http.Request) {
	const each = 15 * time.Minute
	from, to, meta, ok := s.restPage(r, "threats", int(24*time.Hour/each))
	if !ok {
		s.rejectREST(w, r, http.StatusBadRequest, "invalid_page_token", "The page token is not one that was given", "pageToken")
		return
	}
	meta["query"] = r.URL.RawQuery
	last := floor(s.opts.Now().UnixNano(), each)
	data := []object{}
	for i := from; i < to; i++ {
		n := last - int64(i)
		m := s.messageAt(time.Unix(0, n*int64(each)))
		data = append(data, object{
			"id": s.seal("threat", strconv.FormatInt(n, 10)), "eventTime": m.at.Format(time.RFC3339), "subject": m.subject, "from": m.sender, "to": m.recipient,
			"type": pick(s.randFor("threat", n), []string{"phishing", "malware", "spam", "impersonation"}), "action": "blocked",
		})
	}
	s.respond(w, r, http.StatusOK, object{"meta": meta, "data": data})
}

const feedPages = 3

// threatFeed sends STIX bundles without an envelope. A response header has the token of
// the next bundle, which clients send back as data[0].token. After the last bundle, the
// response is the error "no result found".
func (s *Simulator) threatFeed(c *call) result {
	page := 0
	if token := c.arg("token"); token != "" {
		text, ok := s.unseal("feed", token)
		var err error
		if page, err = strconv.Atoi(text); !ok || err != nil {
			return failed(c.Data[0], "err_threat_intel_feed_invalid_token", "The token is not one that was given")
		}
	}
	next := map[string]string{"X-Mc-Threat-Feed-Next-Token": s.seal("feed", strconv.Itoa(min(page+1, feedPages)))}
	if page >= feedPages {
		res := failed(object{}, "err_threat_intel_feed_no_result_found", "No result was found")
		res.header = next
		return res
	}
	objects := make([]object, 0, 20)
	for i := range cap(objects) {
		objects = append(objects, s.indicator(page*cap(objects)+i))
	}
	return result{header: next, whole: object{"type": "bundle", "id": "bundle--" + s.uuid("bundle", page), "spec_version": "2.0", "objects": objects}}
}

func (s *Simulator) indicator(n int) object {
	r := s.randFor("indicator", int64(n))
	at := s.started.UTC().Add(-time.Duration(n+1) * time.Hour).Format("2006-01-02T15:04:05.000Z")
	return object{
		"type": "indicator", "id": "indicator--" + s.uuid("indicator", n), "created": at, "modified": at, "valid_from": at,
		"labels": []string{"malicious-activity"}, "pattern": fmt.Sprintf("[file:hashes.'SHA-256' = '%s']", hexText(r, 32)),
	}
}

// uuid returns a UUID that is the same in every run.
func (s *Simulator) uuid(kind string, n int) string {
	t := hexText(s.randFor(kind+" uuid", int64(n)), 16)
	return strings.Join([]string{t[:8], t[8:12], "4" + t[13:16], "8" + t[17:20], t[20:]}, "-")
}

// echoPath returns the request as received. Mimecast has no such path.
const echoPath = "/_simulator/echo"

// echo responds with the request as received, for every method.
func (s *Simulator) echo(w http.ResponseWriter, r *http.Request) {
	n, sum, err := hashBody(r.Body)
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "err_request_malformed", "The body ended early")
		return
	}
	s.respond(w, r, http.StatusOK, object{
		"method": r.Method, "target": r.RequestURI, "proto": r.Proto, "host": r.Host, "header": r.Header,
		"trailer": r.Trailer, "bodyLength": n, "bodySha256": fmt.Sprintf("%x", sum.Sum(nil)),
	})
}
