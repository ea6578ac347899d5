package config

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing that is wrong with one variable.
type Fault struct {
	Variable string
	// Problem says what was found, and never a secret's value.
	Problem string
	// Accepted says what would be right; it may be empty.
	Accepted string
}

// String is one line for the operator.
func (f Fault) String() string {
	if f.Accepted == "" {
		return f.Variable + ": " + f.Problem
	}
	return f.Variable + ": " + f.Problem + "; accepted: " + f.Accepted
}

// Error is a configuration that cannot be used, with all that is wrong with it.
type Error struct{ Faults []Fault }

// Error returns a line a fault.
func (e *Error) Error() string {
	lines := []string{"the configuration cannot be used:"}
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.String())
	}
	return strings.Join(append(lines, "See mimecast-proxy help for every variable."), "\n")
}

// judge collects the faults of one environment.
type judge struct {
	environ map[string]string // without empty values
	vars    variables
	faults  []Fault
}

func newJudge(environ []string) *judge {
	j := &judge{environ: map[string]string{}}
	for _, v := range environ {
		if name, value, ok := strings.Cut(v, "="); ok && value != "" {
			j.environ[name] = value
		}
	}
	vars, err := decode(j.environ)
	if err != nil { // every field is a string, so this says that the struct is wrong
		panic(err)
	}
	j.vars = vars
	return j
}

func (j *judge) error() error {
	if len(j.faults) == 0 {
		return nil
	}
	order := Variables()
	position := func(f Fault) int {
		return slices.IndexFunc(order, func(v Variable) bool { return v.Name == strings.TrimSuffix(f.Variable, "_FILE") })
	}
	slices.SortStableFunc(j.faults, func(a, b Fault) int { return cmp.Compare(position(a), position(b)) })
	return &Error{j.faults}
}

// fault notes what is wrong with a variable that is not a secret.
func (j *judge) fault(name, format string, args ...any) {
	j.faults = append(j.faults, Fault{name, fmt.Sprintf(format, args...), accepted(name)})
}

// say notes a fault that says itself what to do.
func (j *judge) say(name, format string, args ...any) {
	j.faults = append(j.faults, Fault{Variable: name, Problem: fmt.Sprintf(format, args...)})
}

func (j *judge) either(names ...string) string {
	for _, name := range names {
		if v := j.environ[name]; v != "" {
			return v
		}
	}
	return ""
}

func (j *judge) choice(name, value string) string {
	value = strings.ToLower(value)
	choices := strings.Split(strings.ReplaceAll(accepted(name), " or ", ", "), ", ")
	if !slices.Contains(choices, value) {
		j.fault(name, "%q is not one of them", value)
	}
	return value
}

func (j *judge) boolean(name, value string) bool {
	b, err := strconv.ParseBool(value)
	if err != nil {
		j.fault(name, "%q is neither", value)
	}
	return b
}

func (j *judge) duration(name, value string, least time.Duration) time.Duration {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		j.fault(name, "%q is not a duration", value)
	case d < least:
		j.fault(name, "%v is too short; at least %v", d, least)
	}
	return d
}

func (j *judge) number(name, value string) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		j.fault(name, "%q is not", value)
	}
	return n
}

func (j *judge) mode(name, value string) fs.FileMode {
	n, err := strconv.ParseUint(value, 8, 32)
	if err != nil || n < 0o600 || n > 0o777 {
		j.fault(name, "%q is not", value)
	}
	return fs.FileMode(n)
}

func (j *judge) size(name, value string) int64 {
	n, err := parseSize(value)
	if err != nil {
		j.fault(name, "%q is not a size", value)
	}
	return n
}

// parseSize reads a number of bytes, with a binary unit or none, as GOMEMLIMIT
// is written too.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BKMGTi")
	shift, ok := map[string]int{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}

// memory settles what kept bodies may take: a process with a memory limit must
// have room for the rest.
func (j *judge) memory(cfg *Config) {
	if v := j.vars.ReplayMemory; v != "" {
		cfg.ReplayMemory = j.size("PROXY_REPLAY_MEMORY", v)
	} else {
		cfg.ReplayMemory = 64 << 20
		if limit, err := parseSize(j.environ["GOMEMLIMIT"]); err == nil && limit > 0 {
			cfg.ReplayMemory = min(cfg.ReplayMemory, limit/2)
		}
	}
	if len(j.faults) == 0 && cfg.ReplayLimit > cfg.ReplayMemory {
		cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("PROXY_REPLAY_LIMIT is more than the %d bytes of PROXY_REPLAY_MEMORY: larger bodies are sent without a retry", cfg.ReplayMemory))
	}
}

func (j *judge) pem(name, path string) []byte {
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		j.fault(name, "cannot be read: %v", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		j.fault(name, "%s has no certificate in it", path)
	}
	return pem
}

func (j *judge) hosts(name, value string) []string {
	names := list(value)
	for i, h := range names {
		bare := strings.Trim(h, "[]")
		u, err := url.Parse("http://" + h)
		if h != "*" && !strings.Contains(bare, "::") && (err != nil || u.Host != h || u.Port() != "" || strings.ContainsAny(h, " @*:")) {
			j.fault(name, "%q is not a bare host name", h)
		}
		names[i] = bare
	}
	return names
}

func (j *judge) origins(name, value string) []string {
	origins := list(value)
	for i, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != o {
			j.fault(name, "%q is not an origin; each must be named, since whoever is let in acts with the account", o)
		}
		origins[i] = strings.ToLower(o)
	}
	return origins
}
