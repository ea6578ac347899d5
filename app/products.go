package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/mimecast"
	"mimecast-proxy/proxy"
	"mimecast-proxy/telemetry"
)

// Product says whether the API application may use one product.
type Product struct {
	Product string `json:"product"`
	// Request is the method and path of the test request.
	Request string `json:"request"`
	// Allowed is "yes", "no", or "unknown" if the response shows neither.
	Allowed string `json:"allowed"`
	// Status is the response's status code; 0 if there was no response.
	Status int `json:"status,omitempty"`
	// Detail is Mimecast's error code, or why there was no response. It may be empty.
	Detail string `json:"detail,omitempty"`
}

// maxProductBody is how much of a response is read, in bytes. An error code fits.
const maxProductBody = 64 << 10

// products sends one request per product. The step passes even if the application may not
// use a product.
func (c *check) products(ctx context.Context) Step {
	began := time.Now()
	var all []Product
	counts := map[string]int{}
	for _, f := range mimecast.Products {
		p := c.product(ctx, f)
		counts[p.Allowed]++
		all = append(all, p)
	}
	detail := fmt.Sprintf("%d of %d can be used", counts["yes"], len(all))
	if n := counts["unknown"]; n > 0 {
		detail += fmt.Sprintf(", %d unknown", n)
	}
	return Step{Step: "products", Account: c.spec.name, OK: ctx.Err() == nil, Detail: detail, Milliseconds: time.Since(began).Milliseconds(), Products: all}
}

func (c *check) product(ctx context.Context, f mimecast.Function) Product {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	path, _, _ := strings.Cut(f.Path, "?")
	p := Product{Product: f.Product, Request: f.Method + " " + path, Allowed: "unknown"}
	req, err := http.NewRequestWithContext(ctx, f.Method, c.spec.baseURL.String(), strings.NewReader(f.Body))
	if err != nil {
		p.Detail = err.Error()
		return p
	}
	req.URL = proxy.Target(c.spec.baseURL, f.Path)
	req.Header.Set("Authorization", c.held.Authorization())
	if f.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.upstream.RoundTrip(req)
	if err != nil {
		p.Detail = explained(ctx, err).Error()
		return p
	}
	defer res.Body.Close()
	p.Status = res.StatusCode
	if body, err := io.ReadAll(io.LimitReader(res.Body, maxProductBody)); err == nil {
		p.Detail = telemetry.Scrub(mimecast.Code(body))
	}
	p.Allowed = allowed(res.StatusCode)
	return p
}

// allowed returns what a status shows about the permission. Mimecast responds 403 before it
// runs a function.
func allowed(status int) string {
	switch {
	case status < http.StatusMultipleChoices:
		return "yes"
	case status == http.StatusForbidden:
		return "no"
	default:
		return "unknown"
	}
}

// addProducts reports the step. A text report also has one line per product.
func (r *reporter) addProducts(s Step) error {
	for i := range s.Products {
		s.Products[i].Detail = r.redactor.Redact(s.Products[i].Detail)
	}
	if err := r.add(s); err != nil || r.asJSON {
		return err
	}
	for _, p := range s.Products {
		detail := p.Detail
		if p.Status != 0 {
			detail = strings.TrimSuffix(fmt.Sprintf("status %d, %s", p.Status, p.Detail), ", ")
		}
		if _, err := fmt.Fprintf(r.w, "        %-7s  %-30s  %s: %s\n", p.Allowed, p.Product, p.Request, detail); err != nil {
			return err
		}
	}
	return nil
}
