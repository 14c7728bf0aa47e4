package memlimit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// rootDir is the file system below a directory. Unlike [os.DirFS] it opens files whose
// names are not UTF-8, as those of cgroups need not be.
type rootDir string

func (r rootDir) Open(name string) (fs.File, error) { return os.Open(string(r) + "/" + name) }

// unlimited is what a limit of version 1 is at least where there is none: the largest
// number of pages that a long has, or bytes if it has 64 bits.
func unlimited() uint64 {
	if bits.UintSize == 32 {
		return math.MaxInt32 << 12
	}
	return math.MaxInt64 &^ (1<<20 - 1)
}

// cgroupLimit returns the lowest memory limit of the process's cgroup and those around
// it, in bytes, and the file that says so. Where there is none the limit is
// [math.MaxInt64]. root is the root of the file system.
//
// Of version 2 those are memory.max and memory.high, of version 1 memory.limit_in_bytes
// and, for the cgroups around a container that cannot be seen from inside,
// hierarchical_memory_limit in memory.stat. If both versions are mounted, both count.
// A mount counts if the process's cgroup is in it and nothing is mounted on top.
func cgroupLimit(root fs.FS) (limit int64, file string, err error) {
	limit = math.MaxInt64
	member, err := memberships(root)
	if err != nil || len(member) == 0 {
		return limit, "", err
	}
	mountinfo, err := readFile(root, "proc/self/mountinfo")
	if err != nil {
		return limit, "", err
	}
	table := parseMounts(string(mountinfo))
	for i, m := range table.mounts {
		version := m.version()
		own, ok := member[version]
		if !ok || !table.visible(i) {
			continue
		}
		dir, ok := m.find(root, own)
		if !ok {
			continue
		}
		for _, name := range limitFiles(m.point, dir, version) {
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

// version returns 0 if m is no mount of a hierarchy with memory limits.
func (m *mount) version() int {
	switch {
	case m.kind == "cgroup2":
		return 2
	case m.kind == "cgroup" && hasWord(m.options, "memory"):
		return 1
	}
	return 0
}

// find returns the directory of the cgroup own below m's point. It is false if own is not in
// what is mounted.
//
// Both own and m.root are as seen from the process's cgroup namespace: a path from its root,
// which begins with /.. for each cgroup that has to be left first. A mount from further above
// has directories between it and that root whose names are not known. The one that the
// process is in has its number. If none can be found, the mount's own directory is returned.
func (m *mount) find(root fs.FS, own string) (dir string, ok bool) {
	top, up := splitUp(m.root)
	below, ownUp := splitUp(own)
	switch {
	case up == ownUp:
		below, ok = strings.CutPrefix(below+"/", strings.TrimSuffix(top, "/")+"/")
		return path.Clean("/" + below), ok
	case up < ownUp || top != "/":
		return "", false // a cgroup of others
	}
	if stat, err := readFile(root, "proc/self/stat"); err == nil {
		process, _, _ := strings.Cut(string(stat), " ")
		if dir, ok := search(root, m.point[1:], "/", up-ownUp, below, process); ok {
			return dir, true
		}
	}
	return "/", true
}

// splitUp returns what follows the leading /.. of a cgroup's path, and how many those are.
func splitUp(cgroup string) (rest string, up int) {
	rest = cgroup
	for rest == "/.." || strings.HasPrefix(rest, "/../") {
		rest = rest[len("/.."):]
		up++
	}
	return path.Clean("/" + rest), up
}

// search returns that of the directories so much deeper than dir which has the process in its
// part below.
func search(root fs.FS, point, dir string, deeper int, below, process string) (string, bool) {
	if deeper == 0 {
		dir = path.Join(dir, below)
		procs, err := readFile(root, path.Join(point, dir, "cgroup.procs"))
		return dir, err == nil && process != "" && strings.Contains("\n"+string(procs), "\n"+process+"\n")
	}
	entries, _ := fs.ReadDir(root, path.Join(point, dir)) // what cannot be read is not it
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if found, ok := search(root, point, path.Join(dir, e.Name()), deeper-1, below, process); ok {
			return found, true
		}
	}
	return "", false
}

// limitFiles returns the files that may limit the cgroup dir and those around it up to the
// mount point, without the leading slash.
func limitFiles(point, dir string, version int) (names []string) {
	add := func(dir, name string) { names = append(names, path.Join(point, dir, name)[1:]) }
	for d := dir; ; d = path.Dir(d) {
		if version == 1 {
			add(d, "memory.limit_in_bytes")
		} else {
			add(d, "memory.max")
			add(d, "memory.high")
		}
		if d == "/" {
			break
		}
	}
	if version == 1 {
		add(dir, "memory.stat")
	}
	return names
}

// readLimit returns [math.MaxInt64] if the file is not there or has no limit.
func readLimit(root fs.FS, name string) (int64, error) {
	text, err := readFile(root, name)
	if text == nil || err != nil {
		return math.MaxInt64, err
	}
	value := strings.TrimSpace(string(text))
	if path.Base(name) == "memory.stat" {
		var found bool
		if _, value, found = strings.Cut("\n"+value, "\nhierarchical_memory_limit "); !found {
			return math.MaxInt64, nil
		}
		value, _, _ = strings.Cut(value, "\n")
	}
	if value == "max" || value == "-1" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseUint(value, 10, 64) // the largest number if value is larger
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("/%s says %q, want bytes or max: set Options.Budget", name, value)
	case n >= unlimited():
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
