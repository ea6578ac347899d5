package artifacts

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// member is a file in an archive or an image layer.
type member struct {
	name    string
	mode    int64
	content []byte
}

// archived are patterns of the files that are packed with the binary.
var archived = []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/*", "deploy/systemd/*", "deploy/launchd/*"}

func (r *release) buildArchives(context.Context) error {
	common, err := r.archiveMembers()
	if err != nil {
		return err
	}
	for _, b := range r.binaries {
		content, err := os.ReadFile(b.path)
		if err != nil {
			return err
		}
		members := append([]member{{b.executable(), 0o755, content}}, common...)
		pack, extension := packTar, ".tar.gz"
		if b.OS == "windows" {
			pack, extension = packZip, ".zip"
		}
		archive, err := pack(members, r.time)
		if err != nil {
			return err
		}
		if err := r.write(r.label(b.Target)+extension, archive); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) archiveMembers() ([]member, error) {
	var members []member
	for _, pattern := range archived {
		found, err := filesLike(r.Source, pattern)
		if err != nil {
			return nil, err
		}
		members = append(members, found...)
	}
	for _, pattern := range []string{notices, "completions/*"} {
		found, err := filesLike(r.made(), pattern)
		if err != nil {
			return nil, err
		}
		members = append(members, found...)
	}
	return members, nil
}

// filesLike reads the files under root that match a pattern. It skips directories.
func filesLike(root, pattern string) ([]member, error) {
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		return nil, err
	}
	var members []member
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			continue
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return nil, err
		}
		members = append(members, member{filepath.ToSlash(name), 0o644, content})
	}
	if len(members) == 0 {
		return nil, &os.PathError{Op: "glob", Path: pattern, Err: os.ErrNotExist}
	}
	return members, nil
}

// packTar returns a .tar.gz. The same arguments give the same bytes.
func packTar(members []member, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := writeTar(z, members, at); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeTar(w io.Writer, members []member, at time.Time) error {
	t := tar.NewWriter(w)
	for _, m := range members {
		header := &tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.content)), ModTime: at, Format: tar.FormatPAX}
		if strings.HasSuffix(m.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if _, err := t.Write(m.content); err != nil {
			return err
		}
	}
	return t.Close()
}

func packZip(members []member, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		header := &zip.FileHeader{Name: m.name, Method: zip.Deflate, Modified: at}
		header.SetMode(os.FileMode(m.mode))
		w, err := z.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(m.content); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// withDirectories adds the files' parent directories, as COPY in a Dockerfile does.
func withDirectories(members []member) []member {
	var all []member
	seen := map[string]bool{".": true}
	for _, m := range members {
		var missing []member
		for dir := path.Dir(m.name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			missing = append(missing, member{name: dir + "/", mode: 0o755})
		}
		slices.Reverse(missing)
		all = append(append(all, missing...), m)
	}
	return all
}
