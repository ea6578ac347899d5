package artifacts

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	helm "helm.sh/helm/v3/pkg/registry"
)

func contents(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	content, files := read(t, archive), map[string][]byte{}
	if strings.HasSuffix(archive, ".zip") {
		z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			files[f.Name], _ = io.ReadAll(r)
		}
		return files
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for members := tar.NewReader(z); ; {
		header, err := members.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], _ = io.ReadAll(members)
	}
}

func TestArchivesBringTheLicensesAndTheDocuments(t *testing.T) {
	b := releaseOf(t)
	for _, name := range []string{
		"mimecast-proxy_" + version + "_linux_amd64.tar.gz", "mimecast-proxy-fips_" + version + "_linux_amd64.tar.gz",
		"mimecast-proxy_" + version + "_windows_amd64.zip", "mimecast-proxy_" + version + "_darwin_arm64.tar.gz",
	} {
		files := contents(t, filepath.Join(b.signed, name))
		for file, want := range map[string]string{
			"LICENSE": "MIT License", notices: "github.com/spf13/cobra", "README.md": "Mimecast Proxy", "docs/mimecast-proxy.1": "mimecast",
			"deploy/systemd/mimecast-proxy.service": "ExecStart", "completions/mimecast-proxy.bash": "bash",
		} {
			if !strings.Contains(string(files[file]), want) {
				t.Errorf("%s: %s", name, file)
			}
		}
	}
}

