package simulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// blob is a file of events in the object store. It has the events of one product and some
// types, from first until before end, in milliseconds since 1970.
type blob struct {
	product    string
	first, end int64
	types      []string
}

func (b blob) path() string {
	types := strings.ReplaceAll(strings.Join(b.types, ","), " ", "-")
	return fmt.Sprintf("/%s/%s/%d-%d/%s.json.gz", accountCode, b.product, b.first, b.end, types)
}

func parseBlob(path string) (b blob, ok bool) {
	var types string
	parts := strings.Split(strings.TrimSuffix(path, ".json.gz"), "/")
	if len(parts) != 5 || parts[1] != accountCode {
		return b, false
	}
	b, types = blob{product: parts[2]}, parts[4]
	_, err := fmt.Sscanf(parts[3], "%d-%d", &b.first, &b.end)
	for t := range strings.SplitSeq(types, ",") {
		b.types = append(b.types, strings.ReplaceAll(t, "-", " "))
	}
	return b, err == nil && b.path() == path
}

// blobContent returns the file: one line of JSON per event, compressed. It is nil if there
// are no such events.
func (s *Simulator) blobContent(b blob) []byte {
	var lines bytes.Buffer
	end := s.firstEvent(b.product, time.UnixMilli(b.end))
	for n := s.firstEvent(b.product, time.UnixMilli(b.first)); n < end; n++ {
		if slices.Contains(b.types, s.eventType(b.product, n)) {
			lines.Write(encode(s.event(b.product, n)))
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	return compress(lines.Bytes())
}

const blobDate = "20060102T150405Z"

// presign returns a URL from which anyone can download the file until it expires, without
// further authentication.
func (s *Simulator) presign(b blob) (address string, expiry time.Time) {
	now := s.opts.Now().UTC().Truncate(time.Second)
	q := url.Values{
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Date":          {now.Format(blobDate)},
		"X-Amz-Expires":       {strconv.Itoa(int(s.opts.BlobTTL / time.Second))},
		"X-Amz-SignedHeaders": {"host"},
	}
	q.Set("X-Amz-Signature", s.signBlob(b.path(), q))
	return s.opts.BlobURL + b.path() + "?" + q.Encode(), now.Add(s.opts.BlobTTL.Truncate(time.Second))
}

func (s *Simulator) signBlob(path string, q url.Values) string {
	mac := hmac.New(sha256.New, s.blobKey)
	_, _ = fmt.Fprintf(mac, "%s\n%s\n%s", path, q.Get("X-Amz-Date"), q.Get("X-Amz-Expires")) // hash.Hash never returns an error
	return hex.EncodeToString(mac.Sum(nil))
}

// Blobs returns the handler of the object store that the batches' URLs point to. It is
// another host, which must never get the bearer token. Like such stores, it rejects a
// presigned request that also has an Authorization header.
func (s *Simulator) Blobs() http.Handler {
	return s.journal.record("blobs", http.HandlerFunc(s.serveBlob))
}

func (s *Simulator) serveBlob(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "AmazonS3")
	w.Header().Set("X-Amz-Request-Id", newUUID())
	if r.Method != http.MethodGet {
		rejectBlob(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
		return
	}
	if len(r.Header.Values("Authorization")) > 0 {
		rejectBlob(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed")
		return
	}
	q := r.URL.Query()
	if !hmac.Equal([]byte(q.Get("X-Amz-Signature")), []byte(s.signBlob(r.URL.Path, q))) {
		rejectBlob(w, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature does not match")
		return
	}
	if s.blobExpired(q) {
		rejectBlob(w, http.StatusForbidden, "AccessDenied", "Request has expired")
		return
	}
	b, ok := parseBlob(r.URL.Path)
	if !ok {
		rejectBlob(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	w.Header().Set("Content-Type", "application/x-gzip")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.blobContent(b)))
}

// blobExpired reports whether a query with a valid signature has expired.
func (s *Simulator) blobExpired(q url.Values) bool {
	signed, err := time.Parse(blobDate, q.Get("X-Amz-Date"))
	seconds, err2 := strconv.Atoi(q.Get("X-Amz-Expires"))
	return err != nil || err2 != nil || !s.opts.Now().Before(signed.Add(time.Duration(seconds)*time.Second))
}

func rejectBlob(w http.ResponseWriter, status int, code, message string) {
	body, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: message})
	if err != nil { // strings always marshal
		panic(err)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), body...)) // the client may have disconnected
}
