// Package traffic sends requests through the proxy to the simulator, as client programs do,
// and checks every response. A success must have the right content. After an error,
// the simulator must not have executed a write that the response reports as unprocessed.
package traffic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// Client sends requests. Its methods are safe for concurrent use.
type Client struct {
	// URL is the base URL of the proxy.
	URL  string
	HTTP *http.Client
	Sim  *simulator.Server
	// MaxBody is the largest body to send or fetch, in bytes.
	MaxBody int64
	// Release is the next message of the hold queue to release.
	Release atomic.Int64

	mu     sync.Mutex
	writes []write
}

// write is a request that changes something, and its result.
type write struct {
	function, id string
	done, undone bool // as the response states; both false if it is unknown
}

// Result is the result of a request.
type Result struct {
	Kind string // whoami, echo, …
	// Status is the response's status; 0 without a response.
	Status int
	// Code is the error code of the proxy's own error responses; otherwise empty.
	Code string
	// Err is why there was no response, or why it was incomplete.
	Err error
	// Wrong describes an error in a response with status 200 or in its source; "" means
	// that the response is right.
	Wrong string
}

// Outcome summarizes the result in one word.
func (r Result) Outcome() string {
	switch {
	case r.Wrong != "":
		return "wrong"
	case r.Err != nil:
		return "cut"
	case r.Code != "":
		return r.Code
	default:
		return fmt.Sprint(r.Status)
	}
}

// Kinds returns the kinds of requests that a client can make.
func Kinds() []string {
	return []string{"whoami", "echo", "list", "download", "upload", "send-email", "hold-release"}
}

// Writes returns the kinds that change something.
func Writes() []string { return []string{"upload", "send-email", "hold-release"} }

// Do makes one request of a kind with random contents. It panics if the kind is unknown.
func (c *Client) Do(ctx context.Context, kind string, r *rand.Rand) Result {
	switch kind {
	case "whoami":
		return c.whoami(ctx)
	case "echo":
		return c.echo(ctx, r)
	case "list":
		return c.list(ctx)
	case "download":
		return c.download(ctx, r)
	case "upload":
		return c.upload(ctx, r)
	case "send-email":
		return c.sendEmail(ctx, r)
	case "hold-release":
		return c.holdRelease(ctx)
	}
	panic("traffic: no kind " + kind)
}

// ask sends a request and checks the response; check checks the body if the status is 200.
func (c *Client) ask(ctx context.Context, kind string, req *http.Request, check func(body io.Reader) string) Result {
	got := Result{Kind: kind}
	res, err := c.HTTP.Do(req.WithContext(ctx))
	if err != nil {
		got.Err = err
		return got
	}
	defer res.Body.Close()
	got.Status, got.Code = res.StatusCode, res.Header.Get(problem.Header)
	body := &ending{Reader: res.Body}
	if res.StatusCode == http.StatusOK {
		got.Wrong = check(body)
	}
	_, _ = io.Copy(io.Discard, body) // body.err has the error
	if body.err != nil {
		// A body that was cut short is not checked.
		got.Err, got.Wrong = body.err, ""
	}
	if got.Err == nil && got.Status != http.StatusOK && got.Code == "" && got.Status == 502 && res.Header.Get("X-Request-Id") == "" {
		got.Wrong = "a 502 that is neither the proxy's nor Mimecast's"
	}
	return got
}

// ending records the error at which a body ended, except io.EOF.
type ending struct {
	io.Reader
	err error
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}

func request(method, target string, body []byte) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), method, target, bytes.NewReader(body))
	if err != nil {
		panic(err) // every URL here is valid
	}
	// Without this, net/http resends requests that have an Idempotency-Key. Only the
	// proxy may resend here.
	req.GetBody = nil
	return req
}

func decode(body io.Reader, into any) string {
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return "no JSON: " + err.Error()
	}
	return ""
}

func (c *Client) whoami(ctx context.Context) Result {
	return c.ask(ctx, "whoami", request("GET", c.URL+"/identity/whoami", nil), func(body io.Reader) string {
		var got struct {
			Codes map[string]any `json:"account-codes"`
		}
		if wrong := decode(body, &got); wrong != "" || got.Codes["cg"] == nil {
			return "no account " + wrong
		}
		return ""
	})
}

// echo sends a body of any size with a query that is easily damaged. The response must
// confirm both.
func (c *Client) echo(ctx context.Context, r *rand.Rand) Result {
	body := make([]byte, r.Int64N(c.MaxBody))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	sum := sha256.Sum256(body)
	target := fmt.Sprintf("/_simulator/echo?from=2024-01-01T00:00:00.000Z[Asia/Kolkata]&a+b=%%2F;x&n=%d", r.Uint64())
	req := request("POST", c.URL+"/", body)
	req.URL.Opaque, _, _ = strings.Cut(target, "?")
	_, req.URL.RawQuery, _ = strings.Cut(target, "?")
	return c.ask(ctx, "echo", req, func(body io.Reader) string {
		var got struct {
			Target     string
			BodySHA256 string
		}
		if wrong := decode(body, &got); wrong != "" {
			return wrong
		}
		if got.Target != target || got.BodySHA256 != hex.EncodeToString(sum[:]) {
			return "another request arrived than was sent: " + got.Target
		}
		return ""
	})
}

