package memlimit

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Lines of /proc/self/mountinfo, as seen on real machines.
const (
	mountV2        = "29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
	mountV2Docker  = "1187 1186 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"
	mountV2Bind    = "1187 1186 0:26 /kubepods.slice/pod1 /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"
	mountV1        = "36 26 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory\n"
	mountV1CPU     = "34 26 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct\n"
	mountV1Docker  = "672 664 0:32 /docker/0a1b /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory\n"
	mountHybrid    = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	mountEscaped   = `29 22 0:26 / /mnt/c\040g rw - cgroup2 cgroup2 rw` + "\n"
	mountOther     = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n"
	mountShort     = "22 1\n"
	unlimitedV1    = "9223372036854771712\n"
	unlimitedV1Arm = "9223372036854710272\n" // 64 KiB pages
)

func TestCgroupLimit(t *testing.T) {
	none := int64(math.MaxInt64)
	for _, c := range []struct {
		name           string
		cgroup, mounts string
		files          map[string]string
		want           int64
		file           string
	}{
		{"version 2, a container with its own namespace", "0::/\n", mountOther + mountV2Docker,
			map[string]string{"memory.max": "536870912\n"}, 512 * mib, "/sys/fs/cgroup/memory.max"},
		{"version 2, systemd", "0::/system.slice/a.service\n", mountV2,
			map[string]string{"system.slice/memory.max": "max\n", "system.slice/a.service/memory.max": "1048576\n"}, mib, "/sys/fs/cgroup/system.slice/a.service/memory.max"},
		{"version 2, a parent has less", "0::/a/b/c\n", mountV2,
			map[string]string{"a/memory.max": "2097152", "a/b/memory.max": "1048576", "a/b/c/memory.max": "max"}, mib, "/sys/fs/cgroup/a/b/memory.max"},
		{"version 2, the outermost has least", "0::/a/b\n", mountV2,
			map[string]string{"a/memory.max": "1", "a/b/memory.max": "2"}, 1, "/sys/fs/cgroup/a/memory.max"},
		{"version 2, no limit", "0::/a\n", mountV2, map[string]string{"a/memory.max": "max"}, none, ""},
		{"version 2, the limit is nothing", "0::/a\n", mountV2, map[string]string{"a/memory.max": "0"}, 0, "/sys/fs/cgroup/a/memory.max"},
		{"version 2, no memory controller", "0::/a\n", mountV2, map[string]string{"a/cgroup.procs": "1"}, none, ""},
		{"version 2, part of the hierarchy is mounted", "0::/kubepods.slice/pod1/c1\n", mountV2Bind,
			map[string]string{"memory.max": "7", "c1/memory.max": "9"}, 7, "/sys/fs/cgroup/memory.max"},
		{"version 2, the cgroup is outside of the namespace", "0::/../b\n", mountV2,
			map[string]string{"memory.max": "7", "b/memory.max": "1"}, none, ""},
		{"version 2, a name that the mount's root begins with", "0::/kubepods.slice/pod12\n", mountV2Bind,
			map[string]string{"memory.max": "7"}, none, ""},
		{"version 2, high is below max", "0::/a\n", mountV2, map[string]string{"a/memory.max": "9", "a/memory.high": "8"}, 8, "/sys/fs/cgroup/a/memory.high"},
		{"version 2, a parent's high is below", "0::/a/b\n", mountV2,
			map[string]string{"a/memory.high": "7", "a/b/memory.max": "9", "a/b/memory.high": "8"}, 7, "/sys/fs/cgroup/a/memory.high"},
		{"version 2, high is above max", "0::/a\n", mountV2, map[string]string{"a/memory.max": "8", "a/memory.high": "9"}, 8, "/sys/fs/cgroup/a/memory.max"},
		{"version 2, a number too large for 64 bits", "0::/a\n", mountV2, map[string]string{"a/memory.max": "99999999999999999999"}, none, ""},
		{"version 2, a colon and a space in names", "0::/a:b c\n", mountEscaped,
			map[string]string{"/mnt/c g/a:b c/memory.max": "7"}, 7, "/mnt/c g/a:b c/memory.max"},
		{"version 1, Docker without a namespace", "11:memory:/docker/0a1b\n3:cpu,cpuacct:/docker/0a1b\n", mountV1CPU + mountV1Docker,
			map[string]string{"memory/memory.limit_in_bytes": "536870912\n"}, 512 * mib, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		{"version 1, nested", "11:memory:/user.slice/u1\n", mountV1,
			map[string]string{"memory/memory.limit_in_bytes": unlimitedV1, "memory/user.slice/memory.limit_in_bytes": "5\n", "memory/user.slice/u1/memory.limit_in_bytes": "6\n"}, 5, "/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes"},
		{"version 1, a parent that cannot be seen has less", "11:memory:/docker/0a1b\n", mountV1Docker,
			map[string]string{"memory/memory.limit_in_bytes": unlimitedV1, "memory/memory.stat": "cache 1\nhierarchical_memory_limit 4096\nhierarchical_memsw_limit 1\n"}, 4096, "/sys/fs/cgroup/memory/memory.stat"},
		{"version 1, no limit", "11:memory:/\n", mountV1, map[string]string{"memory/memory.limit_in_bytes": unlimitedV1, "memory/memory.stat": "hierarchical_memory_limit " + unlimitedV1}, none, ""},
		{"version 1, no limit, large pages", "11:memory:/\n", mountV1, map[string]string{"memory/memory.limit_in_bytes": unlimitedV1Arm}, none, ""},
		{"version 1, no limit, old kernel", "11:memory:/\n", mountV1, map[string]string{"memory/memory.limit_in_bytes": "18446744073709551615"}, none, ""},
		{"hybrid, memory by version 1", "4:memory:/process/1\n1:cpu:/\n0::/\n", mountV1CPU + mountV1 + mountHybrid,
			map[string]string{"memory/process/1/memory.limit_in_bytes": "301989888\n"}, 288 * mib, "/sys/fs/cgroup/memory/process/1/memory.limit_in_bytes"},
		{"hybrid, memory by version 2", "1:cpu,cpuacct:/x\n0::/x\n", mountV1CPU + mountHybrid,
			map[string]string{"unified/x/memory.max": "8"}, 8, "/sys/fs/cgroup/unified/x/memory.max"},
		{"nothing mounted", "0::/\n", mountOther + mountShort, nil, none, ""},
		{"no cgroups", "", "", nil, none, ""},
		{"lines that say nothing", "x\n\n7:cpu:/\n", mountV2, nil, none, ""},
	} {
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte(c.cgroup)}, "proc/self/mountinfo": {Data: []byte(c.mounts)}}
		for name, text := range c.files {
			if !strings.HasPrefix(name, "/") {
				name = "/sys/fs/cgroup/" + name
			}
			root[name[1:]] = &fstest.MapFile{Data: []byte(text)}
		}
		got, file, err := cgroupLimit(root)
		if got != c.want || file != c.file || err != nil {
			t.Errorf("%s: %d by %q, %v; want %d by %q", c.name, got, file, err, c.want, c.file)
		}
	}
}

