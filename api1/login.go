package api1

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// envelope is API 1.0's around the data of a response that has no failure.
func envelope(data ...object) object {
	if data == nil {
		data = []object{}
	}
	return object{"meta": object{"status": http.StatusOK}, "data": data, "fail": []object{}}
}

// answer serves a call with what data returns for the request.
func answer(data func(*http.Request, request) object) func(*layer, http.ResponseWriter, *http.Request) {
	return func(l *layer, w http.ResponseWriter, r *http.Request) {
		req, p := readRequest(w, r)
		if p != nil {
			l.fail(w, r, p)
			return
		}
		writeJSON(w, data(r, req))
		l.translated(r, 0, 0)
	}
}

// writeJSON sends a response. Clients compare the type as text: nothing may follow it.
func writeJSON(w http.ResponseWriter, v object) {
	body, err := json.Marshal(v)
	if err != nil { // texts, numbers and bools always marshal
		panic(err)
	}
	h := w.Header()
	mark(h)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may be gone: the access log says so
}

// discover responds with the address to call: the one that the client called. Like API 1.0's it
// has a scheme, since clients cut the address at "//" or put a path after it.
func discover(r *http.Request, req request) object {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return envelope(object{
		"authenticate": []string{"Basic-Cloud", "Basic-Ad"},
		"emailAddress": req.EmailAddress,
		"emailToken":   random(48),
		"region":       object{"code": regionCode(r.Host), "api": scheme + r.Host, "name": "Mimecast Proxy"},
	})
}

// regionCode is the region in the name of a host of API 1.0; that of Europe if it has
// none.
func regionCode(host string) string {
	if code, rest, ok := strings.Cut(host, "-api."); ok && strings.HasPrefix(rest, "mimecast.com") {
		return code
	}
	return "eu"
}

// keyLifetime is how long the made-up keys are said to live, in milliseconds: 30 days.
const keyLifetime = 30 * 24 * 60 * 60 * 1000

// login makes up a pair of keys in API 1.0's shape: clients decode the secret from
// base64. The keys open nothing, since the proxy strips what is signed with them.
func login(*http.Request, request) object {
	return envelope(object{
		"accessKey": random(96), "secretKey": random(64), "duration": keyLifetime, "bindingType": "one_step", "extendOnValidate": false,
	})
}

func logout(*http.Request, request) object { return envelope() }

// random returns n random bytes as base64.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.StdEncoding.EncodeToString(b)
}
