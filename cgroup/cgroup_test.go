package cgroup_test

import (
	"os"
	"testing"
	"testing/fstest"

	"mimecast-proxy/cgroup"
)

const (
	v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	v1 = "36 30 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n35 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	// none is what version 1 reports for "no limit".
	none = "9223372036854771712\n"
)

func TestMemoryLimit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing there":      {nil, 0},
		"not a number":       {map[string]string{"proc/self/cgroup": "junk", "proc/self/mountinfo": "junk\n" + v2, "sys/fs/cgroup/memory.max": "junk"}, 0},
		"v2 in a container":  {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "134217728\n"}, 128 << 20},
		"v2 without a limit": {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"v2 below a slice": {map[string]string{"proc/self/cgroup": "0::/system.slice/x.service\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/system.slice/x.service/memory.max": "268435456\n", "sys/fs/cgroup/system.slice/memory.max": "max\n"}, 256 << 20},
		"v2 with a smaller limit around it": {map[string]string{"proc/self/cgroup": "0::/a/b/c\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/a/b/c/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.max": "300\n", "sys/fs/cgroup/a/memory.max": "200\n"}, 200},
		"v2, another group's limit": {map[string]string{"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/b/memory.max": "1\n"}, 0},
		"v1 in a container that knows its outer name": {map[string]string{"proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
			"proc/self/mountinfo":                        "36 30 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n"}, 64 << 20},
		"v1 nested": {map[string]string{"proc/self/cgroup": "5:memory:/a/b\n", "proc/self/mountinfo": v1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": none, "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "400\n", "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": none}, 400},
		"v1 without a limit": {map[string]string{"proc/self/cgroup": "5:memory:/\n", "proc/self/mountinfo": v1, "sys/fs/cgroup/memory/memory.limit_in_bytes": none}, 0},
		"both, with memory in v1": {map[string]string{"proc/self/cgroup": "5:memory:/a\n0::/a\n", "proc/self/mountinfo": "42 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" + v1,
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "500\n"}, 500},
		"a mount with a space, and one that was replaced": {map[string]string{"proc/self/cgroup": "0::/../../a\n", "proc/self/mountinfo": `30 23 0:26 /x /my\040groups rw - cgroup2 none rw` + "\n", "my groups/memory.max": "600"}, 600},
	} {
		root := fstest.MapFS{}
		for path, content := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := cgroup.MemoryLimit(root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestThisMachinesLimitIsPlausible(t *testing.T) {
	if n := cgroup.MemoryLimit(os.DirFS("/")); n < 0 || n > 0 && n < 1<<20 {
		t.Errorf("%d bytes", n)
	}
}
