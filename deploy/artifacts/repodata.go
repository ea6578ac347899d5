package artifacts

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"strings"

	"github.com/sassoftware/go-rpmutils"
)

const rpmRoot = "repositories/rpm/"

// The parts of an RPM repository's metadata that dnf needs. Names and order are
// createrepo's.
type (
	primary struct {
		XMLName  xml.Name     `xml:"http://linux.duke.edu/metadata/common metadata"`
		RPM      string       `xml:"xmlns:rpm,attr"`
		Count    int          `xml:"packages,attr"`
		Packages []rpmPackage `xml:"package"`
	}
	rpmPackage struct {
		Type        string       `xml:"type,attr"`
		Name        string       `xml:"name"`
		Arch        string       `xml:"arch"`
		Version     rpmVersion   `xml:"version"`
		Checksum    rpmChecksum  `xml:"checksum"`
		Summary     string       `xml:"summary"`
		Description string       `xml:"description"`
		Packager    string       `xml:"packager"`
		URL         string       `xml:"url"`
		Time        rpmTime      `xml:"time"`
		Size        rpmSize      `xml:"size"`
		Location    rpmLocation  `xml:"location"`
		License     string       `xml:"format>rpm:license"`
		BuildHost   string       `xml:"format>rpm:buildhost"`
		Header      rpmRange     `xml:"format>rpm:header-range"`
		Provides    *rpmRelation `xml:"format>rpm:provides"`
		Requires    *rpmRelation `xml:"format>rpm:requires"`
		Conflicts   *rpmRelation `xml:"format>rpm:conflicts"`
		Obsoletes   *rpmRelation `xml:"format>rpm:obsoletes"`
		Recommends  *rpmRelation `xml:"format>rpm:recommends"`
		Files       []string     `xml:"format>file"`
	}
	rpmVersion struct {
		Epoch   string `xml:"epoch,attr"`
		Version string `xml:"ver,attr"`
		Release string `xml:"rel,attr"`
	}
	rpmChecksum struct {
		Type string `xml:"type,attr"`
		ID   string `xml:"pkgid,attr,omitempty"`
		Sum  string `xml:",chardata"`
	}
	rpmTime struct {
		File  int64 `xml:"file,attr"`
		Build int64 `xml:"build,attr"`
	}
	rpmSize struct {
		Package   int   `xml:"package,attr"`
		Installed int64 `xml:"installed,attr"`
		Archive   int64 `xml:"archive,attr"`
	}
	rpmLocation struct {
		Href string `xml:"href,attr"`
	}
	rpmRange struct {
		Start int `xml:"start,attr"`
		End   int `xml:"end,attr"`
	}
	rpmRelation struct {
		Entries []rpmEntry `xml:"rpm:entry"`
	}
	rpmEntry struct {
		Name    string `xml:"name,attr"`
		Flags   string `xml:"flags,attr,omitempty"`
		Epoch   string `xml:"epoch,attr,omitempty"`
		Version string `xml:"ver,attr,omitempty"`
		Release string `xml:"rel,attr,omitempty"`
	}
	filelists struct {
		XMLName  xml.Name   `xml:"http://linux.duke.edu/metadata/filelists filelists"`
		Count    int        `xml:"packages,attr"`
		Packages []fileList `xml:"package"`
	}
	fileList struct {
		ID      string     `xml:"pkgid,attr"`
		Name    string     `xml:"name,attr"`
		Arch    string     `xml:"arch,attr"`
		Version rpmVersion `xml:"version"`
		Files   []string   `xml:"file"`
	}
	repomd struct {
		XMLName  xml.Name   `xml:"http://linux.duke.edu/metadata/repo repomd"`
		Revision int64      `xml:"revision"`
		Data     []repoData `xml:"data"`
	}
	repoData struct {
		Type     string      `xml:"type,attr"`
		Checksum rpmChecksum `xml:"checksum"`
		Open     rpmChecksum `xml:"open-checksum"`
		Location rpmLocation `xml:"location"`
		Time     int64       `xml:"timestamp"`
		Size     int         `xml:"size"`
		OpenSize int         `xml:"open-size"`
	}
)

// buildRPM makes an RPM repository. Its signed list has the digest of each index, and each
// index has its packages' digests. So packages need no signatures.
func (r *release) buildRPM() error {
	first := primary{RPM: "http://linux.duke.edu/metadata/rpm"}
	lists := filelists{}
	for _, p := range r.packages {
		if p.format != "rpm" {
			continue
		}
		content, err := r.copyPackage(p.name, rpmRoot)
		if err != nil {
			return err
		}
		one, list, err := r.describeRPM(p.name, content)
		if err != nil {
			return err
		}
		first.Packages, lists.Packages = append(first.Packages, one), append(lists.Packages, list)
	}
	first.Count, lists.Count = len(first.Packages), len(lists.Packages)
	top := repomd{Revision: r.time.Unix()}
	for _, index := range []struct {
		name    string
		content any
	}{{"primary", first}, {"filelists", lists}} {
		data, err := r.writeRepoData(index.name, index.content)
		if err != nil {
			return err
		}
		top.Data = append(top.Data, data)
	}
	text, err := asXML(top)
	if err != nil {
		return err
	}
	if err := r.write(rpmRoot+"repodata/repomd.xml", text); err != nil {
		return err
	}
	signature, err := r.detached(text)
	if err != nil {
		return err
	}
	return r.write(rpmRoot+"repodata/repomd.xml.asc", signature)
}