// TestLayouts: the files of testdata/layouts are machines and containers as they are in the
// field. Each says what the limit is and where it is from.
func TestLayouts(t *testing.T) {
	names, err := filepath.Glob("testdata/layouts/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d layouts, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			root, want := readLayout(t, name)
			limit, file, err := cgroupLimit(root)
			got := fmt.Sprintf("%d %s", limit, file)
			if limit == math.MaxInt64 && file == "" {
				got = "none"
			}
			if got != want || err != nil {
				t.Errorf("the limit is %s, %v; want %s", got, err, want)
			}
		})
	}
}

// readLayout returns the files of a layout, each of which follows on a line "-- path --", and
// what is wanted of it.
func readLayout(t testing.TB, name string) (root fstest.MapFS, want string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	root = make(fstest.MapFS)
	var file *fstest.MapFile
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\r\n", "\n")) {
		path, begins := strings.CutPrefix(line, "-- ")
		switch {
		case begins:
			file = new(fstest.MapFile)
			root[strings.TrimSuffix(path, " --\n")] = file
		case file != nil:
			file.Data = append(file.Data, line...)
		case strings.HasPrefix(line, "want "):
			want = strings.TrimSpace(line[len("want "):])
		}
	}
	if want == "" || len(root) == 0 {
		t.Fatalf("%s: want %q, %d files", name, want, len(root))
	}
	return root, want
}

// TestNoProc: without /proc, as on other systems, there is no limit and no error.
func TestNoProc(t *testing.T) {
	if n, file, err := cgroupLimit(fstest.MapFS{}); n != math.MaxInt64 || file != "" || err != nil {
		t.Errorf("%d by %q, %v", n, file, err)
	}
}

