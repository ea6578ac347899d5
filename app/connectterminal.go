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

// connectOnTerminal asks on the terminal until what was entered works.
func (p Env) connectOnTerminal(ctx context.Context, c *connector, hint string) (done connectpage.Connected, err error) {
	in := p.terminalInput()
	out := terminalOf(p.messages(c.ConnectOptions), p.Stderr)
	if in == nil || out == nil {
		return done, usageError("connect asks on a terminal; in a script, use --client-id-file and --secret-stdin")
	}
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	t, err := openConsole(ctx, in, out, interrupt)
	if err != nil {
		return done, fmt.Errorf("reading from the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	t.print(c.guide() + hint)
	done, err = c.ask(ctx, t)
	if ctx.Err() != nil {
		err = errInterrupted
	}
	return done, err
}

func (c *connector) guide() string {
	if c.Rotate {
		return fmt.Sprintf(rotateGuide, c.Profile)
	}
	return connectGuide
}

func (t *console) print(text string) {
	_, _ = t.Write([]byte(text)) // what is read next reports a terminal that is gone
}

// ask asks for what is not known, and again for what was rejected.
func (c *connector) ask(ctx context.Context, t *console) (connectpage.Connected, error) {
	in := c.known
	fields := []connectpage.Field{connectpage.Region, connectpage.ClientID, connectpage.ClientSecret}
	if c.Rotate && in.ClientID != "" {
		fields = []connectpage.Field{connectpage.ClientSecret}
	}
	for {
		before := in.ClientSecret.Reveal()
		for _, f := range fields {
			if f == connectpage.ClientSecret && in.ClientSecret.Reveal() != before {
				t.print("The client secret was pasted with the ID.\n")
				continue
			}
			if err := c.question(t, f, &in); err != nil {
				return connectpage.Connected{}, err
			}
		}
		t.print("Testing …\n")
		done, err := c.connect(ctx, in)
		rejected, ok := errors.AsType[*connectpage.Rejected](err)
		if !ok {
			return done, err
		}
		t.print("\n" + rejected.Text + "\n")
		if fields = rejected.Fields; len(fields) == 1 && fields[0] == connectpage.Region && c.base != nil {
			if _, err := t.ask("Press Enter to try again, or Ctrl-C to stop. "); err != nil {
				return done, err
			}
		}
	}
}

// question asks for one value. An empty answer keeps what is known.
func (c *connector) question(t *console, f connectpage.Field, in *connectpage.Input) error {
	switch f {
	case connectpage.Region:
		return c.askRegion(t, in)
	case connectpage.ClientID:
		return c.askID(t, in)
	case connectpage.ClientSecret:
		return c.askSecret(t, in)
	}
	return nil
}

func (c *connector) askRegion(t *console, in *connectpage.Input) error {
	for c.base == nil {
		text, err := t.ask(fmt.Sprintf("Region (%s) [%s]: ", strings.Join(regions(), ", "), in.Region))
		if err != nil {
			return err
		}
		region := cmp.Or(strings.ToLower(strings.TrimSpace(text)), in.Region)
		if isRegion(region) {
			in.Region = region
			return nil
		}
		t.print(wrongRegion + "\n")
	}
	return nil
}

func (c *connector) askID(t *console, in *connectpage.Input) error {
	prompt := "Client ID: "
	if in.ClientID != "" {
		prompt = "Client ID [Enter keeps " + shortID(in.ClientID) + "]: "
	}
	text, err := t.ask(prompt)
	if err != nil {
		return err
	}
	id, key := connection.ParsePaste(text)
	in.ClientID = cmp.Or(id, in.ClientID)
	if key != "" {
		in.ClientSecret = secret.New(key)
	}
	return nil
}

func (c *connector) askSecret(t *console, in *connectpage.Input) error {
	prompt := "Client secret (not shown): "
	if in.ClientSecret.Reveal() != "" {
		prompt = "Client secret (not shown) [Enter keeps it]: "
	}
	text, err := t.askHidden(prompt)
	if err == nil && strings.TrimSpace(text) != "" {
		in.ClientSecret = secret.New(text)
	}
	return err
}

// shortID is the beginning of a client ID, by which people know it.
func shortID(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:8] + "…"
}
