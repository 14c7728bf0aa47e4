package memlimit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// unlimited is what a limit of version 1 is at least where there is none: the largest
// int64, rounded down to pages.
const unlimited = math.MaxInt64 &^ (1<<20 - 1)

// cgroupLimit returns the lowest memory limit of the process's cgroup and those around
// it, in bytes, and the file that says so. Where there is none the limit is
// [math.MaxInt64]. root is the root of the file system.
//
// Of version 2 that is memory.max, of version 1 memory.limit_in_bytes and, for the
// cgroups around a container that cannot be seen from inside, hierarchical_memory_limit
// in memory.stat. If both versions are mounted, both count.
func cgroupLimit(root fs.FS) (limit int64, file string, err error) {
	limit = math.MaxInt64
	member, err := memberships(root)
	if err != nil || len(member) == 0 {
		return limit, "", err
	}
	mounts, err := readFile(root, "proc/self/mountinfo")
	if err != nil {
		return limit, "", err
	}
	for line := range strings.Lines(string(mounts)) {
		m, version := parseMount(line)
		own, ok := member[version]
		if !ok {
			continue
		}
		for _, name := range m.files(version, own) {
			switch n, e := readLimit(root, name); {
			case e != nil:
				err = e
			case n < limit:
				limit, file = n, "/"+name
			}
		}
	}
	return limit, file, err
}

// memberships returns the path of the process's memory cgroup by version.
func memberships(root fs.FS) (map[int]string, error) {
	text, err := readFile(root, "proc/self/cgroup")
	member := make(map[int]string)
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			member[2] = f[2]
		} else if hasWord(f[1], "memory") {
			member[1] = f[2]
		}
	}
	return member, err
}

// mount is a mounted cgroup hierarchy: what is at point is the cgroup root.
type mount struct{ root, point string }

// parseMount parses a line of mountinfo. The version is 0 if it is no mount of a
// hierarchy with memory limits.
func parseMount(line string) (m mount, version int) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 5 || len(g) < 3 || f[4][0] != '/' {
		return m, 0
	}
	m = mount{unescape.Replace(f[3]), unescape.Replace(f[4])}
	switch {
	case g[0] == "cgroup2":
		return m, 2
	case g[0] == "cgroup" && hasWord(g[2], "memory"):
		return m, 1
	}
	return m, 0
}

// unescape undoes what the kernel does to names in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// files returns the files that may limit the cgroup own and those around it up to the
// mount point, without the leading slash. A cgroup that is not below the mount's root,
// as seen from another namespace, is taken to be at the mount point.
func (m mount) files(version int, own string) (names []string) {
	below, ok := strings.CutPrefix(path.Clean("/"+own)+"/", strings.TrimSuffix(m.root, "/")+"/")
	if !ok || strings.HasPrefix(own, "/..") {
		below = ""
	}
	below = path.Clean("/" + below)
	add := func(dir, name string) { names = append(names, path.Join(m.point, dir, name)[1:]) }
	name := "memory.max"
	if version == 1 {
		name = "memory.limit_in_bytes"
	}
	for dir := below; dir != "/"; dir = path.Dir(dir) {
		add(dir, name)
	}
	add("/", name)
	if version == 1 {
		add(below, "memory.stat")
	}
	return names
}

// readLimit returns [math.MaxInt64] if the file is not there or has no limit.
func readLimit(root fs.FS, name string) (int64, error) {
	text, err := readFile(root, name)
	value := strings.TrimSpace(string(text))
	if path.Base(name) == "memory.stat" {
		_, value, _ = strings.Cut("\n"+value, "\nhierarchical_memory_limit ")
		value, _, _ = strings.Cut(value, "\n")
	}
	if err != nil || value == "" || value == "max" {
		return math.MaxInt64, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("/%s says %q, want bytes or max: set Options.Budget", name, value)
	case n >= unlimited:
		return math.MaxInt64, nil
	}
	return int64(n), nil
}

// readFile returns nil and no error if there is no such file.
func readFile(root fs.FS, name string) ([]byte, error) {
	text, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) { // ENODEV: the cgroup is gone
		return nil, nil
	}
	return text, err
}

func hasWord(list, word string) bool {
	return strings.Contains(","+list+",", ","+word+",")
}
