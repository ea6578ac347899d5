package telemetry

import (
	"net/http"

	"mimecast-proxy/event"
)

// kinds describes the error codes, by [event.Code.Index].
var kinds = event.Kinds()

// explanations has the log text of each code that comes without a problem, by
// [event.Code.Index]. It is empty if the status says enough.
var explanations = func() (all [event.Count]string) {
	for i, k := range kinds {
		passedOn := k.Status == 0 && (k.Component == event.ComponentCredentials || k.Component == event.ComponentMimecast)
		if k.Rejection || passedOn {
			all[i] = k.Explanation()
		}
	}
	return all
}()

// classify returns the code of the failure; empty if nothing failed.
func (o *outcome) classify() event.Code {
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
	case o.attempts > 0:
		return classifyStatus(o.status)
	case o.status >= http.StatusInternalServerError:
		return event.Other
	case o.status >= http.StatusBadRequest:
		return event.RequestRefused
	}
	return ""
}

// classifyStatus returns the code for the status of a response from Mimecast; empty if
// nothing failed.
func classifyStatus(status int) event.Code {
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
