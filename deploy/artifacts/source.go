package artifacts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// commit describes the source and the Go of a release.
type commit struct {
	revision  string
	time      time.Time
	goVersion string
	goFlags   string
}

// semantic matches versions that Helm, Debian and RPM all accept.
var semantic = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$`)

func (r *release) readSource(ctx context.Context) (err error) {
	if r.Source, err = filepath.Abs(r.Source); err != nil {
		return err
	}
	if r.Dist, err = filepath.Abs(r.Dist); err != nil {
		return err
	}
	if r.Version == "" {
		tag, err := r.run(ctx, nil, "git", "describe", "--tags", "--exact-match")
		if err != nil {
			return errors.New("the commit has no tag; create one such as v0.1.0, or set -version")
		}
		r.Version = strings.TrimPrefix(tag, "v")
	}
	if !semantic.MatchString(r.Version) {
		return fmt.Errorf("version %q is not like 0.1.0 or 0.1.0-rc.1", r.Version)
	}
	if changes, err := r.run(ctx, nil, "git", "status", "--porcelain"); err != nil {
		return err
	} else if changes != "" {
		return errors.New("the checkout has changes; commit them, so that the release can be built again from its revision")
	}
	stamp := ""
	for _, read := range []struct {
		into *string
		args []string
	}{
		{&r.revision, []string{"git", "rev-parse", "HEAD"}},
		{&stamp, []string{"git", "log", "-1", "--format=%ct"}},
		{&r.goVersion, []string{"go", "env", "GOVERSION"}},
		{&r.goFlags, []string{"go", "env", "GOFLAGS"}},
	} {
		if *read.into, err = r.run(ctx, nil, read.args[0], read.args[1:]...); err != nil {
			return err
		}
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return err
	}
	r.time = time.Unix(seconds, 0).UTC()
	return r.emptyDist()
}

// emptyDist removes an earlier release from Dist. It fails if Dist has other content.
func (r *release) emptyDist() error {
	entries, err := os.ReadDir(r.Dist)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(r.Dist, sums)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and has no %s; name another directory with -dist", r.Dist, sums)
	}
	if err := os.RemoveAll(r.Dist); err != nil {
		return err
	}
	return os.MkdirAll(r.Dist, 0o755)
}

// run runs a command in the source's root and returns its output.
func (r *release) run(ctx context.Context, environ []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.Source
	cmd.Env = append(cmd.Environ(), environ...)
	cmd.Stderr = r.Log
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
