package artifacts

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/blakesmith/ar"
)

// ReadPackageKey reads an armored OpenPGP private key. It needs the password only if the key
// is encrypted.
func ReadPackageKey(text, password []byte) (*openpgp.Entity, error) {
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("the package key cannot be read: %w", err)
	}
	if len(keys) != 1 || keys[0].PrivateKey == nil {
		return nil, errors.New("the package key is not one private key; export it with gpg --armor --export-secret-keys")
	}
	if keys[0].PrivateKey.Encrypted {
		if err := keys[0].DecryptPrivateKeys(password); err != nil {
			return nil, fmt.Errorf("the package key's password is wrong: %w", err)
		}
	}
	return keys[0], nil
}

// buildRepositories makes directories that a web server can serve to apt and dnf.
func (r *release) buildRepositories(context.Context) error {
	if r.PackageKey == nil {
		fmt.Fprintln(r.Log, "skipped, because no -package-key is set")
		return nil
	}
	public, err := armored(openpgp.PublicKeyType, r.PackageKey.Serialize)
	if err != nil {
		return err
	}
	if err := r.write("repositories/"+program+".asc", public); err != nil {
		return err
	}
	if err := r.buildAPT(); err != nil {
		return err
	}
	return r.buildRPM()
}

func armored(kind string, write func(io.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	if err != nil {
		return nil, err
	}
	if err := write(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return append(b.Bytes(), '\n'), nil
}

// detached returns a detached signature of a repository file.
func (r *release) detached(text []byte) ([]byte, error) {
	return armored(openpgp.SignatureType, func(w io.Writer) error {
		return openpgp.DetachSign(w, r.PackageKey, bytes.NewReader(text), &packet.Config{})
	})
}

// copyPackage copies a package into a repository and returns its content.
func (r *release) copyPackage(name, directory string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(r.Dist, name))
	if err != nil {
		return nil, err
	}
	return content, r.write(filepath.Join(directory, name), content)
}

const (
	aptRoot = "repositories/apt/"
	aptPool = "pool/main/m/mimecast-proxy/"
	aptDist = aptRoot + "dists/stable/"
)

func (r *release) buildAPT() error {
	indexes := map[string]*strings.Builder{"amd64": {}, "arm64": {}} // an architecture without packages gets an empty index
	for _, p := range r.packages {
		if p.format != "deb" {
			continue
		}
		content, err := r.copyPackage(p.name, aptRoot+aptPool)
		if err != nil {
			return err
		}
		control, err := readControl(content)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(indexes[p.info.Arch], "%s\nFilename: %s\nSize: %d\nSHA256: %s\n\n", control, aptPool+p.name, len(content), hexSum(content))
	}
	var list strings.Builder
	for _, arch := range []string{"amd64", "arm64"} {
		name := "main/binary-" + arch + "/Packages"
		plain := []byte(indexes[arch].String())
		packed, err := compress(plain)
		if err != nil {
			return err
		}
		for file, content := range map[string][]byte{name: plain, name + ".gz": packed} {
			if err := r.write(aptDist+file, content); err != nil {
				return err
			}
		}
		fmt.Fprintf(&list, " %s %d %s\n %s %d %s.gz\n", hexSum(plain), len(plain), name, hexSum(packed), len(packed), name)
	}
	return r.writeRelease(list.String())
}

// writeRelease writes and signs the list of an APT repository's indexes.
func (r *release) writeRelease(list string) error {
	text := []byte(fmt.Sprintf("Origin: %s\nLabel: %s\nSuite: stable\nCodename: stable\nDate: %s\nArchitectures: amd64 arm64\nComponents: main\nDescription: %s\nSHA256:\n%s",
		maintainer, program, r.time.Format(time.RFC1123), description, list))
	if err := r.write(aptDist+"Release", text); err != nil {
		return err
	}
	signature, err := r.detached(text)
	if err != nil {
		return err
	}
	if err := r.write(aptDist+"Release.gpg", signature); err != nil {
		return err
	}
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, r.PackageKey.PrivateKey, &packet.Config{})
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return r.write(aptDist+"InRelease", append(signed.Bytes(), '\n'))
}

// readControl returns the control file of a Debian package.
func readControl(deb []byte) (string, error) {
	for members := ar.NewReader(bytes.NewReader(deb)); ; {
		header, err := members.Next()
		if err != nil {
			return "", fmt.Errorf("no control.tar.gz: %w", err)
		}
		if strings.TrimSuffix(header.Name, "/") != "control.tar.gz" {
			continue
		}
		unpacked, err := gzip.NewReader(members)
		if err != nil {
			return "", err
		}
		for files := tar.NewReader(unpacked); ; {
			file, err := files.Next()
			if err != nil {
				return "", fmt.Errorf("no control: %w", err)
			}
			if strings.TrimPrefix(file.Name, "./") == "control" {
				text, err := io.ReadAll(files)
				return strings.TrimSpace(string(text)), err
			}
		}
	}
}

func compress(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
