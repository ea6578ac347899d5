package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/connection"
	"mimecast-proxy/connectpage"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// connector tests credentials that the user enters, and stores those that work.
type connector struct {
	ConnectOptions
	environ  []string // without credentials and PROXY_ variables
	base     *url.URL // replaces the region; nil: the user is asked for a region
	book     connection.Book
	bookErr  error // why the book cannot be used
	target   target
	previous *connection.Connection // of this profile; nil: none
	known    connectpage.Input      // before the user entered anything
	// notice says where the connection will be stored. It is printed before any question.
	notice   string
	manifest bytes.Buffer // for the store kubernetes
	redactor *telemetry.Redactor
	lifetime time.Duration // of the web page
}

// regions returns the regions of API 2.0, sorted.
func regions() []string { return slices.Sorted(maps.Keys(mimecast.BaseURLs)) }

func isRegion(name string) bool { return mimecast.BaseURLs[name] != "" }

const wrongRegion = "Unknown region. Accounts outside the US and the UK use global."

// connect tests the input, and stores it if it works. The error is a [*connectpage.Rejected]
// if different input may help.
func (c *connector) connect(ctx context.Context, in connectpage.Input) (connectpage.Connected, error) {
	in, err := c.clean(in)
	if err != nil {
		return connectpage.Connected{}, err
	}
	done, err := c.test(ctx, in)
	if err != nil {
		return done, err
	}
	entry := connection.Connection{Profile: c.Profile, Region: in.Region, Account: done.Account, Tested: time.Now().UTC()}
	entry.TokenURL = lookup(c.environ, "MIMECAST_TOKEN_URL")
	if c.base != nil {
		entry.Region, entry.BaseURL = "", c.base.String()
	}
	if ca := lookup(c.environ, "MIMECAST_CA_FILE"); ca != "" {
		if entry.CAFile, err = filepath.Abs(ca); err != nil {
			return done, err
		}
	}
	creds := connection.Credentials{ClientID: secret.New(in.ClientID), ClientSecret: in.ClientSecret}
	// An interrupted write could leave half of the credentials: finish it.
	err = c.target.store(context.WithoutCancel(ctx), entry, creds)
	if errors.Is(err, connection.ErrOldCopy) {
		done.Notes = append(done.Notes, err.Error()+".")
		err = nil
	}
	if err != nil {
		return done, &notStoredError{err}
	}
	done.Stored, done.Next = c.target.where, c.target.next
	return done, nil
}

// notStoredError says why working credentials could not be stored.
type notStoredError struct{ err error }

// Error implements error.
func (e *notStoredError) Error() string {
	return "the credentials work, but cannot be stored: " + e.err.Error()
}

// Unwrap returns the cause.
func (e *notStoredError) Unwrap() error { return e.err }

// clean extracts and validates the values. A paste may contain both of them, with text from
// where they were copied.
func (c *connector) clean(in connectpage.Input) (connectpage.Input, error) {
	id, key := connection.ParsePaste(in.ClientID)
	pastedID, pastedKey := connection.ParsePaste(in.ClientSecret.Reveal())
	switch {
	case pastedKey != "": // the secret field has both
		id, key = cmp.Or(pastedID, id), pastedKey
	case in.ClientSecret.Reveal() != "":
		key = connection.Clean(in.ClientSecret.Reveal())
	}
	in.ClientID, in.ClientSecret = id, secret.New(key)
	in.Region = strings.ToLower(strings.TrimSpace(in.Region))
	c.redactor.Set("client secret", in.ClientSecret)
	switch {
	case c.base == nil && !isRegion(in.Region):
		return in, reject(wrongRegion, connectpage.Region)
	case id == "":
		return in, reject("Enter the client ID.", connectpage.ClientID)
	case key == "":
		return in, reject("Enter the client secret.", connectpage.ClientSecret)
	case id == key:
		return in, reject("The client ID and the secret are the same text. Copy each from its own field.", connectpage.ClientID, connectpage.ClientSecret)
	}
	if err := (connection.Credentials{ClientID: secret.New(id), ClientSecret: in.ClientSecret}).Check(); err != nil {
		return in, reject("These are not credentials: "+err.Error()+".", connectpage.ClientID, connectpage.ClientSecret)
	}
	return in, nil
}

func reject(text string, fields ...connectpage.Field) error {
	return &connectpage.Rejected{Text: text, Fields: fields}
}