// unpacked extracts the program from an archive and returns its path.
func (b *built) unpacked(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	files := contents(t, filepath.Join(b.signed, name+"_"+version+"_linux_amd64.tar.gz"))
	if err := os.WriteFile(path, files[program], 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProgramSaysItsVersionAndRevision(t *testing.T) {
	b := releaseOf(t)
	for _, name := range []string{program, program + "-fips"} {
		out, err := exec.Command(b.unpacked(t, name), "version").Output()
		if err != nil || !strings.Contains(string(out), version) || !strings.Contains(string(out), b.revision) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestVariantIsInFIPSModeAndHardlyLarger(t *testing.T) {
	b := releaseOf(t)
	plain, variant := b.unpacked(t, program), b.unpacked(t, program+"-fips")
	info, err := buildinfo.ReadFile(variant)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if !strings.HasPrefix(settings["GOFIPS140"], fipsModule) || !strings.Contains(settings["DefaultGODEBUG"], "fips140=on") {
		t.Errorf("%v", settings)
	}
	more := len(read(t, variant)) - len(read(t, plain))
	t.Logf("%d bytes more than %d", more, len(read(t, plain)))
	if more > 512<<10 {
		t.Errorf("the variant has %d bytes more", more)
	}
}

func TestHelmPullsTheChartThatNamesTheImage(t *testing.T) {
	b := releaseOf(t)
	client, err := helm.NewClient(helm.ClientOptPlainHTTP(), helm.ClientOptWriter(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := client.Pull(b.registry + "/charts/" + program + ":" + version)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pulled.Chart.Data, read(t, b.signed, program+"-"+version+".tgz")) {
		t.Error("the registry and the directory have two charts")
	}
	chart, err := loader.LoadArchive(bytes.NewReader(pulled.Chart.Data))
	if err != nil {
		t.Fatal(err)
	}
	image := chart.Values["image"].(map[string]any)
	digest := b.reference(t, program, version).DigestStr()
	tag, _ := image["tag"].(string)
	if chart.Metadata.Version != version || image["repository"] != b.registry+"/"+program || image["digest"] != digest && tag != version+"@"+digest {
		t.Errorf("%+v, %v", chart.Metadata, image)
	}
	for _, file := range []string{"mimecast-proxy-gateway.yaml", "mimecast-proxy-image.yaml"} {
		if text := string(read(t, b.signed, file)); !strings.Contains(text, digest) || strings.Contains(text, program+":0") {
			t.Errorf("%s does not name %s", file, digest)
		}
	}
}

func TestPackageHasItsFilesWithTheirModes(t *testing.T) {
	b := releaseOf(t)
	want := []string{
		"-rwxr-xr-x root/root ./usr/bin/mimecast-proxy", "drwx------ root/root ./etc/mimecast-proxy/", "-rw------- root/root ./etc/mimecast-proxy/environment",
		"-rw-r--r-- root/root ./usr/lib/systemd/system/mimecast-proxy.service", "-rw-r--r-- root/root ./usr/share/doc/mimecast-proxy/" + notices,
	}
	for _, p := range []struct {
		tool, pattern string
		args          []string
		want          []string
	}{
		{"dpkg-deb", program + "_*_amd64.deb", []string{"--contents"}, want},
		{"dpkg-deb", program + "-fips_*_amd64.deb", []string{"--field"}, []string{"Package: mimecast-proxy-fips", "Conflicts: mimecast-proxy"}},
		{"rpm", program + "-0*.rpm", []string{"-qpl"}, []string{"/usr/bin/mimecast-proxy", "/usr/share/doc/mimecast-proxy/" + notices}},
	} {
		if _, err := exec.LookPath(p.tool); err != nil {
			t.Logf("%s is not installed", p.tool)
			continue
		}
		files, err := filepath.Glob(filepath.Join(b.signed, p.pattern))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v %v", p.pattern, files, err)
		}
		out, err := exec.Command(p.tool, append(p.args, files[0])...).Output()
		if err != nil {
			t.Fatal(err)
		}
		// The size and the time are between the owner and the name.
		var lines []string
		for line := range strings.Lines(string(out)) {
			if fields := strings.Fields(line); len(fields) == 6 && strings.Contains(fields[1], "/") {
				line = fields[0] + " " + fields[1] + " " + fields[5]
			}
			lines = append(lines, strings.TrimSpace(line))
		}
		for _, line := range p.want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s: no %q in\n%s", p.pattern, line, out)
			}
		}
	}
}

// apt runs apt-get with its state in a temporary directory.
func apt(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is not installed")
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := []string{
		"-o", "Dir::State::lists=" + dir + "/lists", "-o", "Dir::Cache=" + dir + "/cache", "-o", "Dir::Etc=" + dir + "/etc",
		"-o", "Dir::State::status=/dev/null", "-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64", "-o", "APT::Sandbox::User=root",
	}
	cmd := exec.Command("apt-get", append(options, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAPTTakesTheRepositoryAndRejectsAnAlteredOne(t *testing.T) {
	b := releaseOf(t)
	for _, altered := range []bool{false, true} {
		root, dir := t.TempDir(), t.TempDir()
		if err := os.CopyFS(root, os.DirFS(filepath.Join(b.signed, "repositories"))); err != nil {
			t.Fatal(err)
		}
		if altered {
			release := filepath.Join(root, "apt/dists/stable/InRelease")
			if err := os.WriteFile(release, bytes.Replace(read(t, release), []byte("Suite: stable"), []byte("Suite: steady"), 1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		server := httptest.NewServer(http.FileServer(http.Dir(root)))
		defer server.Close()
		line := "deb [signed-by=" + root + "/" + program + ".asc] " + server.URL + "/apt stable main\n"
		if err := os.MkdirAll(dir+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/etc/sources.list", []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := apt(t, dir, "update", "--error-on=any")
		if (err != nil) != altered {
			t.Fatalf("altered: %t: %v\n%s", altered, err, out)
		}
		if altered {
			continue
		}
		if out, err := apt(t, dir, "download", program, program+"-fips"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if files, err := filepath.Glob(dir + "/*.deb"); err != nil || len(files) != 2 {
			t.Errorf("%v %v", files, err)
		}
	}
}

func TestDNFTakesTheRepositoryAndRejectsAnAlteredOne(t *testing.T) {
	b := releaseOf(t)
	if _, err := exec.LookPath("dnf"); err != nil {
		t.Skip("dnf is not installed")
	}
	for _, altered := range []bool{false, true} {
		root, dir := t.TempDir(), t.TempDir()
		if err := os.CopyFS(root, os.DirFS(filepath.Join(b.signed, "repositories"))); err != nil {
			t.Fatal(err)
		}
		if altered {
			list := filepath.Join(root, "rpm/repodata/repomd.xml")
			if err := os.WriteFile(list, append(read(t, list), '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		repo := "[ours]\nname=ours\nbaseurl=file://" + root + "/rpm\nenabled=1\nrepo_gpgcheck=1\ngpgcheck=0\ngpgkey=file://" + root + "/" + program + ".asc\n"
		if err := os.WriteFile(dir+"/ours.repo", []byte(repo), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/dnf.conf", []byte("[main]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("dnf", "-y", "--config="+dir+"/dnf.conf", "--setopt=reposdir="+dir, "--setopt=cachedir="+dir+"/cache", "--setopt=logdir="+dir,
			"--setopt=persistdir="+dir+"/persist", "--installroot="+dir+"/root", "--releasever=1", "--forcearch=x86_64",
			"repoquery", "--queryformat", "%{name} %{version} %{recommends}", program, program+"-fips").CombinedOutput()
		found := strings.Contains(string(out), "mimecast-proxy 0.1.0") && strings.Contains(string(out), "mimecast-proxy-fips 0.1.0")
		if found == altered {
			t.Errorf("altered: %t: %v\n%s", altered, err, out)
		}
	}
}
