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

// ConnectOptions are the flags of Connect. An empty string means that a flag is not set.
type ConnectOptions struct {
	// Profile is the name of the connection; empty: MIMECAST_PROFILE, or else
	// [config.DefaultProfile].
	Profile string
	// Region is a region of API 2.0.
	Region string
	// Store is one of ConnectStores.
	Store string
	// Output is the file for the store env-file, or the folder for the store systemd.
	Output string
	// Namespace is the namespace for the store kubernetes.
	Namespace string
	// ClientIDFile and SecretFile are files to read the values from instead of asking.
	// SecretStdin reads the secret from standard input.
	ClientIDFile, SecretFile string
	SecretStdin              bool
	// Rotate replaces the secret of a stored connection.
	Rotate bool
	// Products reports which products the application may use.
	Products bool
	// Force overwrites the file of the store env-file.
	Force bool
	// Web asks on a local web page. NoBrowser prints its address without opening it.
	Web, NoBrowser bool
}

// Connect asks for region, client ID and secret, tests them and stores them if they work.
func (p Env) Connect(ctx context.Context, o ConnectOptions) error {
	return p.connect(ctx, o, "")
}

// connect is Connect with a hint that the demo shows about what to enter.
func (p Env) connect(ctx context.Context, o ConnectOptions, hint string) error {
	surviveBrokenPipes() // so that the terminal can be restored first
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	ctx, stopWatching := p.untilHangup(ctx)
	defer stopWatching()
	if err := p.checkOptions(o); err != nil {
		return err
	}
	var c *connector
	var done connectpage.Connected
	var err error
	if o.Web || o.SecretStdin || o.SecretFile != "" {
		c, err = p.newConnector(ctx, o, hint)
		switch {
		case err != nil:
		case o.Web:
			done, err = p.connectOnPage(ctx, c, hint)
		default:
			done, err = p.connectFromFiles(ctx, c)
		}
	} else {
		c, done, err = p.connectOnTerminal(ctx, o, hint)
	}
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, errInterrupted) {
			err = fmt.Errorf("stopped: %s", c.unchanged())
		}
		return err
	}
	if _, err := p.Stdout.Write(c.manifest.Bytes()); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return c.report(p.messages(o), done)
}

// untilHangup returns a context that ends at SIGHUP, which a closed terminal sends.
func (p Env) untilHangup(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-p.Reread:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-watching }
}

// checkOptions returns an error for options that would have no effect or would show a secret.
func (p Env) checkOptions(o ConnectOptions) error {
	switch {
	case o.Web && (o.SecretStdin || o.SecretFile != "") || o.SecretStdin && o.SecretFile != "":
		return usageError("--web, --secret-stdin and --secret-file exclude each other")
	case o.SecretStdin && p.terminalInput() != nil:
		return usageError("--secret-stdin would show what you type: leave it out, or pass a file with < FILE")
	case o.Store == "kubernetes" && terminalOf(p.Stdout) != nil:
		return usageError("--store kubernetes would show the secret: pass the output to kubectl apply -f -, or to a file")
	case o.Rotate && o.Store != "" && o.Store != "keyring" && o.Store != "file":
		return usageError("--rotate replaces a stored connection: for --store %s, run connect without it", o.Store)
	case o.Rotate && o.Region != "":
		return usageError("--rotate keeps the region: for another one, run connect without it")
	case o.Output != "" && o.Store != "systemd" && o.Store != "env-file":
		return usageError("--output is for --store systemd and env-file")
	case o.Namespace != "" && o.Store != "kubernetes":
		return usageError("--namespace is for --store kubernetes")
	case o.Region != "" && !isRegion(o.Region):
		return usageError("--region %q: %s", o.Region, wrongRegion)
	}
	return nil
}

// messages returns the writer for messages to the user. The store kubernetes needs Stdout for
// its manifest.
func (p Env) messages(o ConnectOptions) io.Writer {
	if o.Store == "kubernetes" {
		return p.Stderr
	}
	return p.Stdout
}

// unchanged says that a failed connect changed nothing. c may be nil.
func (c *connector) unchanged() string {
	if c != nil && c.previous != nil {
		return "the stored connection is as it was"
	}
	return "nothing was stored"
}

// newConnector collects what is known before the user enters anything. Only the demo has a
// hint.
func (p Env) newConnector(ctx context.Context, o ConnectOptions, hint string) (*connector, error) {
	o.Profile = p.profile(o.Profile)
	if err := connection.CheckProfile(o.Profile); err != nil {
		return nil, usageError("--profile or MIMECAST_PROFILE: %w", err)
	}
	c := &connector{ConnectOptions: o, redactor: cmp.Or(p.Redactor, new(telemetry.Redactor)), lifetime: pageLifetime}
	c.environ = without(p.Environ, func(v string) bool {
		return strings.HasPrefix(v, "PROXY_") || named(append(credentialVariables, "MIMECAST_PROFILE")...)(v)
	})
	if err := c.findPrevious(p.Environ); err != nil {
		return nil, err
	}
	if err := c.chooseAddress(); err != nil {
		return nil, err
	}
	if o.Rotate {
		c.knowPrevious(ctx)
	}
	if o.ClientIDFile != "" {
		text, err := readInput(ctx, func() (io.ReadCloser, error) { return os.Open(o.ClientIDFile) })
		if err != nil {
			return nil, usageError("--client-id-file: %w", err)
		}
		c.known.ClientID, _ = connection.ParsePaste(string(text))
	}
	if err := c.chooseTarget(ctx); err != nil {
		return nil, err
	}
	if hint != "" { // the demo starts next
		c.target.where, c.target.next, c.notice = "in a folder that the demo removes when it ends. The demo starts now", "", ""
	}
	return c, nil
}

