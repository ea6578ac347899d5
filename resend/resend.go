// Package resend handles bodies for the layers that resend requests: the request's
// body, and that of a response that the client does not get. As in net/http,
// [http.Request.GetBody] returns the body from its first byte.
package resend

import (
	"errors"
	"net/http"
)

// ErrNoGetBody means that a request has a body, but no GetBody.
var ErrNoGetBody = errors.New("the request body cannot be read again")

// Rewind returns req if it has no body, else a copy with the body from its first byte.
// The error is [ErrNoGetBody] or GetBody's. Rewind never changes req.
func Rewind(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	if req.GetBody == nil {
		return nil, ErrNoGetBody
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := *req
	again.Body = body
	return &again, nil
}

// CloseBody closes the body, if any, of a request that is not sent. A RoundTripper must
// close it even after an error.
func CloseBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing was written
	}
}
