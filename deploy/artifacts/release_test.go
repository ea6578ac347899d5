package artifacts

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

const (
	version = "0.1.0-rc.1"
	builder = "https://example.com/builder"
	source  = "https://example.com/mimecast-proxy"
)

// built is a release of the last commit, built twice: unsigned in one directory, signed in
// another.
type built struct {
	unsigned, signed string // the two dist directories
	source           string // of the signed build
	registry         string
	host             *host
	revision         string
	public           []byte // verifies the signatures
	packageKey       *openpgp.Entity
	errUnsigned      error // the verification error before there were signatures
	err              error
}

// host is a registry that can serve altered blobs.
type host struct {
	http.Handler
	mu    sync.Mutex
	alter string // the digest of the blob to alter
}

func (h *host) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h.mu.Lock()
	alter := h.alter
	h.mu.Unlock()
	if alter != "" && req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/blobs/"+alter) {
		_, _ = io.WriteString(w, "altered")
		return
	}
	h.Handler.ServeHTTP(w, req)
}

var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "artifacts")
	if err != nil {
		log.Fatal(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var build = sync.OnceValue(func() *built {
	b := &built{unsigned: scratch + "/dist-a", signed: scratch + "/dist-b", source: scratch + "/longer/b"}
	b.host = &host{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))}
	b.registry = strings.TrimPrefix(httptest.NewServer(b.host).URL, "http://") + "/team"
	b.err = b.make()
	return b
})

func (b *built) make() error {
	for _, dir := range []string{scratch + "/a", b.source} {
		if out, err := exec.Command("git", "clone", "-q", "../..", dir).CombinedOutput(); err != nil {
			return &fs.PathError{Op: string(out), Path: dir, Err: err}
		}
	}
	revision, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return err
	}
	b.revision = strings.TrimSpace(string(revision))
	o, err := b.options()
	if err != nil {
		return err
	}
	plain := o
	plain.Source, plain.Dist, plain.Signer, plain.PackageKey = scratch+"/a", b.unsigned, nil, nil
	if err := Build(context.Background(), plain); err != nil {
		return err
	}
	v, err := TrustKey(b.public)
	if err != nil {
		return err
	}
	v.Out = io.Discard
	b.errUnsigned = v.Reference(context.Background(), b.registry+"/"+program+":"+version)
	return Build(context.Background(), o)
}

func (b *built) options() (Options, error) {
	password := cryptoutils.StaticPasswordFunc([]byte("correct horse"))
	private, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), password)
	if err != nil {
		return Options{}, err
	}
	b.public = public
	signer, err := NewKeySigner(private, []byte("correct horse"))
	if err != nil {
		return Options{}, err
	}
	if b.packageKey, err = openpgp.NewEntity("Releases", "", "releases@example.com", nil); err != nil {
		return Options{}, err
	}
	// Not every machine has the files that the image takes from Debian.
	roots, license := scratch+"/roots.pem", scratch+"/copyright"
	for _, file := range []string{roots, license} {
		if err := os.WriteFile(file, []byte(file[len(scratch):]), 0o600); err != nil {
			return Options{}, err
		}
	}
	return Options{
		Source: b.source, Dist: b.signed, Version: version, Registry: b.registry, DownloadURL: source + "/releases/download/v" + version,
		SourceURL: source, Builder: builder, Signer: signer, PackageKey: b.packageKey, CARoots: roots, CALicense: license,
		Targets: []Target{{"linux", "amd64", false}, {"windows", "amd64", false}, {"darwin", "arm64", false}, {"linux", "amd64", true}},
		Log:     io.Discard,
	}, nil
}

func releaseOf(t *testing.T) *built {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a release")
	}
	b := build()
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestReleaseIsTheSameInAnotherDirectory(t *testing.T) {
	b := releaseOf(t)
	compared := 0
	err := filepath.WalkDir(b.unsigned, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(b.unsigned, path)
		if err != nil || d.IsDir() || name == "oci/index.json" { // it lists the signatures
			return err
		}
		compared++
		if !bytes.Equal(read(t, path), read(t, b.signed, name)) {
			t.Errorf("%s differs", name)
		}
		return nil
	})
	// 4 archives and SBOMs, 2 debs and RPMs, 2 manifests, the chart, the formula, 3 winget
	// files, the checksums and the layout.
	if err != nil || compared < 25 {
		t.Errorf("%v, %d files", err, compared)
	}
}

func TestSumsAreThoseOfEveryFile(t *testing.T) {
	b := releaseOf(t)
	cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", sums)
	cmd.Dir = b.signed
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	text := string(read(t, b.signed, sums))
	for _, file := range []string{
		"mimecast-proxy_0.1.0-rc.1_linux_amd64.tar.gz", "mimecast-proxy_0.1.0-rc.1_windows_amd64.zip",
		"mimecast-proxy_0.1.0-rc.1_darwin_arm64.tar.gz", "mimecast-proxy-fips_0.1.0-rc.1_linux_amd64.tar.gz",
		"mimecast-proxy-0.1.0-rc.1.tgz", "mimecast-proxy-gateway.yaml", "mimecast-proxy-image.yaml", "mimecast-proxy.rb",
		"mimecast-proxy_0.1.0-rc.1_linux_amd64.cdx.json", "MimecastProxy.MimecastProxy.installer.yaml",
	} {
		if !strings.Contains(text, "  "+file+"\n") {
			t.Errorf("%s is not in\n%s", file, text)
		}
	}
}

func TestTargetsAreRead(t *testing.T) {
	for text, want := range map[string]Target{"linux/amd64": {"linux", "amd64", false}, "linux/arm64/fips": {"linux", "arm64", true}} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "linux", "plan9/amd64", "linux/386", "linux/amd64/x"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestReleaseNeedsACleanCheckoutAndAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	write := func(path string) string {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "first")
	o := Options{Source: dir, Dist: t.TempDir(), Log: io.Discard}
	refused := func(want string) {
		t.Helper()
		if err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	refused("no tag")
	o.Version = "latest"
	refused("not like 0.1.0")
	o.Version = "0.1.0"
	mine := write(filepath.Join(o.Dist, "thesis"))
	refused("is not empty")
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	write(filepath.Join(dir, "change"))
	refused("has changes")
}
