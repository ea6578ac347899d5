package app

import (
	"errors"
	"os"

	"mimecast-proxy/config"
	"mimecast-proxy/guard"
)

// configure parses the environment. Routes are for the guard to parse, and its errors
// are reported along with all others.
func configure(environ []string) (config.Config, error) {
	cfg, err := config.Parse(withMemoryLimit(environ, os.DirFS("/")))
	if _, routeErr := guard.ParseRoutes(cfg.Allow); routeErr != nil {
		faults, ok := errors.AsType[*config.Error](err)
		if !ok {
			faults = &config.Error{}
		}
		faults.Errors = append(faults.Errors, config.VariableError{Variable: "PROXY_ALLOW", Found: routeErr.Error(), Accepted: "patterns such as GET /siem/, and presets"})
		return cfg, faults
	}
	return cfg, err
}
