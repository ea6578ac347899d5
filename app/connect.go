package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/connection"
	"mimecast-proxy/connectpage"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

// ConnectOptions are the flags of Connect. Empty texts mean that a flag is not set.
type ConnectOptions struct {
	// Profile names the connection; empty: as MIMECAST_PROFILE says.
	Profile string
	// Region is one of API 2.0.
	Region string
	// Store is one of ConnectStores.
	Store string
	// Output is the file of the store env-file, or the folder of systemd.
	Output string
	// Namespace is for the store kubernetes.
	Namespace string
	// ClientIDFile and SecretFile hold what is otherwise asked; so does the standard
	// input for SecretStdin.
	ClientIDFile, SecretFile string
	SecretStdin              bool
	// Rotate replaces the secret of a connection.
	Rotate bool
	// Products asks which products the application may use.
	Products bool
	// Force overwrites the file of the store env-file.
	Force bool
	// Web asks on a local page. NoBrowser only prints its address.
	Web, NoBrowser bool
}

// Connect asks for region, client ID and secret, tests them and stores them.
func (p Env) Connect(ctx context.Context, o ConnectOptions) error {
	return p.connect(ctx, o, "")
}

// connect is Connect with a hint about what to enter, for the demo.
func (p Env) connect(ctx context.Context, o ConnectOptions, hint string) error {
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	c, err := p.newConnector(ctx, o)
	if err != nil {
		return err
	}
	if hint != "" { // the demo goes on by itself
		c.target.where, c.target.next = "in a folder that the demo removes. The demo starts now", ""
	}
	var done connectpage.Connected
	switch {
	case o.Web:
		done, err = p.connectOnPage(ctx, c, hint)
	case o.SecretStdin || o.SecretFile != "":
		done, err = p.connectFromFiles(ctx, c)
	default:
		done, err = p.connectOnTerminal(ctx, c, hint)
	}
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, errInterrupted) {
			err = fmt.Errorf("stopped: %s", c.unchanged())
		}
		return err
	}
	return c.report(p.messages(o), done)
}

// messages is where a person reads what happened: not where the manifest goes.
func (p Env) messages(o ConnectOptions) io.Writer {
	if o.Store == "kubernetes" {
		return p.Stderr
	}
	return p.Stdout
}

// unchanged says what a connect that failed left.
func (c *connector) unchanged() string {
	if c.previous != nil {
		return "the stored connection is as it was"
	}
	return "nothing was stored"
}

// newConnector checks the options and finds out what is known already.
func (p Env) newConnector(ctx context.Context, o ConnectOptions) (*connector, error) {
	o.Profile = p.profile(o.Profile)
	if err := connection.CheckProfile(o.Profile); err != nil {
		return nil, usageError("--profile: %w", err)
	}
	c := &connector{ConnectOptions: o, redactor: cmp.Or(p.Redactor, new(telemetry.Redactor)), lifetime: pageLifetime}
	c.environ = without(p.Environ, func(v string) bool {
		return strings.HasPrefix(v, "PROXY_") || named(append(credentialVariables, "MIMECAST_PROFILE")...)(v)
	})
	book, bookErr := newBook(p.Environ)
	c.book = book
	if bookErr == nil {
		entry, err := book.Find(o.Profile)
		if err == nil {
			c.previous = &entry
		} else if !errors.Is(err, connection.ErrNotFound) {
			return nil, err
		}
	}
	if o.Web && (o.SecretStdin || o.SecretFile != "") || o.SecretStdin && o.SecretFile != "" {
		return nil, usageError("--web, --secret-stdin and --secret-file exclude each other")
	}
	if o.Rotate && c.previous == nil {
		return nil, usageError("no connection is stored as profile %q: run mimecast-proxy connections", o.Profile)
	}
	if err := c.chooseAddress(); err != nil {
		return nil, err
	}
	if o.Rotate {
		c.knowPrevious(ctx)
	}
	var err error
	c.target, err = p.chooseTarget(ctx, c, bookErr)
	return c, err
}

// profile returns a profile that was named, or else the one that serve would use.
func (p Env) profile(name string) string {
	for _, v := range p.Environ {
		if value, ok := strings.CutPrefix(v, "MIMECAST_PROFILE="); ok && name == "" {
			name = value
		}
	}
	return cmp.Or(name, config.DefaultProfile)
}

func usageError(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}

// chooseAddress finds the region or base URL, and checks what else the test needs.
func (c *connector) chooseAddress() error {
	if c.Rotate {
		for name, value := range map[string]string{"MIMECAST_BASE_URL": c.previous.BaseURL, "MIMECAST_TOKEN_URL": c.previous.TokenURL, "MIMECAST_CA_FILE": c.previous.CAFile} {
			if value != "" {
				c.environ = append(without(c.environ, named(name)), name+"="+value)
			}
		}
		c.Region = cmp.Or(c.Region, c.previous.Region)
	}
	c.known.Region = cmp.Or(c.Region, c.variable("MIMECAST_REGION"), "global")
	if c.Region != "" {
		c.environ = append(without(c.environ, named("MIMECAST_REGION")), "MIMECAST_REGION="+c.Region)
	}
	cfg, err := config.Parse(append(slices.Clone(c.environ), "MIMECAST_CLIENT_ID=-", "MIMECAST_CLIENT_SECRET=-"), nil)
	if err != nil {
		return err
	}
	if cfg.Region == "" {
		c.base = cfg.BaseURL
	}
	c.environ = without(c.environ, named("MIMECAST_REGION"))
	return nil
}

