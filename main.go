// Command mimecast-proxy lets clients call the Mimecast API 2.0 without OAuth: it
// accepts plain HTTP on this machine and forwards it over TLS with a bearer token
// that it keeps fresh.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mimecast-proxy/app"
	"mimecast-proxy/config"
	"mimecast-proxy/server"
	"mimecast-proxy/telemetry"
)

func main() {
	app.HideMemory()
	code, err := server.RunSupervised(runSupervised)
	if err != nil {
		log := telemetry.NewLogWriter(os.Stderr, nil)
		fmt.Fprintln(log, "mimecast-proxy:", err)
		log.Close()
		code = app.ExitFailed
	}
	os.Exit(code)
}

// runSupervised runs the command line under a supervisor.
func runSupervised(s server.Supervisor) int {
	return run(context.Background(), os.Args[1:], app.Env{
		Environ:    os.Environ(),
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     s.Log,
		Terminal:   isTerminal(s.Log),
		Signals:    s.Signals,
		Reread:     app.RereadSignals(),
		Supervisor: s,
	})
}

// isTerminal reports whether w is a character device. That is accurate enough to choose
// the log's format.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// run executes a command line and returns the exit code. All output to stderr goes
// through one LogWriter, which never blocks the program.
func run(ctx context.Context, args []string, p app.Env) int {
	p.Redactor = new(telemetry.Redactor)
	log := telemetry.NewLogWriter(p.Stderr, p.Redactor)
	defer log.Close() // also on a panic
	p.Stderr = log
	root := commands(p)
	root.SetArgs(args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if text := errorText(err); text != "" {
		fmt.Fprintln(p.Stderr, "mimecast-proxy:", text)
	}
	return app.ExitCode(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// commands returns the root command with all subcommands.
func commands(p app.Env) *cobra.Command {
	serve := func(cmd *cobra.Command, _ []string) error { return p.Serve(cmd.Context()) }
	version := false
	root := &cobra.Command{
		Use:           "mimecast-proxy",
		Short:         "An authenticating proxy for the Mimecast API 2.0",
		Long:          "Accepts plain HTTP on this machine and forwards it to the Mimecast API 2.0 with a\nbearer token that it keeps fresh. Without a command, it runs serve.",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if version {
			return printVersion(cmd, args)
		}
		return serve(cmd, args)
	}
	// Cobra's built-in version flag needs templates.
	root.Flags().BoolVar(&version, "version", false, "print version, revision and Go version")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	usage := root.UsageFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(cmd, usage) })
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "Run the proxy until SIGINT or SIGTERM (the default)", Args: cobra.NoArgs, RunE: serve},
		demoCommand(p), simulateCommand(p), connectCommand(p),
		&cobra.Command{
			Use: "connections", Short: "List the stored connections", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return p.Connections() },
		},
		disconnectCommand(p), keygenCommand(p), runCommand(p), checkCommand(p), healthcheckCommand(p),
		&cobra.Command{
			Use: "support", Short: "Print a support bundle of the running proxy, without secrets", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return p.Support(cmd.Context()) },
		},
		&cobra.Command{
			Use: "quit", Short: "Drain and stop the running proxy", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return p.Quit(cmd.Context()) },
		},
		&cobra.Command{Use: "version", Short: "Print version, revision and Go version", Args: cobra.NoArgs, RunE: printVersion},
	)
	usageErrors(root)
	return root
}

func printVersion(cmd *cobra.Command, _ []string) error {
	version, revision, goVersion := app.Build()
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "mimecast-proxy %s, revision %s, %s\n", version, revision, goVersion)
	return err
}

func demoCommand(p app.Env) *cobra.Command {
	demo := &cobra.Command{
		Use: "demo", Short: "Run the proxy in front of an embedded simulator; needs no account", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.Demo(cmd.Context()) },
	}
	connect := &cobra.Command{Use: "connect", Short: "Try connect with the demo's credentials, then run the demo", Args: cobra.NoArgs}
	var o app.ConnectOptions
	pageFlags(connect, &o)
	connect.RunE = func(cmd *cobra.Command, _ []string) error { return p.DemoConnect(cmd.Context(), o) }
	demo.AddCommand(connect)
	return demo
}

func simulateCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "simulate", Short: "Run the Mimecast simulator alone, to try serve without an account", Args: cobra.NoArgs,
		Long: "Run the demo's Mimecast simulator until SIGINT or SIGTERM, and print the variables\nthat serve needs in another terminal. Nothing leaves this machine.",
	}
	var o app.SimulateOptions
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", app.DefaultSimulateListen, "address of the API: host:port of this machine")
	f.StringVar(&o.CAFile, "ca-out", "", "file to write the CA certificate to, for MIMECAST_CA_FILE")
	f.StringVar(&o.ClientID, "client-id", "", "client ID to accept (default the demo's)")
	f.StringVar(&o.ClientSecret, "client-secret", "", "made-up client secret to accept, never a real one (default the demo's)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.Simulate(cmd.Context(), o) }
	return cmd
}

func pageFlags(cmd *cobra.Command, o *app.ConnectOptions) {
	cmd.Flags().BoolVar(&o.Web, "web", false, "use a page in this machine's browser")
	cmd.Flags().BoolVar(&o.NoBrowser, "no-browser", false, "with --web: print the page's address, and open no browser")
}

func connectCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "connect", Short: "Enter, test and store the credentials of an account", Args: cobra.NoArgs,
		Long: "Enter region, client ID and secret. The command tests them with Mimecast and stores\nthem. The proxy uses the stored connection if no variable names credentials.\nMIMECAST_REGION, MIMECAST_BASE_URL, MIMECAST_CA_FILE and HTTPS_PROXY apply.",
	}
	var o app.ConnectOptions
	f := cmd.Flags()
	f.StringVar(&o.Profile, "profile", "", "name of the connection (default MIMECAST_PROFILE, or default)")
	f.StringVar(&o.Region, "region", "", "region of API 2.0: global, us or uk")
	f.StringVar(&o.Store, "store", "", strings.Join(app.ConnectStores, ", ")+" (default keyring, or file if there is none)")
	f.StringVar(&o.Output, "output", "", "file of the store env-file, or folder of the store systemd")
	f.StringVar(&o.Namespace, "namespace", "", "namespace of the store kubernetes")
	f.StringVar(&o.ClientIDFile, "client-id-file", "", "file with the client ID, for scripts")
	f.StringVar(&o.SecretFile, "secret-file", "", "file with the client secret, for scripts")
	f.BoolVar(&o.SecretStdin, "secret-stdin", false, "read the client secret from standard input, for scripts")
	f.BoolVar(&o.Rotate, "rotate", false, "replace the secret of a connection after testing the new one")
	f.BoolVar(&o.Products, "products", false, "list the products that the application may use")
	f.BoolVar(&o.Force, "force", false, "overwrite the file of the store env-file")
	pageFlags(cmd, &o)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.Connect(cmd.Context(), o) }
	return cmd
}

func disconnectCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "disconnect", Short: "Remove a stored connection from this machine", Args: cobra.NoArgs}
	profile := cmd.Flags().String("profile", "", "name of the connection (default MIMECAST_PROFILE, or default)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.Disconnect(cmd.Context(), *profile) }
	return cmd
}

func keygenCommand(p app.Env) *cobra.Command {
	return &cobra.Command{
		Use: "keygen NAME", Short: "Make a key for a client of PROXY_CLIENTS_FILE",
		Long: "Print a new random key on standard output, and on standard error the lines for the\nclients file, with the key's SHA-256. Redirect standard output to make a key file:\nmimecast-proxy keygen splunk > keys/splunk",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return p.Keygen(args[0]) },
	}
}

func runCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "run [flags] -- CMD ARG...", Short: "Run CMD with a proxy for it alone, and exit with its exit code",
		Long: "Start the proxy on a free loopback port, and run CMD with MIMECAST_BASE_URL and\nMIMECAST_PROXY_URL set to it. The secret is not in CMD's environment. NO_PROXY and\nno_proxy get 127.0.0.1 and localhost added.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run needs a command, as in mimecast-proxy run -- CMD ARG")
			}
			return nil
		},
	}
	interception := cmd.Flags().Bool("intercept", false, "for a CMD with a hard-coded Mimecast address: set HTTPS_PROXY, and the variables that make CMD trust the proxy's CA")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return p.Run(cmd.Context(), args, *interception) }
	cmd.Flags().SetInterspersed(false) // arguments after CMD belong to CMD
	return cmd
}

func checkCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Test configuration, DNS, TLS, credentials and one request", Args: cobra.NoArgs}
	path := cmd.Flags().String("path", app.DefaultCheckPath, "path to request with GET")
	asJSON := cmd.Flags().Bool("json", false, "report as JSON")
	account := cmd.Flags().String("account", "", "test this account only: default, or one of PROXY_CLIENTS_FILE")
	products := cmd.Flags().Bool("products", false, "call one harmless function per product, and list the products that the application may use")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.Check(cmd.Context(), app.CheckOptions{Path: *path, JSON: *asJSON, Products: *products, Account: *account})
	}
	return cmd
}

func healthcheckCommand(p app.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "healthcheck", Short: "Test whether the running proxy is ready", Args: cobra.NoArgs}
	wait := cmd.Flags().Duration("wait", 0*time.Second, "wait up to this long until the proxy is ready")
	probe := cmd.Flags().String("probe", "readiness", "what to ask: readiness, startup or liveness")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.Probe(cmd.Context(), *probe, *wait) }
	return cmd
}

// usageErrors makes invalid arguments exit with [app.ExitUsage], as an invalid
// configuration does.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError(err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

func usageError(err error) error {
	return &app.ExitError{Code: app.ExitUsage, Err: fmt.Errorf("%w; see mimecast-proxy help", err)}
}

// help prints a command's usage. For the root command, it also lists every variable.
func help(cmd *cobra.Command, usage func(*cobra.Command) error) {
	out := cmd.OutOrStdout()
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	_, err := fmt.Fprintf(out, "%s\n\n", about)
	cmd.SetOut(out)
	err = errors.Join(err, usage(cmd))
	if !cmd.HasParent() {
		_, wrote := io.WriteString(out, "\nVariables:\n\n")
		err = errors.Join(err, wrote)
		config.WriteHelp(out)
	}
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "mimecast-proxy:", err)
	}
}