// findPrevious finds the stored connection of the profile, if any. It keeps a read error for
// later, since not every store needs the list.
func (c *connector) findPrevious(environ []string) error {
	c.book, c.bookErr = newBook(environ)
	if c.bookErr == nil {
		entry, err := c.book.Find(c.Profile)
		if err == nil {
			c.previous = &entry
		} else if !errors.Is(err, connection.ErrNotFound) {
			c.bookErr = err
		}
	}
	switch {
	case c.Rotate && c.bookErr != nil:
		return c.bookErr
	case c.Rotate && c.previous == nil:
		return usageError("no connection is stored as profile %q: run mimecast-proxy connections", c.Profile)
	}
	return nil
}

// profile returns name, or if that is empty the profile that serve would use.
func (p Env) profile(name string) string {
	return cmp.Or(name, lookup(p.Environ, "MIMECAST_PROFILE"), config.DefaultProfile)
}

func usageError(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}

// addressVariables are the variables with the API's address and certificate authorities.
var addressVariables = []string{"MIMECAST_REGION", "MIMECAST_BASE_URL", "MIMECAST_TOKEN_URL", "MIMECAST_CA_FILE"}

// chooseAddress determines the region or base URL, and validates the rest of the
// configuration. A rotation keeps the stored address.
func (c *connector) chooseAddress() error {
	if c.Rotate {
		c.environ = without(c.environ, named(addressVariables...))
		for i, value := range []string{c.previous.Region, c.previous.BaseURL, c.previous.TokenURL, c.previous.CAFile} {
			if value != "" {
				c.environ = append(c.environ, addressVariables[i]+"="+value)
			}
		}
	}
	if c.Region != "" {
		c.environ = append(without(c.environ, named("MIMECAST_REGION")), "MIMECAST_REGION="+c.Region)
	}
	c.known.Region = cmp.Or(lookup(c.environ, "MIMECAST_REGION"), "global")
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

// knowPrevious reads the client ID whose secret is to be replaced. If the store cannot be
// read, the user is asked for the client ID.
func (c *connector) knowPrevious(ctx context.Context) {
	document, err := c.book.Read(ctx, *c.previous)
	if err != nil {
		return
	}
	if creds, err := connection.ParseCredentials(document); err == nil {
		c.known.ClientID = creds.ClientID.Reveal()
	}
}

// chooseTarget selects the requested store. By default it prefers the keyring over a file.
func (c *connector) chooseTarget(ctx context.Context) (err error) {
	store := c.Store
	if store == "" && c.Rotate {
		store = string(c.previous.Store)
	}
	switch store {
	case "systemd":
		c.target, err = systemdTarget(c.ConnectOptions)
		return err
	case "kubernetes":
		c.target = kubernetesTarget(&c.manifest, c.ConnectOptions)
		return nil
	case "env-file":
		c.target, err = envFileTarget(c.ConnectOptions)
		return err
	case "", "keyring", "file":
	default:
		return usageError("--store %q is not one of %s", store, strings.Join(ConnectStores, ", "))
	}
	if c.bookErr != nil {
		return fmt.Errorf("reading the stored connections: %w", c.bookErr)
	}
	why := ""
	if store != string(connection.File) {
		err := c.book.KeyringState(ctx)
		if err == nil {
			c.useBook(connection.Keyring, "")
			return nil
		}
		if store == string(connection.Keyring) {
			return fmt.Errorf("%w; or choose --store file, a file that only you can read", err)
		}
		why = ", since the keyring cannot be used: " + err.Error()
	}
	c.useBook(connection.File, why)
	return nil
}

// useBook makes the book the target. The notice says so before the user is asked for anything.
func (c *connector) useBook(store connection.Store, why string) {
	c.target = bookTarget(c.book, store, c.ConnectOptions)
	c.notice = "It is stored in " + placeOf(store) + why + ".\n"
	if c.previous != nil && !c.Rotate {
		c.notice += "It replaces the connection to " + cmp.Or(c.previous.Account, "an account") + " in profile " + c.Profile + ".\n"
	}
}

// connectFromFiles connects with the values from files and standard input.
func (p Env) connectFromFiles(ctx context.Context, c *connector) (done connectpage.Connected, err error) {
	in := c.known
	open := func() (io.ReadCloser, error) { return io.NopCloser(p.Stdin), nil }
	if c.SecretFile != "" {
		open = func() (io.ReadCloser, error) { return os.Open(c.SecretFile) }
	}
	key, err := readInput(ctx, open)
	switch {
	case err != nil && ctx.Err() != nil:
		return done, err
	case err != nil:
		return done, usageError("reading the secret: %w", err)
	}
	in.ClientSecret = secret.New(string(key))
	if _, err := fmt.Fprint(p.messages(c.ConnectOptions), c.notice); err != nil {
		return done, err
	}
	return c.connect(ctx, in)
}

// readInput reads what open returns, at most maxLine bytes. If ctx ends first, it leaves the
// read behind: reading a pipe can block until the process ends.
func readInput(ctx context.Context, open func() (io.ReadCloser, error)) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		f, err := open()
		if err != nil {
			read <- result{nil, err}
			return
		}
		text, err := io.ReadAll(io.LimitReader(f, maxLine))
		read <- result{text, errors.Join(err, f.Close())}
	}()
	select {
	case r := <-read:
		return r.text, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// report prints the result and what to do next.
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

// Disconnect removes a stored connection. An empty profile means the one that serve would
// use.
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
