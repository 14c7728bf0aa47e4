package memlimit

import (
	"slices"
	"strconv"
	"strings"
)

// A mount is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mount struct {
	id, parent string // parent is "" if the line of the mount around it is not there, as in a chroot
	root       string // the directory of the file system that is at point
	point      string
	kind       string // of the file system
	options    string // of its super block
}

// A mountTable is what mountinfo says, in its order.
type mountTable struct {
	mounts []mount
	at     map[place]int // the last mount that is there
}

// A place is a directory in which something is mounted.
type place struct{ parent, point string }

// parseMounts leaves out lines that are no mounts.
func parseMounts(mountinfo string) mountTable {
	var mounts []mount
	ids := make(map[string]bool)
	for line := range strings.Lines(mountinfo) {
		if m, ok := parseMount(strings.TrimSuffix(line, "\n")); ok {
			mounts = append(mounts, m)
			ids[m.id] = true
		}
	}
	for i := range mounts {
		if m := &mounts[i]; !ids[m.parent] || m.parent == m.id {
			m.parent = ""
		}
	}
	at := make(map[place]int)
	for i, m := range mounts {
		at[place{m.parent, m.point}] = i
	}
	return mountTable{mounts, at}
}

// parseMount takes a line apart at each space, for the source may be empty:
//
//	36 35 98:0 /root /point rw,noatime optional:1 … - kind source options
func parseMount(line string) (m mount, ok bool) {
	f := strings.Split(line, " ")
	if len(f) < 6 {
		return m, false
	}
	dash := slices.Index(f[6:], "-")
	if dash < 0 || len(f) < 6+dash+4 || !strings.HasPrefix(f[4], "/") {
		return m, false
	}
	g := f[6+dash:]
	return mount{f[0], f[1], unescape(f[3]), unescape(f[4]), unescape(g[1]), g[3]}, true
}

// unescape replaces \040 by a space, and so each byte that the kernel writes as a backslash
// and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = after
		if len(s) >= 3 {
			if n, err := strconv.ParseUint(s[:3], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[3:]
				continue
			}
		}
		b.WriteByte('\\')
	}
}

// visible reports whether mount i is found at its point: one on top of it, or of a directory
// around it, hides it. Which mount is on which the parents say. The order of the lines does
// not, for the root is often mounted after what is below it. It counts only where the parent
// is not listed.
func (t mountTable) visible(i int) bool {
	point := t.mounts[i].point
	reached, parent := -1, "" // by way of the directories from / to the point
	for end := 1; end <= len(point); end++ {
		if end > 1 && end < len(point) && point[end] != '/' {
			continue
		}
		next, ok := t.at[place{parent, point[:end]}]
		if !ok {
			next, ok = t.at[place{"", point[:end]}]
			ok = ok && next > reached
		}
		for range t.mounts { // as many as may be on top of each other
			if !ok {
				break
			}
			reached, parent = next, t.mounts[next].id
			next, ok = t.at[place{parent, point[:end]}]
		}
	}
	return reached == i
}
