// Command licenses writes the license texts of everything linked into the program to one
// file: Go's own and those of every module. It reads them from the module cache when a
// release or an image is built. So they always match the versions in go.mod.
//
//	go run ./deploy/licenses FILE GOOS...
//
// Run it in the root directory of the repository. It fails if a module has no license file.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: licenses FILE GOOS...")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string, systems []string) error {
	linked, err := goItself(ctx)
	if err != nil {
		return err
	}
	for _, system := range systems {
		if err := addModules(ctx, linked, system); err != nil {
			return err
		}
	}
	text, err := render(linked)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// directories maps a module's "PATH VERSION" to the directories whose licenses apply: its
// root, each linked package and that package's parents. Modules can contain packages with
// other licenses.
type directories map[string]map[string]bool

// goItself returns the directories of the standard library and the runtime.
func goItself(ctx context.Context) (directories, error) {
	out, err := goCommand(ctx, "", "env", "-json", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	var env struct{ GOROOT, GOVERSION string }
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return directories{"Go " + env.GOVERSION: {env.GOROOT: true}}, nil
}

// addModules adds the modules linked into the program on one operating system.
func addModules(ctx context.Context, linked directories, system string) error {
	out, err := goCommand(ctx, system, "list", "-deps", "-json=Dir,Module", ".")
	if err != nil {
		return err
	}
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir    string
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		name := p.Module.Path + " " + p.Module.Version
		if linked[name] == nil {
			linked[name] = map[string]bool{}
		}
		for dir := p.Dir; len(dir) >= len(p.Module.Dir); dir = filepath.Dir(dir) {
			linked[name][dir] = true
		}
	}
}

// goCommand runs the go command; system is the GOOS, or "" for this machine's.
func goCommand(ctx context.Context, system string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if system != "" {
		cmd.Env = append(cmd.Env, "GOOS="+system)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

const rule = "--------------------------------------------------------------------------------\n"

func render(linked directories) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("Mimecast Proxy contains the software below. Each part is followed by its\nlicense and notices.\n")
	for _, name := range slices.Sorted(maps.Keys(linked)) {
		dirs := slices.Sorted(maps.Keys(linked[name])) // the module's root sorts first
		files, err := licenseFiles(dirs)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(files, isLicense) {
			return nil, fmt.Errorf("%s has no license file", name)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			path, err := filepath.Rel(dirs[0], file)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "\n%s%s: %s\n%s\n%s\n", rule, name, filepath.ToSlash(path), rule, bytes.TrimSpace(text))
		}
	}
	return b.Bytes(), nil
}

// legal matches the names of files that must be distributed with a binary.
var legal = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright|notice|patents)([-._].*)?$`)

func isLicense(file string) bool {
	name := strings.ToLower(filepath.Base(file))
	return !strings.HasPrefix(name, "notice") && !strings.HasPrefix(name, "patents")
}

// licenseFiles returns the legal files in dirs, in order.
func licenseFiles(dirs []string) ([]string, error) {
	var files []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Type().IsRegular() && legal.MatchString(e.Name()) && filepath.Ext(e.Name()) != ".go" {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	return files, nil
}
