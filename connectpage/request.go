package connectpage

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	g "maragu.dev/gomponents"
)

// policy lets the page load its style and its icon, and send its form here.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

const (
	sessionField = "session"
	// maxBody is far beyond what the form sends.
	maxBody = 64 << 10
	// bodyTimeout is how long a client may take to send a body.
	bodyTimeout = 10 * time.Second
)

func setHeaders(header http.Header) {
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Content-Security-Policy", policy)
	// With no-referrer a browser calls the origin of the page's own form null.
	header.Set("Referrer-Policy", "same-origin")
}

// checkOrigin rejects what another name or another web page sends; nil means that the
// request passes.
func (h *handler) checkOrigin(r *http.Request) *problem {
	if r.Host != h.options.Address {
		return &wrongHost
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "none" && site != "same-origin" {
			return &wrongOrigin
		}
	}
	origins := r.Header.Values("Origin")
	if len(origins) > 1 || len(origins) == 0 && r.Method == http.MethodPost {
		return &wrongOrigin
	}
	if len(origins) == 1 && origins[0] != "http://"+h.options.Address {
		return &wrongOrigin
	}
	return nil
}

// readForm returns the fields of a form in the body.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *problem) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return nil, &wrongType
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	err = r.ParseForm()
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &bodyTooLarge
	}
	if err != nil {
		return nil, &badForm
	}
	// A deadline that passes later may end the request's context. Without one net/http
	// waits for the rest of a body, so it stays after an error.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return r.PostForm, nil
}

// boundBody limits the time in which a body may come. Even one that no handler reads is
// read by net/http before it responds.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// Only a test's writer has no deadlines.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// equal compares in a time that depends only on the lengths.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func serveAsset(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		rejectMethod(w, http.MethodGet)
		return
	}
	a := style
	if r.URL.Path == icon.path {
		a = icon
	}
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	write(w, http.StatusOK, a.contentType, a.body)
}

func rejectMethod(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	writePage(w, http.StatusMethodNotAllowed, wrongMethod.page())
}

func writePage(w http.ResponseWriter, status int, page g.Node) {
	var body bytes.Buffer
	_ = page.Render(&body) // a buffer takes it all
	write(w, status, "text/html; charset=utf-8", body.Bytes())
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}
