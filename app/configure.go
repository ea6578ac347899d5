package app

import (
	"errors"
	"os"
	"slices"
	"strings"

	"mimecast-proxy/config"
	"mimecast-proxy/guard"
)

// configure parses the environment. The guard parses routes, so configure adds the guard's
// errors to the configuration's.
func (p Env) configure(environ []string) (config.Config, error) {
	cfg, err := config.Parse(withMemoryLimit(environ, os.DirFS("/")), newProfiles(environ))
	faults, failed := errors.AsType[*config.Error](err)
	if wrong := routeErrors(cfg); len(wrong) > 0 {
		if !failed {
			faults = &config.Error{}
		}
		faults.Errors = append(faults.Errors, wrong...)
		return cfg, faults
	}
	if failed && p.Terminal && lacksCredentials(environ) {
		const connect = "to enter the credentials once and store them, run: mimecast-proxy connect"
		if faults.Errors = slices.DeleteFunc(faults.Errors, isMissingCredential); len(faults.Errors) == 0 {
			return cfg, &ExitError{ExitUsage, errors.New("no credentials are set or stored; " + connect)}
		}
		faults.Warnings = append(faults.Warnings, connect)
	}
	return cfg, err
}

// routeErrors returns the errors in the routes of a configuration.
func routeErrors(cfg config.Config) []config.VariableError {
	const accepted = "patterns such as GET /siem/, and presets"
	var wrong []config.VariableError
	if _, err := guard.ParseRoutes(cfg.Allow); err != nil {
		wrong = append(wrong, config.VariableError{Variable: "PROXY_ALLOW", Found: err.Error(), Accepted: accepted})
	}
	if cfg.Clients.IsZero() {
		return wrong
	}
	for _, c := range cfg.Clients.Current().Clients {
		if _, err := guard.ParseRoutes(c.Allow); err != nil {
			found := cfg.Clients.Position(c.AllowLine) + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
			wrong = append(wrong, config.VariableError{Variable: "PROXY_CLIENTS_FILE", Found: found, Accepted: accepted})
		}
	}
	return wrong
}

// credentialVariables are the variables with the default account's credentials.
var credentialVariables = []string{"MIMECAST_CLIENT_ID", "MIMECAST_CLIENT_ID_FILE", "MIMECAST_CLIENT_SECRET", "MIMECAST_CLIENT_SECRET_FILE"}

// lacksCredentials reports whether no variable sets credentials or selects a stored connection.
func lacksCredentials(environ []string) bool {
	return !slices.ContainsFunc(append([]string{"MIMECAST_PROFILE"}, credentialVariables...), func(name string) bool { return lookup(environ, name) != "" })
}

func isMissingCredential(e config.VariableError) bool {
	return slices.Contains(credentialVariables, e.Variable)
}
