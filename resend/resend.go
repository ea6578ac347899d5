// Package resend has what every layer that sends a request again does with its body, and
// with the response that the client does not get.
// The layers share one contract, which is net/http's own: [http.Request.GetBody] returns
// the body from its first byte on.
package resend

import (
	"errors"
	"net/http"
)

// ErrNoGetBody says that a request has a body, but no GetBody.
var ErrNoGetBody = errors.New("the request body cannot be read again")

// Rewind returns req, or a copy of it with its body from the first byte on. The error is
// [ErrNoGetBody] or GetBody's; req is then as it was.
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

// CloseBody closes the body of a request that is not sent, if it has one. A RoundTripper
// must close it even if it fails.
func CloseBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing was written
	}
}
