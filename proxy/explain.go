package proxy

import (
	"context"
	"errors"
	"io"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// explain says why a request got no response from Mimecast. The context is the
// request's: if it ended, that is the reason, whatever the error says, unless the
// client's body ended early.
func explain(ctx context.Context, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](context.Cause(ctx)); ok {
		return p
	}
	if isCutShort(err) { // the client may have closed its half alone, and wait
		return problem.New(event.BadRequestBody, "The request body ended early.").Because(err)
	}
	if ctx.Err() != nil {
		return problem.New(event.ClientGone, "the client went away").Because(err)
	}
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	if _, ok := errors.AsType[*ClientBodyError](err); ok {
		return problem.New(event.BadRequestBody, "The request body ended early or is malformed.").Because(err)
	}
	return problem.New(event.UpstreamReset, "Mimecast's response cannot be used. It may have carried the request out.").Because(err)
}

// isCutShort reports whether the client's body ended before its end, by a closed
// connection or half of one.
func isCutShort(err error) bool {
	body, ok := errors.AsType[*ClientBodyError](err)
	return ok && errors.Is(body.Err, io.ErrUnexpectedEOF)
}
