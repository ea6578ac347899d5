package simulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

const (
	// maxCall is the largest body of a function's request, in bytes. It includes the
	// attachments of an email to send.
	maxCall = 64 << 20
	// defaultPage is the number of items on a page unless the request sets one, and maxPage
	// the largest.
	defaultPage, maxPage = 100, 500
)

// call is the body of a function's request. Each item of data is one operation, and some
// may fail while others succeed.
type call struct {
	Meta struct {
		Pagination struct {
			PageSize  int    `json:"pageSize"`
			PageToken string `json:"pageToken"`
		} `json:"pagination"`
	} `json:"meta"`
	Data []object `json:"data"`

	header http.Header
}

// parseCall reads the body of a function's request. An empty body is a call without
// arguments.
func parseCall(r io.Reader) (*call, error) {
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	c := new(call)
	if body = bytes.TrimSpace(body); len(body) > 0 {
		if err := json.Unmarshal(body, c); err != nil {
			return nil, fmt.Errorf("the body is no JSON object of meta and data: %w", err)
		}
	}
	if p := &c.Meta.Pagination; p.PageSize <= 0 {
		p.PageSize = defaultPage
	} else {
		p.PageSize = min(p.PageSize, maxPage)
	}
	return c, nil
}

// arg returns the first of the named arguments in the first item of data, or "".
func (c *call) arg(names ...string) string {
	if len(c.Data) == 0 {
		return ""
	}
	return text(c.Data[0], names...)
}

// text returns the first of the named members that o has, as text, or "".
func text(o object, names ...string) string {
	i := slices.IndexFunc(names, func(n string) bool { return o[n] != nil })
	if i < 0 {
		return ""
	}
	return fmt.Sprint(o[names[i]])
}

// result is what a function returns.
type result struct {
	data []object
	// fail lists the failed operations. The HTTP status is 200 regardless.
	fail []object
	// page is the response's meta.pagination; nil if it has no pages.
	page object
	// whole, if set, is sent instead of the envelope.
	whole  any
	header map[string]string
}

type function func(*call) result

// failure describes one failed operation of a function. The key is its argument.
func failure(key any, code, message string) object {
	return object{"key": key, "errors": []object{{"code": code, "message": message, "retryable": false}}}
}

func failed(key any, code, message string) result {
	return result{fail: []object{failure(key, code, message)}}
}

var invalidPageToken = failed(nil, "err_validation_invalid_page_token", "The page token is not one that was given for this function")

// call returns the handler of a function. The body has the arguments, and the response is
// an envelope whose meta.status is 200 even if every operation failed.
func (s *Simulator) call(f function) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := parseCall(http.MaxBytesReader(w, r.Body, maxCall))
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			s.reject(w, r, http.StatusRequestEntityTooLarge, "request_too_large", "The request is too large")
			return
		}
		if err != nil {
			s.reject(w, r, http.StatusBadRequest, "err_request_malformed", err.Error())
			return
		}
		c.header = r.Header
		s.writeResult(w, r, f(c))
	}
}

func (s *Simulator) writeResult(w http.ResponseWriter, r *http.Request, res result) {
	for name, value := range res.header {
		w.Header().Set(name, value)
	}
	if res.whole != nil {
		s.respond(w, r, http.StatusOK, res.whole)
		return
	}
	meta := object{"status": http.StatusOK}
	if res.page != nil {
		meta["pagination"] = res.page
	}
	s.respond(w, r, http.StatusOK, object{"meta": meta, "data": nonNil(res.data), "fail": nonNil(res.fail)})
}

// nonNil turns nil into an empty list, because JSON would encode nil as null.
func nonNil(items []object) []object {
	if items == nil {
		return []object{}
	}
	return items
}

// seal returns an opaque identifier, as Mimecast does. Only sealed identifiers are
// accepted back. They depend only on the seed, so they are the same in every run.
func (s *Simulator) seal(kind, text string) string {
	return base64.RawURLEncoding.EncodeToString(append(s.sealMAC(kind, text), text...))
}

func (s *Simulator) unseal(kind, id string) (string, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) < sealMACSize {
		return "", false
	}
	text := string(b[sealMACSize:])
	return text, hmac.Equal(b[:sealMACSize], s.sealMAC(kind, text))
}

const sealMACSize = 9

func (s *Simulator) sealMAC(kind, text string) []byte {
	key := binary.LittleEndian.AppendUint64(nil, s.opts.Seed)
	sum := sha256.Sum256(append(key, strings.Join([]string{kind, text}, "\x00")...))
	return sum[:sealMACSize:sealMACSize]
}
