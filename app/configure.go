package app

import (
	"errors"
	"os"
	"slices"

	"mimecast-proxy/config"
	"mimecast-proxy/guard"
)

// configure parses the environment. Routes are for the guard to parse, and its errors
// are reported along with all others.
func (p Env) configure(environ []string) (config.Config, error) {
	cfg, err := config.Parse(withMemoryLimit(environ, os.DirFS("/")), newProfiles(environ))
	if err == nil && !cfg.Clients.IsZero() {
		// Without this a listener would be open to all, since the guard knows no clients yet.
		return cfg, &ExitError{ExitUsage, errors.New("PROXY_CLIENTS_FILE is valid, but this build cannot apply it yet; set PROXY_API_KEY_FILE instead")}
	}
	faults, failed := errors.AsType[*config.Error](err)
	if _, routeErr := guard.ParseRoutes(cfg.Allow); routeErr != nil {
		if !failed {
			faults = &config.Error{}
		}
		faults.Errors = append(faults.Errors, config.VariableError{Variable: "PROXY_ALLOW", Found: routeErr.Error(), Accepted: "patterns such as GET /siem/, and presets"})
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

// credentialVariables name the account's credentials.
var credentialVariables = []string{"MIMECAST_CLIENT_ID", "MIMECAST_CLIENT_ID_FILE", "MIMECAST_CLIENT_SECRET", "MIMECAST_CLIENT_SECRET_FILE"}

// lacksCredentials reports whether no variable names credentials or a stored connection.
func lacksCredentials(environ []string) bool {
	return !slices.ContainsFunc(append([]string{"MIMECAST_PROFILE"}, credentialVariables...), func(name string) bool { return lookup(environ, name) != "" })
}

func isMissingCredential(e config.VariableError) bool {
	return slices.Contains(credentialVariables, e.Variable)
}
