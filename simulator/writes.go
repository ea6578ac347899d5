package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// executionID returns the request's idempotency key, or else otherwise. Mimecast ignores
// such keys; the simulator uses them to distinguish executions.
func executionID(h http.Header, otherwise string) string {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return otherwise
}

// sendEmail accepts messages to send. It counts each by its idempotency key, or else by its
// subject.
func (s *Simulator) sendEmail(c *call) result {
	var res result
	for _, item := range c.Data {
		if item["to"] == nil {
			res.fail = append(res.fail, failure(item, "err_validation_null", "The field to must not be empty"))
			continue
		}
		subject := text(item, "subject")
		n := s.journal.execute("send-email", executionID(c.header, subject))
		m := s.message(int64(n))
		res.data = append(res.data, object{"messageId": m.id, "status": "Mail queued for delivery", "subject": subject})
	}
	return res
}

// hashBody hashes a body of any size without storing it.
func hashBody(r io.Reader) (n int64, sum hash.Hash, err error) {
	sum = sha256.New()
	n, err = io.CopyBuffer(writerOnly{sum}, r, make([]byte, chunkSize))
	return n, sum, err
}

// fileUpload accepts a file whose size and hash are in the x-mc-arg header.
func (s *Simulator) fileUpload(w http.ResponseWriter, r *http.Request) {
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/octet-stream") {
		s.reject(w, r, http.StatusUnsupportedMediaType, "unsupported_media_type", "The content type must be application/octet-stream")
		return
	}
	arg, err := parseUploadArg(r.Header.Get("X-Mc-Arg"))
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "err_request_malformed", "The header x-mc-arg must hold JSON with the file's sha256 and fileSize")
		return
	}
	n, sum, err := hashBody(r.Body)
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "err_request_malformed", "The body ended early")
		return
	}
	want, got := arg.Data[0], hex.EncodeToString(sum.Sum(nil))
	switch {
	case !strings.EqualFold(want.SHA256, got):
		s.writeResult(w, r, failed(want, "err_file_upload_invalid_hash", "The body's SHA-256 is "+got))
	case want.FileSize != nil && *want.FileSize != n:
		s.writeResult(w, r, failed(want, "err_file_upload_invalid_size", "The body's size is not fileSize"))
	default:
		s.journal.execute("file-upload", executionID(r.Header, got))
		s.writeResult(w, r, result{data: []object{{"id": s.seal("file", got), "sha256": got, "fileSize": n, "extension": "", "fileName": ""}}})
	}
}

// importUsers accepts a spreadsheet. It counts each by its idempotency key, or else by its
// hash.
func (s *Simulator) importUsers(w http.ResponseWriter, r *http.Request) {
	n, sum, err := hashBody(r.Body)
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "err_request_malformed", "The body ended early")
		return
	}
	if n == 0 {
		s.writeResult(w, r, failed(object{}, "err_import_users_empty", "The file is empty"))
		return
	}
	got := hex.EncodeToString(sum.Sum(nil))
	s.journal.execute("import-users", executionID(r.Header, got))
	s.writeResult(w, r, result{data: []object{{"id": s.seal("import", got), "status": "pending", "fileSize": n}}})
}

// rewrittenPrefix is the beginning of rewritten URLs in messages, for decode-url.
const rewrittenPrefix = "https://protect.harbourmills.example/s/"

// RewriteURL returns target as Mimecast rewrites it in protected messages. The function
// decode-url returns the original.
func RewriteURL(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return target
	}
	return rewrittenPrefix + base64.RawURLEncoding.EncodeToString([]byte(target)) + "?domain=" + url.QueryEscape(u.Host)
}

func (s *Simulator) decodeURL(c *call) result {
	var res result
	for _, item := range c.Data {
		given := text(item, "url")
		code, ok := strings.CutPrefix(given, rewrittenPrefix)
		code, _, _ = strings.Cut(code, "?")
		target, err := base64.RawURLEncoding.DecodeString(code)
		if !ok || err != nil || len(bytes.TrimSpace(target)) == 0 {
			res.fail = append(res.fail, failure(item, "err_ttp_url_decode_failed", "The address is not a rewritten one"))
			continue
		}
		res.data = append(res.data, object{"url": string(target), "success": true})
	}
	return res
}
