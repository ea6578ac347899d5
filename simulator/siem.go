package simulator

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// eventEvery is the interval between events: 8,640 a day.
	eventEvery = 10 * time.Second
	// batchEvery is the interval between batches, as observed.
	batchEvery = 15 * time.Minute
	// Mimecast documents these limits: the stream goes back a day, batches are kept for a
	// week, and a page has at most 100 items.
	streamRetention = day
	batchRetention  = 7 * day
	siemPage        = 100
)

// siemTypes are the types of events by product: cg is Cloud Gateway, ci Cloud Integrated.
var siemTypes = map[string][]string{
	"cg": {"receipt", "process", "delivery", "journal", "spam", "av", "url protect", "attachment protect", "impersonation protect", "internal email protect"},
	"ci": {"entities", "mailflow"},
}

// siemRequest is a request for events or batches, from next until before end. These
// positions are event numbers for the stream, and milliseconds for batches.
type siemRequest struct {
	product   string
	types     []string
	next, end int64
	size      int
}

// siemStream returns the handler that serves events inline.
func (s *Simulator) siemStream(product string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		position := func(t time.Time) int64 { return s.firstEvent(product, t) }
		q, err := s.parseSIEMRequest(product, r.URL.Query(), siemKind{back: streamRetention, position: position})
		if err != nil {
			s.reject(w, r, http.StatusBadRequest, "err_validation", err.Error())
			return
		}
		events := []object{}
		for ; q.next < q.end && len(events) < q.size; q.next++ {
			if slices.Contains(q.types, s.eventType(product, q.next)) {
				events = append(events, s.event(product, q.next))
			}
		}
		s.respond(w, r, http.StatusOK, q.page(events))
	}
}

// siemBatch returns the handler that serves the URLs of files with events. A file has the
// events of a quarter of an hour, limited to the window.
func (s *Simulator) siemBatch(product string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := s.parseSIEMRequest(product, r.URL.Query(), siemKind{back: batchRetention, step: batchEvery, position: ceilMilli})
		if err != nil {
			s.reject(w, r, http.StatusBadRequest, "err_validation", err.Error())
			return
		}
		files := []object{}
		for q.next < q.end && len(files) < q.size {
			b := blob{product, q.next, min(nextBatch(q.next), q.end), q.types}
			q.next = b.end
			if content := s.blobContent(b); content != nil {
				address, expiry := s.presign(b)
				files = append(files, object{"url": address, "expiry": expiry.Format("2006-01-02T15:04:05.000Z"), "size": len(content)})
			}
		}
		s.respond(w, r, http.StatusOK, q.page(files))
	}
}

// page returns the response. It always has the next token, so that a client that has caught
// up can continue later.
func (q siemRequest) page(items []object) object {
	token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%010d", q.next))
	return object{"value": items, "@nextPage": token, "isCaughtUp": q.next >= q.end}
}

// siemKind is what distinguishes the stream from the batches: how far back it goes, the
// step of inexact windows, and the position of a time.
type siemKind struct {
	back, step time.Duration
	position   func(time.Time) int64
}

// ceilMilli returns the first whole millisecond at or after t, since 1970.
func ceilMilli(t time.Time) int64 { return -floor(-t.UnixNano(), time.Millisecond) }

// nextBatch returns the end of the batch that contains the millisecond ms.
func nextBatch(ms int64) int64 {
	step := batchEvery.Milliseconds()
	return (ms/step + 1) * step
}

func (s *Simulator) parseSIEMRequest(product string, query url.Values, kind siemKind) (q siemRequest, err error) {
	q = siemRequest{product: product, size: siemPage}
	if q.types, err = siemTypesOf(product, query); err != nil {
		return q, err
	}
	if text := query.Get("pageSize"); text != "" {
		if q.size, err = strconv.Atoi(text); err != nil || q.size < 1 || q.size > siemPage {
			return q, fmt.Errorf("pageSize must be from 1 to %d", siemPage)
		}
	}
	from, to, err := s.siemWindow(query, kind)
	if err != nil {
		return q, err
	}
	q.next, q.end = kind.position(from), kind.position(to)
	if token := query.Get("nextPage"); token != "" {
		q.next, err = siemToken(token)
	}
	return q, err
}

// siemWindow returns the requested window, limited to the retention. A bound that the
// client gives as a time is exact; other bounds are rounded down to whole steps.
func (s *Simulator) siemWindow(query url.Values, kind siemKind) (from, to time.Time, err error) {
	now := s.opts.Now()
	from, exactFrom, err := siemDate(query.Get("dateRangeStartsAt"), now.Add(-day), 0)
	if err != nil {
		return from, to, err
	}
	to, exactTo, err := siemDate(query.Get("dateRangeEndsAt"), now, day)
	if err != nil {
		return from, to, err
	}
	if oldest := now.Add(-kind.back); from.Before(oldest) {
		from, exactFrom = oldest, false
	}
	if to.After(now) {
		to = now
	}
	if from.After(now) {
		from = now
	}
	if !exactFrom {
		from = from.Truncate(kind.step)
	}
	if !exactTo {
		to = to.Truncate(kind.step)
	}
	if to.Before(from) {
		to = from
	}
	return from, to, nil
}