func (c *Client) list(ctx context.Context) Result {
	req := request("POST", c.URL+"/api/audit/get-audit-events", []byte(`{"meta":{"pagination":{"pageSize":50}},"data":[{}]}`))
	return c.ask(ctx, "list", req, func(body io.Reader) string {
		var got struct {
			Data []json.RawMessage
			Fail []json.RawMessage
		}
		if wrong := decode(body, &got); wrong != "" || len(got.Data) == 0 || len(got.Fail) > 0 {
			return fmt.Sprintf("%d items, %d failures %s", len(got.Data), len(got.Fail), wrong)
		}
		return ""
	})
}

func (c *Client) download(ctx context.Context, r *rand.Rand) Result {
	id, size := fmt.Sprintf("file-%d", r.Uint64()), r.Int64N(c.MaxBody)
	query := url.Values{"id": {id}, "size": {fmt.Sprint(size)}}
	if r.IntN(2) == 0 {
		query.Set("length", "true")
	}
	return c.ask(ctx, "download", request("POST", c.URL+"/api/archive/get-file?"+query.Encode(), nil), func(body io.Reader) string {
		n, err := simulator.Content(id).Check(body)
		if err != nil || n != size {
			return fmt.Sprintf("byte %d of %d: %v", n, size, err)
		}
		return ""
	})
}

func (c *Client) upload(ctx context.Context, r *rand.Rand) Result {
	content := make([]byte, 8+r.Int64N(c.MaxBody))
	_, _ = simulator.Content(fmt.Sprint(r.Uint64())).ReadAt(content, 0) // ReadAt fails only at a negative offset
	sum := sha256.Sum256(content)
	id := hex.EncodeToString(sum[:])
	req := request("POST", c.URL+"/api/file/file-upload", content)
	if r.IntN(2) == 0 {
		req.ContentLength = -1
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Mc-Arg", fmt.Sprintf(`{"data":[{"sha256":%q,"fileSize":%d}]}`, id, len(content)))
	return c.write(ctx, "upload", req, write{function: "file-upload", id: id})
}

func (c *Client) sendEmail(ctx context.Context, r *rand.Rand) Result {
	id := fmt.Sprintf("subject %d %d", r.Uint64(), r.Uint64())
	body := fmt.Sprintf(`{"data":[{"to":[{"emailAddress":"a@b.example"}],"subject":%q,"htmlBody":{"content":%q}}]}`, id, strings.Repeat("x", int(r.Int64N(c.MaxBody))))
	req := request("POST", c.URL+"/api/email/send-email", []byte(body))
	if r.IntN(3) == 0 {
		req.Header.Set([]string{"Idempotency-Key", "X-Idempotency-Key"}[r.IntN(2)], id)
	}
	return c.write(ctx, "send-email", req, write{function: "send-email", id: id})
}

func (c *Client) holdRelease(ctx context.Context) Result {
	id := c.Sim.HeldID(int(c.Release.Add(1)))
	return c.write(ctx, "hold-release", request("POST", c.URL+"/api/gateway/hold-release", fmt.Appendf(nil, `{"data":[{"id":%q}]}`, id)), write{function: "hold-release", id: id})
}

// undoneBy are Mimecast's statuses for requests that were not executed.
var undoneBy = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}

// write makes a request that changes something and records its result for Settle.
func (c *Client) write(ctx context.Context, kind string, req *http.Request, w write) Result {
	got := c.ask(ctx, kind, req, func(body io.Reader) string {
		var answer struct{ Fail []json.RawMessage }
		if wrong := decode(body, &answer); wrong != "" || len(answer.Fail) > 0 {
			return fmt.Sprintf("not carried out: %s %s", answer.Fail, wrong)
		}
		return ""
	})
	w.done = got.Status == http.StatusOK
	w.undone = event.Code(got.Code).Kind().Unprocessed() || got.Code == "" && slices.Contains(undoneBy, got.Status)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, w)
	return got
}

// Account compares what the simulator executed with what clients were answered.
type Account struct {
	Writes int
	// Doubled are the writes that were executed more than once.
	Doubled []string
	// Lost are the writes with status 200 that were never executed.
	Lost []string
	// Denied are the writes that were executed although the response denied it.
	Denied []string
	// Unknown is the number of writes whose response does not say whether they were
	// executed. Done is how many of them were.
	Unknown, Done int
}

// Settle compares all writes so far with what the simulator executed, and forgets them.
// Call it when no write is in flight, neither at the proxy nor at Mimecast.
func (c *Client) Settle() Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := Account{Writes: len(c.writes)}
	executions := map[string]map[string]int{}
	for _, f := range []string{"file-upload", "send-email", "hold-release"} {
		executions[f] = c.Sim.Executions(f)
	}
	for _, w := range c.writes {
		n, name := executions[w.function][w.id], w.function+" "+w.id
		switch {
		case n > 1:
			a.Doubled = append(a.Doubled, name)
		case n == 0 && w.done:
			a.Lost = append(a.Lost, name)
		case n == 1 && w.undone:
			a.Denied = append(a.Denied, name)
		case !w.done && !w.undone:
			a.Unknown++
			a.Done += n
		}
	}
	c.writes = nil
	return a
}
