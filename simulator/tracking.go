package simulator

import (
	"fmt"
	"time"
)

// trackedMessages is the log that message-finder searches.
var trackedMessages = logbook{
	name: "tracked", list: "trackedEmails", every: messageEvery, onTheDot: true, entry: (*Simulator).tracked,
	tooOld: "err_track_and_trace_invalid_start_date",
}

// tracked returns a message as message-finder lists it.
func (s *Simulator) tracked(n int64, _ time.Time) object {
	m := s.message(n)
	return object{
		"id": s.messageID(n), "status": m.status(), "received": m.at.Format(bodyTime), "sent": m.at.Format(bodyTime), "subject": m.subject,
		"fromEnv": object{"emailAddress": m.sender}, "fromHdr": object{"emailAddress": m.sender},
		"to": []object{{"emailAddress": m.recipient}}, "route": m.route, "senderIP": m.ip, "attachments": m.attachments > 0,
		"spamScore": m.spam, "detectionLevel": "relaxed",
	}
}

func (m message) status() string {
	switch {
	case m.rejected:
		return "rejected"
	case m.held:
		return "held"
	}
	return "delivered"
}

func (s *Simulator) messageID(n int64) string { return s.seal("message", fmt.Sprint(n)) }

// messageOf returns the message with the identifier.
func (s *Simulator) messageOf(id string) (m message, ok bool) {
	text, ok := s.unseal("message", id)
	var n int64
	if _, err := fmt.Sscan(text, &n); !ok || err != nil {
		return m, false
	}
	return s.message(n), true
}

func (s *Simulator) messageInfo(c *call) result {
	var res result
	for _, item := range c.Data {
		m, ok := s.messageOf(text(item, "id"))
		if !ok {
			res.fail = append(res.fail, failure(item, "err_track_and_trace_message_not_found", "There is no such message"))
			continue
		}
		res.data = append(res.data, object{
			"id": item["id"], "status": m.status(),
			"recipientInfo": object{"messageInfo": object{
				"fromEnvelope": m.sender, "fromHeader": m.sender, "to": []string{m.recipient}, "subject": m.subject,
				"sent": m.at.Format(bodyTime), "processed": m.at.Add(2 * time.Second).Format(bodyTime), "route": m.route,
				"transmissionInfo": fmt.Sprintf("Received from %s, %d bytes", m.ip, m.size),
			}},
			"spamInfo": object{"spamScore": m.spam, "detectionLevel": "relaxed"},
		})
	}
	return res
}