func (r *release) writeRepoData(name string, content any) (repoData, error) {
	text, err := asXML(content)
	if err != nil {
		return repoData{}, err
	}
	packed, err := compress(text)
	if err != nil {
		return repoData{}, err
	}
	file := "repodata/" + name + ".xml.gz"
	return repoData{
		Type: name, Checksum: rpmChecksum{Type: "sha256", Sum: hexSum(packed)}, Open: rpmChecksum{Type: "sha256", Sum: hexSum(text)},
		Location: rpmLocation{file}, Time: r.time.Unix(), Size: len(packed), OpenSize: len(text),
	}, r.write(rpmRoot+file, packed)
}

func asXML(content any) ([]byte, error) {
	text, err := xml.MarshalIndent(content, "", " ")
	return []byte(xml.Header + string(text) + "\n"), err
}

func (r *release) describeRPM(name string, content []byte) (one rpmPackage, list fileList, err error) {
	header, err := rpmutils.ReadHeader(bytes.NewReader(content))
	if err != nil {
		return one, list, err
	}
	id, err := header.GetNEVRA()
	if err != nil {
		return one, list, err
	}
	installed, err := header.InstalledSize()
	if err != nil {
		return one, list, err
	}
	payload, err := header.PayloadSize()
	if err != nil {
		return one, list, err
	}
	files, err := header.GetFiles()
	if err != nil {
		return one, list, err
	}
	version := rpmVersion{id.Epoch, id.Version, id.Release}
	span := header.GetRange()
	one = rpmPackage{
		Type: "rpm", Name: id.Name, Arch: id.Arch, Version: version,
		Checksum: rpmChecksum{Type: "sha256", ID: "YES", Sum: hexSum(content)},
		Summary:  description, Description: description, Packager: maintainer, URL: r.SourceURL,
		Time: rpmTime{r.time.Unix(), r.time.Unix()}, Size: rpmSize{len(content), installed, payload}, Location: rpmLocation{name},
		License: license, BuildHost: "localhost", Header: rpmRange{span.Start, span.End},
		Provides:   relations(header, rpmutils.PROVIDENAME, rpmutils.PROVIDEFLAGS, rpmutils.PROVIDEVERSION),
		Requires:   relations(header, rpmutils.REQUIRENAME, rpmutils.REQUIREFLAGS, rpmutils.REQUIREVERSION),
		Conflicts:  relations(header, rpmutils.CONFLICTNAME, rpmutils.CONFLICTFLAGS, rpmutils.CONFLICTVERSION),
		Obsoletes:  relations(header, rpmutils.OBSOLETENAME, rpmutils.OBSOLETEFLAGS, rpmutils.OBSOLETEVERSION),
		Recommends: relations(header, recommendName, recommendFlags, recommendVersion),
	}
	list = fileList{ID: one.Checksum.Sum, Name: id.Name, Arch: id.Arch, Version: version}
	for _, f := range files {
		list.Files = append(list.Files, f.Name())
		// Packages may require these files by path.
		if strings.HasPrefix(f.Name(), "/etc/") || strings.Contains(f.Name(), "bin/") {
			one.Files = append(one.Files, f.Name())
		}
	}
	return one, list, nil
}

// RPM tags that the library does not name.
const (
	recommendName    = 5046
	recommendVersion = 5047
	recommendFlags   = 5048
)

// relations returns a package's entries of one kind, such as provides or requires, or nil
// if it has none.
func relations(header *rpmutils.RpmHeader, names, flags, versions int) *rpmRelation {
	name, err := header.GetStrings(names)
	if err != nil || len(name) == 0 {
		return nil // a header omits empty tags
	}
	flag, err := header.GetUint32s(flags)
	if err != nil {
		return nil
	}
	version, err := header.GetStrings(versions)
	if err != nil {
		return nil
	}
	relation := &rpmRelation{}
	for i := range name {
		if strings.HasPrefix(name[i], "rpmlib(") {
			continue // a requirement on rpm itself
		}
		entry := rpmEntry{Name: name[i], Flags: comparison(flag[i])}
		if entry.Flags != "" {
			entry.Epoch, entry.Version, entry.Release = splitVersion(version[i])
		}
		relation.Entries = append(relation.Entries, entry)
	}
	if len(relation.Entries) == 0 {
		return nil
	}
	return relation
}

func comparison(flag uint32) string {
	return map[uint32]string{
		rpmutils.RPMSENSE_LESS: "LT", rpmutils.RPMSENSE_GREATER: "GT", rpmutils.RPMSENSE_EQUAL: "EQ",
		rpmutils.RPMSENSE_LESS | rpmutils.RPMSENSE_EQUAL: "LE", rpmutils.RPMSENSE_GREATER | rpmutils.RPMSENSE_EQUAL: "GE",
	}[flag&(rpmutils.RPMSENSE_LESS|rpmutils.RPMSENSE_GREATER|rpmutils.RPMSENSE_EQUAL)]
}

// splitVersion splits EPOCH:VERSION-RELEASE. The epoch defaults to 0.
func splitVersion(text string) (epoch, version, release string) {
	epoch = "0"
	if before, after, ok := strings.Cut(text, ":"); ok {
		if _, err := strconv.Atoi(before); err == nil {
			epoch, text = before, after
		}
	}
	version, release, _ = strings.Cut(text, "-")
	return epoch, version, release
}
