// Package cgroup finds the memory limit of the control group that the process
// runs in, such as a container's.
package cgroup

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// unlimited is the smallest value that means no limit, in bytes. Version 1 has the
// largest number of pages then.
const unlimited = math.MaxInt64 / 4

// MemoryLimit returns the smallest memory limit of the process's control group and its
// ancestors, in bytes. It returns 0 if there is no limit or it cannot be read. It
// supports versions 1 and 2 (cgroups(7)). root is the root of the file system:
// os.DirFS("/").
func MemoryLimit(root fs.FS) int64 {
	ownGroups := read(root, "proc/self/cgroup")
	limit := int64(unlimited)
	for line := range strings.Lines(read(root, "proc/self/mountinfo")) {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		for dir := range m.ancestors(groupPath(ownGroups, m.version1)) {
			if n, err := strconv.ParseInt(strings.TrimSpace(read(root, path.Join(dir, m.limitFile()))), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
		}
	}
	if limit == unlimited {
		return 0
	}
	return limit
}

func read(root fs.FS, name string) string {
	content, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return string(content)
}

// mount is a mounted control group hierarchy with the memory controller.
type mount struct {
	version1 bool
	// root is the control group at the mount point. dir is the mount point without its
	// leading slash.
	root, dir string
}

// parseMount parses a line of /proc/self/mountinfo (proc(5)). It reports false for
// other mounts.
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return mount{}, false
	}
	m := mount{root: unescape(left[3]), dir: strings.TrimPrefix(unescape(left[4]), "/")}
	switch right[0] {
	case "cgroup2":
		return m, true
	case "cgroup":
		m.version1 = true
		return m, hasItem(right[2], "memory")
	}
	return mount{}, false
}

// unescape decodes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func hasItem(list, item string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == item {
			return true
		}
	}
	return false
}

// groupPath returns the process's control group in the hierarchy of that version
// (cgroups(7)). It returns "/" if there is none.
func groupPath(own string, version1 bool) string {
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 {
			continue
		}
		if version1 && hasItem(parts[1], "memory") || !version1 && parts[0] == "0" && parts[1] == "" {
			return parts[2]
		}
	}
	return "/"
}

func (m mount) limitFile() string {
	if m.version1 {
		return "memory.limit_in_bytes"
	}
	return "memory.max"
}

// ancestors yields the directories of a group and its ancestors, up to the mount point.
// In a container, the group may have its name on the host. Then the mounted group is
// the container's.
func (m mount) ancestors(own string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		rest, ok := strings.CutPrefix(own, strings.TrimSuffix(m.root, "/"))
		if !ok || strings.Contains(rest, "..") {
			rest = "/"
		}
		for dir := path.Clean("/" + rest); ; dir = path.Dir(dir) {
			if !yield(path.Join(m.dir, dir)) || dir == "/" {
				return
			}
		}
	}
}
