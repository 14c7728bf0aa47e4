package rss

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A mapping is one of the process.
type mapping struct {
	start, end uintptr
	rss        int64 // bytes; 0 if only maps was read
	writable   bool
	inode      bool // it is of a file
	name       string
}

// readMappings reads a file of the form of /proc/self/maps or /proc/self/smaps. The names
// in it cannot have a newline, which the kernel escapes.
func readMappings(path string) ([]mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var maps []mapping
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) > 0 && line[0] >= 'A' && line[0] <= 'Z' { // smaps: a figure of the mapping above
			if rest, ok := bytes.CutPrefix(line, []byte("Rss:")); ok && len(maps) > 0 {
				kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(rest, []byte("kB")))), 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s has the line %q: want kB", path, line)
				}
				maps[len(maps)-1].rss = kib << 10
			}
			continue
		}
		m, err := parseMapping(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s has the line %q: %w", path, line, err)
		}
		maps = append(maps, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return maps, nil
}

// parseMapping reads a line such as
//
//	7f0f30c00000-7f0f34c00000 rw-p 00000000 00:00 0                          [heap]
//
// The name, which may have spaces in it, is the rest after five fields.
func parseMapping(line string) (mapping, error) {
	var fields [5]string
	rest := line
	for i := range fields {
		var ok bool
		fields[i], rest, ok = strings.Cut(rest, " ")
		if !ok && i < len(fields)-1 {
			return mapping{}, fmt.Errorf("want %d fields", len(fields))
		}
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, err
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, err
	}
	return mapping{
		start: uintptr(start), end: uintptr(end), writable: strings.HasPrefix(fields[1], "rw"),
		inode: fields[4] != "0", name: strings.TrimLeft(rest, " "),
	}, nil
}

// isFile reports whether the memory is a file's: not if the file is nothing but memory.
func (m *mapping) isFile() bool {
	if m.name == "[vdso]" || m.name == "[vvar]" || m.name == "[vvar_vclock]" || m.name == "[vsyscall]" {
		return true
	}
	if !m.inode {
		return false
	}
	for _, memory := range []string{"/dev/zero", "/memfd:", "/SYSV", "/dev/shm/"} {
		if strings.HasPrefix(m.name, memory) {
			return false
		}
	}
	return true
}

// isProgram reports whether the mapping holds the variables of the program that its file
// has no bytes for, right after those that it has. The program is what is mapped at the
// lowest addresses of all files.
func (m *mapping) isProgram(below []mapping) bool {
	if m.name != "" || len(below) == 0 {
		return false
	}
	last := below[len(below)-1]
	if last.end != m.start || !last.inode {
		return false
	}
	for _, b := range below {
		if b.inode {
			return b.name == last.name
		}
	}
	return false
}
