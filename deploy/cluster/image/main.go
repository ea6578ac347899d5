// Command image writes a container image that contains only the given files, as an archive
// that container runtimes can import. Tests use it on machines without a registry.
//
//	image [-user UID:GID] [-entrypoint COMMAND] NAME ARCHIVE FILE=PATH… PATH->TARGET…
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
)

func main() {
	user := flag.String("user", "0", "user and group of the process")
	entrypoint := flag.String("entrypoint", "", "the command and its arguments")
	flag.Parse()
	if flag.NArg() < 3 {
		fmt.Fprintln(os.Stderr, "image [-user UID:GID] [-entrypoint COMMAND] NAME ARCHIVE FILE=PATH… PATH->TARGET…")
		os.Exit(2)
	}
	image, err := pack(flag.Arg(0), *user, *entrypoint, flag.Args()[2:])
	if err == nil {
		err = os.WriteFile(flag.Arg(1), image, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pack returns the archive: one layer, its configuration and a manifest.
func pack(name, user, entrypoint string, contents []string) ([]byte, error) {
	layer, err := layerOf(contents)
	if err != nil {
		return nil, err
	}
	process := map[string]any{"User": user, "Env": []string{"PATH=/bin:/usr/bin"}}
	if entrypoint != "" {
		process["Entrypoint"] = strings.Fields(entrypoint)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": process,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": sum(config) + ".json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = errors.Join(
		addFile(w, sum(config)+".json", 0o644, config),
		addFile(w, "layer.tar", 0o644, layer),
		addFile(w, "manifest.json", 0o644, manifest),
		w.Close())
	return archive.Bytes(), err
}

func sum(b []byte) string {
	hash := sha256.Sum256(b)
	return hex.EncodeToString(hash[:])
}

// layerOf returns the layer, including every parent directory of its files.
func layerOf(contents []string) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	folders := map[string]bool{".": true}
	for _, c := range contents {
		add := addLink
		target, source, ok := strings.Cut(c, "->")
		if !ok {
			source, target, ok = strings.Cut(c, "=")
			add = addCopy
		}
		if !ok {
			return nil, fmt.Errorf("%q is neither FILE=PATH nor PATH->TARGET", c)
		}
		target = strings.TrimPrefix(path.Clean(target), "/")
		if err := errors.Join(addFolders(w, path.Dir(target), folders), add(w, target, source)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return layer.Bytes(), err
}

func addFolders(w *tar.Writer, folder string, known map[string]bool) error {
	if known[folder] {
		return nil
	}
	known[folder] = true
	return errors.Join(
		addFolders(w, path.Dir(folder), known),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o755}))
}

func addLink(w *tar.Writer, name, target string) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target})
}

// addCopy adds a file and keeps its mode, so that commands stay executable.
func addCopy(w *tar.Writer, name, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file) //nolint:gosec // the caller names the files
	if err != nil {
		return err
	}
	return addFile(w, name, int64(info.Mode().Perm()), text)
}

func addFile(w *tar.Writer, name string, mode int64, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}