func TestBudget(t *testing.T) {
	cgroup := func(limit string) fstest.MapFS {
		return fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")}, "proc/self/mountinfo": {Data: []byte(mountV2)},
			"sys/fs/cgroup/memory.max": {Data: []byte(limit)}}
	}
	const file = "/sys/fs/cgroup/memory.max"
	for _, c := range []struct {
		name     string
		option   int64
		headroom float64
		found    int64
		limit    string
		want     int64
		from     string
		failure  string
	}{
		{"the option comes first", 5000, 0.9, 1000, "500", 5000, "Options.Budget", ""},
		{"then GOMEMLIMIT", 0, 0.9, 1000, "1001", 1000, "GOMEMLIMIT", ""},
		{"but not above the cgroup's limit", 0, 0.9, 4000, "1000", 900, file, ""},
		{"GOMEMLIMIT without a cgroup's limit", 0, 0.9, 1000, "max", 1000, "GOMEMLIMIT", ""},
		{"GOMEMLIMIT, whatever the file says", 0, 0.9, 1000, "many", 1000, "GOMEMLIMIT", ""},
		{"then the cgroup", 0, 0.9, math.MaxInt64, "1000", 900, file, ""},
		{"all of it", 0, 1, math.MaxInt64, "1000", 1000, file, ""},
		{"nothing", 0, 0.9, math.MaxInt64, "max", math.MaxInt64, "", "no budget: GOMEMLIMIT is not set and no cgroup has a limit: set one of them, or Options.Budget"},
		{"a limit of nothing", 0, 0.9, math.MaxInt64, "0", 0, "", "no budget: " + file + " is 0: raise it, or set Options.Budget"},
		{"a limit that is none", 0, 0.9, math.MaxInt64, "many", 0, "", file + ` says "many", want bytes or max: set Options.Budget`},
	} {
		got, from, err := resolve(Options{Budget: c.option, Headroom: c.headroom}, c.found, cgroup(c.limit))
		var failure string
		if err != nil {
			failure = err.Error()
		}
		if got != c.want || from != c.from || failure != c.failure {
			t.Errorf("%s: %d from %q, %q; want %d from %q, %q", c.name, got, from, failure, c.want, c.from, c.failure)
		}
		if errors.Is(err, ErrNoBudget) != strings.HasPrefix(c.failure, "no budget") {
			t.Errorf("%s: errors.Is(%v, ErrNoBudget) = %t", c.name, err, errors.Is(err, ErrNoBudget))
		}
	}
}

// FuzzCgroup: whatever the files say, a limit comes with the file that says so, and that file
// is there. The corpus begins with the layouts.
func FuzzCgroup(f *testing.F) {
	f.Add("0::/a/b\n", mountV2, "7")
	f.Add("11:memory:/docker/0a1b\n", mountV1Docker, unlimitedV1)
	f.Add("0::/..\n", mountEscaped, "max")
	names, err := filepath.Glob("testdata/layouts/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		root, want := readLayout(f, name)
		limit, _, _ := strings.Cut(want, " ")
		f.Add(string(root["proc/self/cgroup"].Data), string(root["proc/self/mountinfo"].Data), limit)
	}
	f.Fuzz(func(t *testing.T, cgroup, mounts, limit string) {
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte(cgroup)}, "proc/self/mountinfo": {Data: []byte(mounts)}, "proc/self/stat": {Data: []byte("7 (a) R")}}
		for _, dir := range []string{"", "a/", "memory/"} {
			for _, name := range []string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
				root["sys/fs/cgroup/"+dir+name] = &fstest.MapFile{Data: []byte(limit)}
			}
			root["sys/fs/cgroup/"+dir+"memory.stat"] = &fstest.MapFile{Data: []byte("hierarchical_memory_limit " + limit)}
			root["sys/fs/cgroup/"+dir+"cgroup.procs"] = &fstest.MapFile{Data: []byte("7\n")}
		}
		n, file, err := cgroupLimit(root)
		if n < 0 || (n == math.MaxInt64) != (file == "") {
			t.Errorf("%d by %q, %v", n, file, err)
		}
		if file != "" && root[file[1:]] == nil {
			t.Errorf("%d by %q, which is not there", n, file)
		}
	})
}

// FuzzMountinfo: a mount that is written as the kernel writes it is read as it was, whatever
// its strings are and whatever other lines there are.
func FuzzMountinfo(f *testing.F) {
	f.Add("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate", uint8(1), mountOther)
	f.Add("/a b", "/mnt/\t\n#\\040", "", "rw,memory", uint8(0), "x\n1 2 - 3")
	f.Fuzz(func(t *testing.T, root, point, source, options string, optional uint8, others string) {
		escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`).Replace
		want := mount{"id", "", root, "/" + point, "cgroup2", escape(options)}
		line := fmt.Sprintf("id around 0:26 %s %s rw %s- cgroup2 %s %s", escape(root), escape(want.point),
			strings.Repeat("shared:4 ", int(optional%4)), escape(source), want.options)
		all := parseMounts(others + "\n" + line + "\n" + others).mounts
		if !slices.Contains(all, want) && !strings.Contains(others, "around") {
			t.Errorf("%q is\n%q, want\n%q", line, all, want)
		}
	})
}