// knowPrevious reads the client ID whose secret is replaced. If the store cannot be
// read, it is asked.
func (c *connector) knowPrevious(ctx context.Context) {
	document, err := c.book.Read(ctx, *c.previous)
	if err != nil {
		return
	}
	if creds, err := connection.ParseCredentials(document); err == nil {
		c.known.ClientID = creds.ClientID.Reveal()
	}
}

// chooseTarget returns the store that was asked for, or the best that there is.
func (p Env) chooseTarget(ctx context.Context, c *connector, bookErr error) (target, error) {
	store := c.Store
	if store == "" && c.Rotate {
		store = string(c.previous.Store)
	}
	switch store {
	case "systemd":
		return systemdTarget(c.ConnectOptions)
	case "kubernetes":
		return kubernetesTarget(p.Stdout, c.ConnectOptions), nil
	case "env-file":
		return envFileTarget(c.ConnectOptions)
	case "", "keyring", "file":
	default:
		return target{}, usageError("--store %q is not one of %s", store, strings.Join(ConnectStores, ", "))
	}
	if bookErr != nil {
		return target{}, fmt.Errorf("finding the folder for connections: %w", bookErr)
	}
	if store != string(connection.File) {
		err := c.book.KeyringState(ctx)
		switch {
		case err == nil:
			return bookTarget(c.book, connection.Keyring, c.ConnectOptions), nil
		case store == string(connection.Keyring):
			return target{}, fmt.Errorf("%w; or choose --store file, a file that only you can read", err)
		case !errors.Is(err, connection.ErrNoKeyring):
			fmt.Fprintln(p.messages(c.ConnectOptions), "The keyring is not used: "+err.Error()+".")
		}
	}
	return bookTarget(c.book, connection.File, c.ConnectOptions), nil
}

// connectFromFiles connects with what files and the standard input hold.
func (p Env) connectFromFiles(ctx context.Context, c *connector) (connectpage.Connected, error) {
	in := c.known
	if c.ClientIDFile != "" {
		text, err := os.ReadFile(c.ClientIDFile)
		if err != nil {
			return connectpage.Connected{}, usageError("--client-id-file: %w", err)
		}
		in.ClientID = string(text)
	}
	key, err := p.readSecret(ctx, c)
	if err != nil {
		return connectpage.Connected{}, err
	}
	in.ClientSecret = secret.New(string(key))
	return c.connect(ctx, in)
}

// maxSecretInput bounds what is read as a secret, in bytes.
const maxSecretInput = 64 << 10

func (p Env) readSecret(ctx context.Context, c *connector) ([]byte, error) {
	if c.SecretFile != "" {
		text, err := os.ReadFile(c.SecretFile)
		if err != nil {
			return nil, usageError("--secret-file: %w", err)
		}
		return text, nil
	}
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() { // it ends with the process, if nobody writes
		text, err := io.ReadAll(io.LimitReader(p.Stdin, maxSecretInput))
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			return nil, fmt.Errorf("reading the secret from the standard input: %w", r.err)
		}
		return r.text, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// report says how it ended, and what to do next.
func (c *connector) report(w io.Writer, done connectpage.Connected) error {
	var b bytes.Buffer
	whose := strings.Join(slices.DeleteFunc([]string{cmp.Or(done.Account, "your account"), done.Region}, func(s string) bool { return s == "" }), ", ")
	fmt.Fprintf(&b, "Connected to %s; token valid for %v.\n", whose, formatMinutes(done.Lifetime))
	for _, note := range done.Notes {
		fmt.Fprintf(&b, "  %s\n", note)
	}
	fmt.Fprintf(&b, "Stored %s.\n", done.Stored)
	if done.Next != "" {
		fmt.Fprintf(&b, "Next: %s\n", done.Next)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func formatMinutes(d time.Duration) string {
	if d < 2*time.Minute {
		return d.String()
	}
	return fmt.Sprintf("%d minutes", int(d.Round(time.Minute).Minutes()))
}

// Connections lists the stored connections.
func (p Env) Connections() error {
	book, err := newBook(p.Environ)
	if err != nil {
		return err
	}
	all, err := book.List()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(p.Stdout, "No connection is stored. To store one, run: mimecast-proxy connect")
		return err
	}
	w := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILE\tACCOUNT\tCLIENT ID\tREGION\tSTORE\tTESTED")
	for _, c := range all {
		fmt.Fprintln(w, strings.Join([]string{c.Profile, cmp.Or(c.Account, "unknown"), c.IDStart + "…",
			cmp.Or(c.Region, hostOf(c.BaseURL)), string(c.Store), c.Tested.UTC().Format("2006-01-02 15:04 UTC")}, "\t"))
	}
	return w.Flush()
}

func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	return u.Host
}

// Disconnect removes a stored connection; without a name the one that serve would use.
func (p Env) Disconnect(ctx context.Context, profile string) error {
	book, err := newBook(p.Environ)
	if err != nil {
		return err
	}
	profile = p.profile(profile)
	err = book.Remove(ctx, profile)
	if errors.Is(err, connection.ErrNotFound) {
		return usageError("no connection is stored as profile %q: run mimecast-proxy connections", profile)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "Removed the connection %s from this machine. Mimecast still accepts its secret:\nto revoke it, delete the application in the Administration Console.\n", profile)
	return err
}
