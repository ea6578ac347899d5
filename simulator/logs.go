package simulator

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// logRetention is how far back the logs go.
const logRetention = 30 * day

// logbook is a log that gets one entry per interval. Entries are generated when they are
// requested.
type logbook struct {
	name string
	// list is the member of data[0] that holds the entries; if "", data itself holds
	// them.
	list  string
	every time.Duration
	// onTheDot places each entry at the start of its interval instead of somewhere in it.
	onTheDot bool
	entry    func(s *Simulator, n int64, at time.Time) object
	// recorded, if set, returns the times of the entries of a log that is not generated.
	recorded func(*Simulator) []time.Time
	// back is how far back a call without a start goes; 0 means a day.
	back time.Duration
	// tooOld is the error code for a start before the retention; "" means that the log
	// starts later instead.
	tooOld string
}

var (
	auditLog         = logbook{name: "audit", every: 3 * time.Minute, entry: (*Simulator).auditEvent}
	clickLog         = logbook{name: "click", list: "clickLogs", every: 5 * time.Minute, entry: (*Simulator).urlClick}
	attachmentLog    = logbook{name: "attachment", list: "attachmentLogs", every: 4 * time.Minute, entry: (*Simulator).attachmentScan}
	impersonationLog = logbook{name: "impersonation", list: "impersonationLogs", every: 20 * time.Minute, entry: (*Simulator).impersonation}
	dlpLog           = logbook{name: "dlp", list: "dlpLogs", every: 15 * time.Minute, entry: (*Simulator).dlpEvent}
	archiveSearchLog = logbook{name: "search", list: "logs", every: time.Hour, entry: (*Simulator).archiveSearch}
)

// day is the period after which the times of entries and events repeat. Every 24 hours
// thus have the same number of them.
const day = 24 * time.Hour

// at returns the time of the nth entry in whole seconds, the resolution of the logs.
func (b logbook) at(s *Simulator, n int64) time.Time {
	if b.recorded != nil {
		return b.recorded(s)[n]
	}
	at := n * int64(b.every)
	if !b.onTheDot {
		at += s.randFor(b.name+" time", n%int64(day/b.every)).Int64N(int64(b.every))
	}
	return time.Unix(0, at).UTC().Truncate(time.Second)
}

// first returns the number of the first entry at or after t.
func (b logbook) first(s *Simulator, t time.Time) int64 {
	if b.recorded != nil {
		n, _ := slices.BinarySearchFunc(b.recorded(s), t, time.Time.Compare)
		return int64(n)
	}
	return firstAt(t, b.every, func(n int64) time.Time { return b.at(s, n) })
}

// firstAt returns the number of the first event at or after t, with one event in each
// interval. Adjacent windows thus neither share nor miss an event, however short they are.
func firstAt(t time.Time, every time.Duration, at func(n int64) time.Time) int64 {
	n := floor(t.UnixNano(), every)
	if at(n).Before(t) {
		n++
	}
	return n
}

// extent is the part of a log that a call asks for: entries from first until before end.
type extent struct{ first, end int64 }

// log returns the function that serves a logbook, newest entry first by default. Page
// tokens contain the extent, so new entries do not shift the pages.
func (s *Simulator) log(b logbook) function {
	return func(c *call) result {
		var x extent
		var offset int64
		if token := c.Meta.Pagination.PageToken; token != "" {
			text, ok := s.unseal("page of "+b.name, token)
			if _, err := fmt.Sscanf(text, "%d %d %d", &x.first, &x.end, &offset); !ok || err != nil {
				return invalidPageToken
			}
			if b.recorded != nil { // the token may be from an earlier run
				x.end = min(x.end, int64(len(b.recorded(s))))
			}
		} else {
			var fail object
			if x, fail = s.extent(b, c); fail != nil {
				return result{fail: []object{fail}}
			}
		}
		return s.page(b, c, x, offset)
	}
}