// siemTypesOf returns the requested types, separated by commas, or all types. The stream
// calls the parameter "types", and the batches "type"; both accept either here.
func siemTypesOf(product string, query url.Values) ([]string, error) {
	var types []string
	for _, list := range slices.Concat(query["types"], query["type"]) {
		for t := range strings.SplitSeq(list, ",") {
			if t = strings.TrimSpace(t); !slices.Contains(siemTypes[product], t) {
				return nil, fmt.Errorf("type must be of %s", strings.Join(siemTypes[product], ", "))
			}
			types = append(types, t)
		}
	}
	if types == nil {
		return siemTypes[product], nil
	}
	slices.Sort(types)
	return slices.Compact(types), nil
}

// siemDate parses a time, as the stream expects, or a day, as the batches do. It adds
// wholeDay to a day, and returns otherwise for an empty text.
func siemDate(text string, otherwise time.Time, wholeDay time.Duration) (t time.Time, instant bool, err error) {
	if text == "" {
		return otherwise, false, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t.Add(wholeDay), false, nil
	}
	if t, err = parseTime(text); err != nil {
		return t, false, fmt.Errorf("a date must look like 2006-01-02 or 2006-01-02T15:04:05Z")
	}
	return t, true, nil
}

func siemToken(token string) (int64, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err == nil {
		var n int64
		if n, err = strconv.ParseInt(string(b), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("nextPage is not a token that was given")
}

// eventType returns the type of the nth event. In the gateway, four events in a row are one
// message: received, processed, delivered, and one more about it.
func (s *Simulator) eventType(product string, n int64) string {
	types := siemTypes[product]
	if product == "ci" {
		return types[n%int64(len(types))]
	}
	if i := n % 4; i < 3 {
		return types[i]
	}
	return pick(s.randFor("event type", n), types[3:])
}

// eventTime returns the time of the nth event.
func (s *Simulator) eventTime(product string, n int64) time.Time {
	r := s.randFor(product+" event time", n%int64(day/eventEvery))
	return time.UnixMilli(n*eventEvery.Milliseconds() + r.Int64N(eventEvery.Milliseconds()))
}

// firstEvent returns the number of the first event at or after t.
func (s *Simulator) firstEvent(product string, t time.Time) int64 {
	return firstAt(t, eventEvery, func(n int64) time.Time { return s.eventTime(product, n) })
}

// event returns the nth event. As observed, most numbers are strings.
func (s *Simulator) event(product string, n int64) object {
	kind := s.eventType(product, n)
	r, m := s.randFor(product+" event", n), s.message(n/4)
	e := object{
		"type": kind, "subtype": kind, "timestamp": s.eventTime(product, n).UnixMilli(), "accountId": accountCode, "aggregateId": m.aggregate,
		"processingId": fmt.Sprintf("%s_%d", hexText(r, 20), m.at.Unix()), "messageId": m.id, "subject": m.subject,
		"senderEnvelope": m.sender, "recipients": m.recipient, "_offset": n % 1_000_000, "_partition": n % 137,
	}
	for name, v := range s.eventDetails(kind, m) {
		e[name] = v
	}
	return e
}

func (s *Simulator) eventDetails(kind string, m message) object {
	direction := strings.ToUpper(m.route[:1]) + m.route[1:]
	switch kind {
	case "receipt":
		return object{
			"subtype": m.actionOr("Rej"), "action": m.actionOr("Rej"), "direction": direction, "senderIp": m.ip, "senderHeader": m.sender,
			"tlsVersion": "TLSv1.3", "tlsCipher": "TLS_AES_256_GCM_SHA384", "spamScore": strconv.Itoa(m.spam), "spamDetectionLevel": strconv.Itoa(m.spam),
			"spamInfo": nil, "numberAttachments": strconv.Itoa(m.attachments),
		}
	case "process":
		return object{
			"subtype": m.actionOr("Hld"), "action": m.actionOr("Hld"), "holdReason": orElse[any](m.held, "Spm", nil),
			"emailSize": strconv.Itoa(m.size), "numberAttachments": strconv.Itoa(m.attachments), "totalSizeAttachments": strconv.Itoa(m.size * min(m.attachments, 1)),
			"attachments": nil,
		}
	case "delivery":
		return object{
			"subtype": "true", "delivered": "true", "direction": direction, "route": "Office 365", "destinationIp": "203.0.113.25", "Hostname": "mx." + ownDomain,
			"tlsVersion": "TLSv1.3", "deliveryTime": strconv.Itoa(200 + m.size%900), "emailSize": strconv.Itoa(m.size), "deliveryAttempts": "1",
		}
	case "journal":
		return object{"direction": direction}
	}
	return object{
		"direction": direction, "senderIp": m.ip, "route": m.route, "scanResult": orElse(m.malicious, "malicious", "clean"),
		"url": "https://" + m.sender[strings.IndexByte(m.sender, '@')+1:] + "/offer", "md5": hexText(s.randFor("md5", m.n), 16),
	}
}

// actionOr returns otherwise if that was the message's action, or else Acc.
func (m message) actionOr(otherwise string) string {
	return orElse(otherwise == "Rej" && m.rejected || otherwise == "Hld" && m.held, otherwise, "Acc")
}
