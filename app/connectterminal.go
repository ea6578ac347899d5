package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"mimecast-proxy/connection"
	"mimecast-proxy/connectpage"
	"mimecast-proxy/secret"
)

const connectGuide = `Connect to Mimecast
  1. In the Administration Console, open Services > API and Platform Integrations
     and create an API 2.0 application.
  2. Choose the products that your tool needs, and the smallest role that allows them.
  3. Copy the client ID and the client secret. The secret is shown once.

`

const rotateGuide = `Replace the secret of profile %s
  In the Administration Console, generate new keys for the application, or create
  another one. The old secret stays stored until the new one works.

`

// connectOnTerminal asks on the terminal until the input works. Echo is off from the start,
// so that a secret pasted early is not shown.
func (p Env) connectOnTerminal(ctx context.Context, o ConnectOptions, hint string) (c *connector, done connectpage.Connected, err error) {
	in, out := p.terminalInput(), terminalOf(p.messages(o), p.Stderr)
	if in == nil || out == nil {
		return nil, done, usageError("connect needs a terminal; in a script, use --client-id-file and --secret-stdin")
	}
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	t, err := openConsole(ctx, in, out, interrupt)
	if err != nil {
		return nil, done, fmt.Errorf("reading from the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if c, err = p.newConnector(ctx, o, hint); err != nil {
		return c, done, err
	}
	t.print(c.guide() + hint + c.notice)
	done, err = c.ask(ctx, t)
	if err != nil && ctx.Err() != nil {
		err = errInterrupted
	}
	return c, done, err
}

func (c *connector) guide() string {
	if c.Rotate {
		return fmt.Sprintf(rotateGuide, c.Profile)
	}
	return connectGuide
}

// ask asks for the values that are not known, and again for those that were rejected.
func (c *connector) ask(ctx context.Context, t *console) (connectpage.Connected, error) {
	in := c.known
	fields := []connectpage.Field{connectpage.Region, connectpage.ClientID, connectpage.ClientSecret}
	if c.Rotate && in.ClientID != "" {
		fields = []connectpage.Field{connectpage.ClientSecret}
	}
	for {
		if err := c.askFields(t, fields, &in); err != nil {
			return connectpage.Connected{}, err
		}
		t.print("Testing …\n")
		done, err := c.connect(ctx, in)
		rejected, again := errors.AsType[*connectpage.Rejected](err)
		notStored, stuck := errors.AsType[*notStoredError](err)
		switch {
		case again:
			fields = rejected.Fields
			t.print("\n" + rejected.Text + "\n")
		case stuck:
			fields = nil
			t.print("\n" + notStored.Error() + "\n")
		default:
			return done, err
		}
		t.forget() // typed ahead for another question
		if stuck || len(fields) == 1 && fields[0] == connectpage.Region && c.base != nil {
			if _, err := t.ask("Press Enter to try again, or Ctrl-C to stop. ", nil); err != nil {
				return done, err
			}
		}
	}
}

// askFields asks for values. An empty line keeps the known value. A value that was already
// pasted at another prompt is not asked for.
func (c *connector) askFields(t *console, fields []connectpage.Field, in *connectpage.Input) error {
	before := *in
	for _, f := range fields {
		var err error
		switch {
		case f == connectpage.Region:
			err = c.askRegion(t, in)
		case f == connectpage.ClientID && in.ClientID == before.ClientID:
			err = c.askID(t, in)
		case f == connectpage.ClientSecret && in.ClientSecret.Equal(before.ClientSecret):
			err = c.askSecret(t, in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *connector) askRegion(t *console, in *connectpage.Input) error {
	for c.base == nil {
		text, err := t.ask(fmt.Sprintf("Region (%s) [%s]: ", strings.Join(regions(), ", "), in.Region), mayBeRegion)
		if err != nil {
			return err
		}
		region := cmp.Or(strings.ToLower(strings.TrimSpace(text)), in.Region)
		switch id, key := connection.ParsePaste(text); {
		case isRegion(region):
			in.Region = region
			return nil
		case id != "" && len(region) > maxRegion:
			t.print("Unknown region. The text is used as the client ID, and the region is " + in.Region + ".\n")
			take(in, id, key)
			return nil
		}
		t.print(wrongRegion + "\n")
	}
	return nil
}

// maxRegion is the length, in bytes, above which a text cannot be a mistyped region.
const maxRegion = 12

// mayBeRegion reports whether a region, or a country code such as de, begins with the text.
func mayBeRegion(beginning string) bool {
	for _, region := range append(regions(), "eu", "de", "ca", "au", "za") {
		if strings.HasPrefix(region, strings.ToLower(beginning)) {
			return true
		}
	}
	return false
}

// shownID is how many characters of a client ID are shown. The user may have pasted the
// secret instead.
const shownID = 4

func mayShowID(beginning string) bool { return len(beginning) <= shownID }

func (c *connector) askID(t *console, in *connectpage.Input) error {
	prompt := "Client ID (its beginning is shown): "
	if in.ClientID != "" {
		prompt = "Client ID [Enter keeps " + shortID(in.ClientID) + "]: "
	}
	text, err := t.ask(prompt, mayShowID)
	if err != nil {
		return err
	}
	id, key := connection.ParsePaste(text)
	if id == "" && key == "" && strings.TrimSpace(text) != "" {
		t.print("That text contains no client ID.\n")
	}
	take(in, id, key)
	return nil
}

// take stores pasted values in the input. An empty value changes nothing.
func take(in *connectpage.Input, id, key string) {
	in.ClientID = cmp.Or(id, in.ClientID)
	if key != "" {
		in.ClientSecret = secret.New(key)
	}
}

func (c *connector) askSecret(t *console, in *connectpage.Input) error {
	prompt := "Client secret (not shown): "
	if !in.ClientSecret.IsZero() {
		prompt = "Client secret (not shown) [Enter keeps it]: "
	}
	text, err := t.ask(prompt, nil)
	if err == nil && strings.TrimSpace(text) != "" {
		in.ClientSecret = secret.New(text)
	}
	return err
}

// shortID returns the beginning of a client ID, enough for the user to recognize it.
func shortID(id string) string {
	runes := 0
	for i := range id {
		if runes++; runes > shownID {
			return id[:i] + "…"
		}
	}
	return id
}