func (s *Simulator) extent(b logbook, c *call) (extent, object) {
	now := s.opts.Now().Add(1) // include an event at this very instant
	from, to := now.Add(-cmp.Or(b.back, day)), now
	for _, limit := range []struct {
		text string
		at   *time.Time
	}{{c.arg("from", "start", "startDateTime"), &from}, {c.arg("to", "end", "endDateTime"), &to}} {
		if limit.text == "" {
			continue
		}
		var err error
		if *limit.at, err = parseTime(limit.text); err != nil {
			return extent{}, failure(c.Data[0], "err_validation_invalid_date", "A date must look like "+bodyTime)
		}
	}
	oldest := now.Add(-logRetention)
	switch {
	case from.After(to):
		return extent{}, failure(c.Data[0], "err_validation_date_range", "The start date is after the end date")
	case from.Before(oldest) && b.tooOld != "":
		return extent{}, failure(c.Data[0], b.tooOld, "The start date is beyond what is kept")
	case from.Before(oldest):
		from = oldest
	}
	if to.After(now) {
		to = now
	}
	if from.After(now) {
		from = now
	}
	if to.Before(from) {
		to = from
	}
	first := b.first(s, from)
	return extent{first, max(first, b.first(s, to))}, nil
}

// parseTime parses a time with or without a colon in the zone.
func parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(bodyTime, text); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, text)
}

// floor returns ns divided by step, rounded down.
func floor(ns int64, step time.Duration) int64 {
	n := ns / int64(step)
	if ns%int64(step) < 0 {
		n--
	}
	return n
}

func (s *Simulator) page(b logbook, c *call, x extent, offset int64) result {
	at := func(i int64) int64 { return x.end - 1 - i }
	if c.arg("oldestFirst") == "true" {
		at = func(i int64) int64 { return x.first + i }
	}
	entry := func(i int64) object {
		n := at(i)
		return b.entry(s, n, b.at(s, n))
	}
	size, total := int64(c.Meta.Pagination.PageSize), x.end-x.first
	items, total := filterPage(entry, filterOf(c), offset, size, total)
	page := object{"pageSize": size, "totalCount": total}
	token := func(o int64) string { return s.seal("page of "+b.name, fmt.Sprintf("%d %d %d", x.first, x.end, o)) }
	if offset+size < total {
		page["next"] = token(offset + size)
	}
	if offset > 0 {
		page["previous"] = token(max(offset-size, 0))
	}
	return b.result(items, total, page)
}

func (b logbook) result(items []object, total int64, page object) result {
	if b.list == "" {
		return result{data: items, page: page}
	}
	data := object{b.list: nonNil(items)}
	if b.name == impersonationName {
		data["resultCount"] = total
	}
	return result{data: []object{data}, page: page}
}

const impersonationName = "impersonation"

// filterPage returns one page of the entries that match, and how many match in total.
// Without a condition it generates only the page.
func filterPage(entry func(int64) object, match func(object) bool, offset, size, total int64) ([]object, int64) {
	var items []object
	if match == nil {
		for i := offset; i < min(offset+size, total); i++ {
			items = append(items, entry(i))
		}
		return items, total
	}
	var found int64
	for i := range total {
		e := entry(i)
		if !match(e) {
			continue
		}
		if found >= offset && found < offset+size {
			items = append(items, e)
		}
		found++
	}
	return items, found
}

// filterOf returns the call's search condition, or nil if it has none.
func filterOf(c *call) func(object) bool {
	want := map[string]string{}
	for _, name := range []string{"route", "scanResult", "result", "taggedMalicious", "auditType", "action"} {
		if v := c.arg(name); v != "" && v != "all" {
			want[name] = v
		}
	}
	if len(want) == 0 {
		return nil
	}
	return func(e object) bool {
		for name, v := range want {
			if have, ok := e[name]; ok && fmt.Sprint(have) != v {
				return false
			}
		}
		return true
	}
}

var auditTypes = []struct{ kind, category, info string }{
	{"User Logged On", "authentication_logs", "Successful authentication for %s, Date: %s, IP: %s, Application: Administration Console"},
	{"Logon Authentication Failed", "authentication_logs", "Failed authentication for %s, Date: %s, IP: %s, Reason: Invalid Password"},
	{"Existing Policy Changed", "policy_logs", "Policy Default Anti-Spoofing changed by %s, Date: %s, IP: %s"},
	{"Message Action", "case_review_logs", "Message released by %s, Date: %s, IP: %s"},
	{"Search Action", "archive_service_logs", "Archive search by %s, Date: %s, IP: %s"},
	{"API Application Updated", "account_logs", "Application updated by %s, Date: %s, IP: %s"},
}