// test fetches one token, and asks Mimecast for the account that it belongs to.
func (c *connector) test(ctx context.Context, in connectpage.Input) (done connectpage.Connected, err error) {
	cfg, err := c.configure(in)
	if err != nil {
		return done, err
	}
	trusted, err := roots(cfg.CA)
	if err != nil {
		return done, err
	}
	api := connections(cfg, trusted)
	defer api.CloseIdleConnections()
	k := &check{spec: defaultAccount(cfg), upstream: api, path: DefaultCheckPath, redactor: c.redactor}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	clock, err := k.fetchToken(ctx)
	if err != nil {
		return done, c.rejectedBy(ctx, err)
	}
	if clock != "" {
		done.Notes = append(done.Notes, "Warning: "+clock+".")
	}
	done.Lifetime = k.lifetime()
	if err := k.identify(ctx, &done); err != nil {
		return done, reject(c.redactor.Redact(err.Error()), connectpage.Region)
	}
	if c.Products {
		done.Notes = append(done.Notes, k.productNotes(ctx)...)
	}
	return done, nil
}

// connectTimeout bounds one test of credentials.
const connectTimeout = time.Minute

// configure returns the configuration for testing an input.
func (c *connector) configure(in connectpage.Input) (config.Config, error) {
	environ := append(slices.Clone(c.environ), "MIMECAST_CLIENT_ID="+in.ClientID, "MIMECAST_CLIENT_SECRET="+in.ClientSecret.Reveal())
	if c.base == nil {
		environ = append(environ, "MIMECAST_REGION="+in.Region)
	}
	cfg, err := config.Parse(environ, nil)
	faults, ok := errors.AsType[*config.Error](err)
	if !ok {
		return cfg, err
	}
	var texts []string
	var fields []connectpage.Field
	for _, f := range faults.Errors {
		switch f.Variable {
		case "MIMECAST_CLIENT_ID":
			fields = append(fields, connectpage.ClientID)
			texts = append(texts, "Client ID: "+f.Found+".")
		case "MIMECAST_CLIENT_SECRET":
			fields = append(fields, connectpage.ClientSecret)
			texts = append(texts, "Client secret: "+f.Found+".")
		default:
			return cfg, err // no input can fix it
		}
	}
	return cfg, reject(strings.Join(texts, " "), fields...)
}

// rejectedBy explains why no token was issued.
func (c *connector) rejectedBy(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(ctx.Err(), context.Canceled) {
		return cause
	}
	if e, ok := errors.AsType[*token.Error](err); ok && e.Outcome == event.TokenRefused {
		return reject(fmt.Sprintf("Mimecast rejected the client ID or the secret (status %d). Check that both are complete and from the same application.", e.Status), c.allFields()...)
	}
	return reject(c.redactor.Redact(strings.TrimSuffix(tokenErrorDetail(err), "."))+".", connectpage.Region)
}

// allFields returns the fields that the user is asked for.
func (c *connector) allFields() []connectpage.Field {
	if c.base != nil {
		return []connectpage.Field{connectpage.ClientID, connectpage.ClientSecret}
	}
	return []connectpage.Field{connectpage.Region, connectpage.ClientID, connectpage.ClientSecret}
}

// identify finds the account that the token belongs to. It does not fail if the application
// may not ask for that.
func (c *check) identify(ctx context.Context, done *connectpage.Connected) error {
	res, err := c.get(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProductBody))
	switch {
	case err != nil:
		return fmt.Errorf("reading the response of %s: %w", c.path, upstream.Explain(err))
	case res.StatusCode == http.StatusForbidden:
		done.Notes = append(done.Notes, "The credentials work, but the application's role does not allow "+c.path+", so the account's name is unknown.")
		return nil
	case res.StatusCode >= http.StatusMultipleChoices:
		return fmt.Errorf("the token request succeeded, but GET %s got status %d %s. Try again", c.path, res.StatusCode, telemetry.Scrub(mimecast.Code(body)))
	}
	who := mimecast.ParseIdentity(body)
	done.Account, done.Region = telemetry.Scrub(who.Name), telemetry.Scrub(who.Region)
	return nil
}

// productNotes returns one line per product.
func (c *check) productNotes(ctx context.Context) (notes []string) {
	for _, p := range c.products(ctx).Products {
		notes = append(notes, fmt.Sprintf("%-7s  %s", p.Allowed, p.Product))
	}
	return notes
}
