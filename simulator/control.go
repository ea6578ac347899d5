package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Control returns the handler of the control API, which controls the demo over plain HTTP
// on loopback. It rejects other Host values and cross-site requests: web pages cannot use
// it, not even by DNS rebinding.
func (s *Simulator) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.controlHelp)
	mux.HandleFunc("GET /state", s.controlState)
	mux.HandleFunc("GET /faults", s.controlFaults)
	mux.HandleFunc("POST /faults", s.controlAddFault)
	mux.HandleFunc("DELETE /faults", s.controlRemoveFaults)
	mux.HandleFunc("POST /revoke", s.controlRevoke)
	mux.HandleFunc("POST /settings", s.controlSettings)
	mux.HandleFunc("POST /reset", s.controlReset)
	return onlyLoopback(http.NewCrossOriginProtection().Handler(mux))
}

func onlyLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			writeControl(w, http.StatusForbidden, object{"error": "ask by 127.0.0.1 or localhost"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// writeControl responds with indented JSON, for people at a terminal.
func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client may have disconnected
}

func controlError(w http.ResponseWriter, err error) {
	writeControl(w, http.StatusBadRequest, object{"error": err.Error()})
}

// controlText is the help; controlHelp fills in the parts in braces.
const controlText = `The simulated Mimecast's knobs.

  curl {here}/state                       what was asked so far, and which faults wait
  curl -X POST {here}/revoke              make every token worthless now
  curl -X POST {here}/reset               count from nothing
  curl -X POST {here}/settings -d token_ttl=5s
        also client_id and client_secret, forbid=/siem/,
        quota=/identity/whoami with calls=3 and per=1m, rate_limit_header=X-Rate-Limit-

Faults strike until they are removed, or count times:

  curl -X POST {here}/faults -d name=token-dead
  curl -X POST {here}/faults -d name=slow -d path=/identity/ -d delay=2s -d count=3
  curl -X POST {here}/faults -d status=401 -d code=token_expired -d count=1
  curl -X POST {here}/faults -d path=/api/archive/ -d cut=body -d cutAfter=100000
  curl {here}/faults
  curl -X DELETE {here}/faults            all of them; one by ?id=1

A fault says path, application, method, skip, count; then status, code, message, body, size,
early; hints, delay, header, trailer, token, pace; cut (request, answer, header,
body, short) and cutAfter. Without a status the request is carried out first.
By name:

  {names}
`

func (s *Simulator) controlHelp(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	text := strings.NewReplacer("{here}", "http://"+r.Host, "{names}", strings.Join(FaultNames(), "\n  "))
	_, _ = text.WriteString(w, controlText) // the client may have disconnected
}

// controlState shows no request headers, because they hold tokens.
func (s *Simulator) controlState(w http.ResponseWriter, _ *http.Request) {
	last := []object{}
	requests := s.Requests()
	for _, r := range requests[max(0, len(requests)-20):] {
		last = append(last, object{"time": r.Time.Format(time.RFC3339), "request": r.Method + " " + r.Target, "status": r.Status, "bodyLength": r.BodyLength})
	}
	writeControl(w, http.StatusOK, object{"counts": s.Counts(), "executions": s.executionTotals(), "faults": listFaults(s.Faults()), "lastRequests": last})
}

// executionTotals returns the number of executions by function.
func (s *Simulator) executionTotals() map[string]int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	sums := map[string]int{}
	for name, byID := range s.journal.executions {
		for _, n := range byID {
			sums[name] += n
		}
	}
	return sums
}

func listFaults(armed []ArmedFault) []ArmedFault { return append([]ArmedFault{}, armed...) }

func (s *Simulator) controlFaults(w http.ResponseWriter, _ *http.Request) {
	writeControl(w, http.StatusOK, object{"faults": listFaults(s.Faults())})
}

func (s *Simulator) controlAddFault(w http.ResponseWriter, r *http.Request) {
	text, err := faultText(w, r)
	if err != nil {
		controlError(w, err)
		return
	}
	f, err := ParseFault(text)
	if err != nil {
		controlError(w, fmt.Errorf("the fault is not understood: %w", err))
		return
	}
	writeControl(w, http.StatusCreated, object{"id": s.AddFault(f), "fault": f})
}

// faultText returns the fault as JSON, whether r sent JSON or a form.
func faultText(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // without a type it is not a form
	if kind != "application/x-www-form-urlencoded" {
		return io.ReadAll(r.Body)
	}
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	// curl -d sends JSON with a form's content type.
	for name := range r.PostForm {
		if len(name) > 0 && name[0] == '{' {
			return nil, errors.New("for JSON add -H 'Content-Type: application/json'")
		}
	}
	return formFault(r)
}

func (s *Simulator) controlRemoveFaults(w http.ResponseWriter, r *http.Request) {
	before := len(s.Faults())
	if text := r.URL.Query().Get("id"); text != "" {
		id, err := strconv.Atoi(text)
		if err != nil {
			controlError(w, errors.New("id must be a fault's number"))
			return
		}
		s.RemoveFault(id)
	} else {
		s.ClearFaults()
	}
	writeControl(w, http.StatusOK, object{"removed": before - len(s.Faults())})
}

func (s *Simulator) controlRevoke(w http.ResponseWriter, _ *http.Request) {
	s.RevokeTokens()
	writeControl(w, http.StatusOK, object{"revoked": "every token issued so far"})
}

func (s *Simulator) controlReset(w http.ResponseWriter, _ *http.Request) {
	s.Reset()
	writeControl(w, http.StatusOK, object{"reset": "counts, executions and the log of requests"})
}

func (s *Simulator) controlSettings(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		controlError(w, err)
		return
	}
	apply, err := s.parseSettings(r)
	if err != nil {
		controlError(w, err)
		return
	}
	done := []string{}
	for name, f := range apply {
		f()
		done = append(done, name)
	}
	writeControl(w, http.StatusOK, object{"set": done})
}

// parseSettings returns the changes to make by setting. If one setting is invalid, it
// returns an error and nothing is changed.
func (s *Simulator) parseSettings(r *http.Request) (map[string]func(), error) {
	form, apply := r.PostForm, map[string]func(){}
	if text := form.Get("token_ttl"); text != "" {
		ttl, err := time.ParseDuration(text)
		if err != nil || ttl <= 0 {
			return nil, errors.New("token_ttl must be a duration such as 30s")
		}
		apply["token_ttl"] = func() { s.SetTokenTTL(ttl) }
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if (id == "") != (secret == "") {
		return nil, errors.New("client_id and client_secret go together")
	}
	if id != "" {
		apply["client_id, client_secret"] = func() { s.SetCredentials(id, secret) }
	}
	if form.Has("forbid") {
		prefixes := form["forbid"]
		if len(prefixes) == 1 && prefixes[0] == "" {
			prefixes = nil
		}
		apply["forbid"] = func() { s.Forbid(prefixes...) }
	}
	if path := form.Get("quota"); path != "" {
		calls, err := strconv.Atoi(form.Get("calls"))
		per, err2 := time.ParseDuration(form.Get("per"))
		if err != nil || err2 != nil || per <= 0 {
			return nil, errors.New("quota wants calls=3 and per=1m")
		}
		apply["quota"] = func() { s.SetQuota(path, calls, per) }
	}
	if prefix := form.Get("rate_limit_header"); prefix != "" {
		apply["rate_limit_header"] = func() { s.SetRateLimitHeader(prefix) }
	}
	if len(apply) == 0 {
		return nil, errors.New("nothing to set: see GET /")
	}
	return apply, nil
}
