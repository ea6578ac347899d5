package telemetry

import (
	"net/http"

	"mimecast-proxy/event"
)

// kinds is the table of codes, by [event.Code.Index].
var kinds = event.Kinds()

// explanations has what the log says of a code that no problem comes with, by
// [event.Code.Index]. It is empty where the status says enough.
var explanations = func() (all [event.Count]string) {
	for i, k := range kinds {
		passedOn := k.Status == 0 && (k.Component == event.ComponentToken || k.Component == event.ComponentMimecast)
		if k.Rejection || passedOn {
			all[i] = string(k.Code) + ": " + k.Summary + ". " + k.Remedy
		}
	}
	return all
}()

// judge returns what went wrong with a request that ended as told; nothing if it
// went well.
func (o *outcome) judge() event.Code {
	switch {
	case o.panicked:
		return event.Panic
	case o.code != "":
		return o.code
	case o.denied != "" && !o.passed:
		return o.denied
	case o.aborted == event.AbortedByClient:
		return event.ClientGone
	case o.aborted == event.AbortedByUpstream:
		return event.MimecastTruncated
	case o.aborted == event.AbortedByProxy:
		return event.ShuttingDown
	case o.answers > 0:
		return judgeStatus(o.status)
	case o.status >= http.StatusInternalServerError:
		return event.Other
	case o.status >= http.StatusBadRequest:
		return event.RequestRefused
	}
	return ""
}

// judgeStatus judges a response of Mimecast's.
func judgeStatus(status int) event.Code {
	switch {
	case status < http.StatusBadRequest:
		return ""
	case status == http.StatusUnauthorized:
		return event.MimecastUnauthorized
	case status == http.StatusForbidden:
		return event.MimecastForbidden
	case status == http.StatusTooManyRequests:
		return event.MimecastRateLimited
	case status >= http.StatusInternalServerError:
		return event.MimecastError
	default:
		return event.RequestRefused
	}
}