func (s *Simulator) auditEvent(n int64, at time.Time) object {
	r := s.randFor("audit", n)
	t, user := pick(r, auditTypes), pick(r, people)+"@"+ownDomain
	return object{
		"id": s.seal("audit", fmt.Sprint(n)), "auditType": t.kind, "category": t.category, "user": user,
		"eventTime": at.Format(bodyTime),
		"eventInfo": fmt.Sprintf(t.info, user, at.Format("2006-01-02, Time: 15:04:05 MST"), address(r)),
	}
}

func (s *Simulator) auditCategories(*call) result {
	var names []string
	for _, t := range auditTypes {
		names = append(names, t.category)
	}
	slices.Sort(names)
	var data []object
	for _, n := range slices.Compact(names) {
		data = append(data, object{"id": n, "name": n})
	}
	return result{data: data}
}

func (s *Simulator) urlClick(n int64, at time.Time) object {
	r, m := s.randFor("click", n), s.messageAt(at)
	verdict, category, action := "clean", "Business", "allow"
	if m.malicious || oneInN(r, 8) {
		verdict, category, action = "malicious", "Phishing & Fraud", "block"
	}
	return object{
		"userEmailAddress": m.recipient, "fromUserEmailAddress": m.sender, "subject": m.subject, "messageId": m.id,
		"url": fmt.Sprintf("https://%s/news/%s?ref=%d", pick(r, domains), hexText(r, 4), n%1000), "ttpDefinition": "Default Inbound URL Protect Definition",
		"action": action, "adminOverride": "N/A", "userOverride": "None", "scanResult": verdict, "category": category,
		"sendingIp": m.ip, "userAwarenessAction": "N/A", "date": at.Format(bodyTime), "actions": pick(r, []string{"Allow", "Block", "None"}),
		"route": m.route, "creationMethod": pick(r, []string{"User Click", "Entry Scan"}), "emailPartsDescription": []string{"Body"},
		"tagMap": object{},
	}
}

func (s *Simulator) attachmentScan(n int64, at time.Time) object {
	r, m := s.randFor("attachment", n), s.messageAt(at)
	verdict, action := "safe", "none, none"
	if oneInN(r, 12) {
		verdict, action = "malicious", "user release,none"
	}
	return object{
		"senderAddress": m.sender, "recipientAddress": m.recipient, "subject": m.subject, "messageId": m.id, "route": m.route,
		"fileName": pick(r, []string{"invoice.pdf", "figures.xlsx", "contract.docx", "scan_0042.pdf", "setup.exe"}),
		"fileType": "application/pdf", "fileHash": hexText(r, 32), "result": verdict, "actionTriggered": action,
		"date": at.Format(bodyTime), "details": fmt.Sprintf("Time taken: 0 hrs, 0 min, %d sec", 1+r.IntN(9)),
		"definition": "Default Inbound Attachment Protect Definition",
	}
}

func (s *Simulator) impersonation(n int64, at time.Time) object {
	r, m := s.randFor(impersonationName, n), s.messageAt(at)
	return object{
		"id": "MTOKEN:" + s.seal(impersonationName, fmt.Sprint(n)), "senderAddress": m.sender, "recipientAddress": m.recipient,
		"subject": m.subject, "messageId": m.id, "definition": "Impersonation: 1 hit", "hits": 1, "identifiers": []string{"internal_user_name"},
		"action": pick(r, []string{"none", "hold"}), "taggedExternal": false, "taggedMalicious": !oneInN(r, 3), "senderIpAddress": m.ip,
		"eventTime": at.Format(bodyTime),
		"impersonationResults": []object{{
			"impersonationDomainSource": "internal_user_name", "similarDomain": m.sender, "stringSimilarToDomain": pick(r, people), "checkerResult": "hit",
		}},
	}
}

func (s *Simulator) dlpEvent(n int64, at time.Time) object {
	r, m := s.randFor("dlp", n), s.messageAt(at)
	return object{
		"senderAddress": m.sender, "recipientAddress": m.recipient, "subject": m.subject, "messageId": m.id, "route": m.route,
		"eventTime": at.Format(bodyTime), "policy": pick(r, []string{"Confidential", "Card numbers", "Payroll"}), "action": pick(r, []string{"hold", "block", "notification"}),
	}
}

func (s *Simulator) archiveSearch(n int64, at time.Time) object {
	r := s.randFor("archive search", n)
	return object{
		"createTime": at.Format(bodyTime), "emailAddr": pick(r, people) + "@" + ownDomain, "source": "archive",
		"searchText": pick(r, subjects), "searchReason": "", "description": "Archive search, first page",
	}
}
