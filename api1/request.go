package api1

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

const (
	// maxBody is the largest request body, in bytes. The largest real one has a token of
	// a few kilobytes.
	maxBody = 64 << 10
	// bodyTimeout is how long a client may take to send it.
	bodyTimeout = 10 * time.Second
)

// request is what a call says in data[0], which all calls share here.
type request struct {
	EmailAddress string `json:"emailAddress"`
	Type         string `json:"type"`
	Compress     flag   `json:"compress"`
	FileFormat   string `json:"fileFormat"`
	Token        string `json:"token"`
}

// isJSON reports whether the client wants JSON in the files.
func (r request) isJSON() bool { return strings.EqualFold(r.FileFormat, "json") }

// flag is a bool that some clients send as text.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(b []byte) error {
	*f = flag(strings.EqualFold(strings.Trim(string(b), `"`), "true"))
	return nil
}

// readRequest reads the body. An empty one is an empty request.
func readRequest(w http.ResponseWriter, r *http.Request) (req request, p *problem.Problem) {
	control := http.NewResponseController(w)
	// Every writer of net/http has deadlines.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return req, bodyProblem(err)
	}
	// net/http goes on reading, to see the client leave.
	_ = control.SetReadDeadline(time.Time{})
	if req, err = parseRequest(body); err != nil {
		return req, problem.New(event.BadRequestBody, `The request body is not JSON like {"data":[{…}]}.`).Because(err)
	}
	return req, nil
}

// bodyProblem is why a body could not be read.
func bodyProblem(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok { // guard's
		return p
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.New(event.BadRequestBody, "The request body has more than %d bytes.", maxBody).Because(err)
	}
	return problem.New(event.BadRequestBody, "The request body ended early or is malformed.").Because(err)
}

// parseRequest reads JSON, and what Python's str prints of a dict, which API 1.0 took.
func parseRequest(body []byte) (request, error) {
	var envelope struct {
		Data []request `json:"data"`
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return request{}, nil
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		envelope.Data = nil
		translated, ok := pythonToJSON(body)
		if !ok || json.Unmarshal(translated, &envelope) != nil {
			return request{}, err
		}
	}
	if len(envelope.Data) == 0 {
		return request{}, nil
	}
	return envelope.Data[0], nil
}
