package preload

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Frame is a function that was called, and where in it. Without symbols, Function is "libc.so.6+0x1234", where the number is the
// address in File, as addr2line takes it. Without line numbers, File is the program or library, and Line is 0.
type Frame struct {
	Function, File string
	Line           int
}

// A snapshot is the executable files that were mapped when the event seq was the last.
type snapshot struct {
	seq  uint64
	list []mapping
}

type mapping struct {
	from, to, offset uint64
	path             string
}

// parseMapping reads a line of /proc/self/maps.
func parseMapping(line string) (m mapping, ok bool) {
	fields := strings.Fields(line)
	_, path, found := strings.Cut(line, "/")
	if len(fields) < 6 || !found {
		return m, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	for _, of := range []struct {
		text string
		to   *uint64
	}{{from, &m.from}, {to, &m.to}, {fields[2], &m.offset}} {
		n, err := strconv.ParseUint(of.text, 16, 64)
		if err != nil {
			return m, false
		}
		*of.to = n
	}
	m.path = "/" + strings.TrimSuffix(path, "\n") // with " (deleted)", if another file may be there now: of that no symbols are read
	return m, true
}

// Symbols finds what return addresses of a File are. It reads the programs and libraries that were mapped, as they are on this
// machine now, and separate debug information below /usr/lib/debug. It keeps what it has found.
type Symbols struct {
	file    *File
	after   int // so many maps are older than the event
	known   map[uint64]Frame
	modules Modules
}

// Modules are the programs and libraries that were read, by path. Several Files of the same programs share them, one after the other.
type Modules map[string]*module

// Symbols returns those of the file. It adds to modules.
func (f *File) Symbols(modules Modules) *Symbols {
	return &Symbols{file: f, known: make(map[uint64]Frame), modules: modules}
}

// Maps returns how often other files were mapped by an event. Addresses may be others' then. Events come in order.
func (s *Symbols) Maps(event uint64) int {
	for s.after < len(s.file.maps) && s.file.maps[s.after].seq <= event {
		s.after++
		clear(s.known)
	}
	return s.after
}

// Frame returns the call that returns to pc, in the stack of an event. Events come in order.
func (s *Symbols) Frame(pc, event uint64) Frame {
	s.Maps(event)
	f, ok := s.known[pc]
	if !ok {
		f = s.find(pc)
		s.known[pc] = f
	}
	return f
}

// find looks at the maps before the event, and then at those after it: a library may have been mapped since.
func (s *Symbols) find(pc uint64) Frame {
	for _, m := range s.file.maps[max(0, s.after-1):] {
		for _, at := range m.list {
			if at.from < pc && pc <= at.to { // pc is that after the call
				return s.module(at.path).frame(pc - 1 - at.from + at.offset)
			}
		}
	}
	return Frame{Function: fmt.Sprintf("%#x", pc)}
}

// A module is a program or a library.
type module struct {
	path      string
	segments  []elf.ProgHeader
	functions []function // by address
	dwarf     *dwarf.Data
	frames    map[uint64]Frame // those that were asked for, by offset
}

type function struct {
	from, to uint64
	name     string
}

func (s *Symbols) module(path string) *module {
	m := s.modules[path]
	if m == nil {
		m = &module{path: path, frames: make(map[uint64]Frame)}
		s.modules[path] = m
		if f, err := elf.Open(path); err == nil {
			m.read(f)
			f.Close()
		}
	}
	return m
}

// read reads what f and its separate debug information have. Without either there are no names.
func (m *module) read(f *elf.File) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			m.segments = append(m.segments, p.ProgHeader)
		}
	}
	m.readSymbols(f)
	if debug, err := elf.Open(debugPath(f)); err == nil {
		m.readSymbols(debug)
		debug.Close()
	}
	slices.SortStableFunc(m.functions, func(a, b function) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	for i := range m.functions {
		if of := &m.functions[i]; of.to == of.from && i+1 < len(m.functions) { // assembly: its size is not known
			of.to = m.functions[i+1].from
		}
	}
}

func (m *module) readSymbols(f *elf.File) {
	if data, err := f.DWARF(); err == nil && f.Section(".debug_line") != nil {
		m.dwarf = data
	}
	for _, symbols := range []func() ([]elf.Symbol, error){f.DynamicSymbols, f.Symbols} {
		list, err := symbols()
		if err != nil {
			continue
		}
		for _, of := range list {
			if t := elf.ST_TYPE(of.Info); (t == elf.STT_FUNC || t == elf.STT_GNU_IFUNC) && of.Section != elf.SHN_UNDEF {
				name, _, _ := strings.Cut(of.Name, "@") // its version
				m.functions = append(m.functions, function{of.Value, of.Value + of.Size, name})
			}
		}
	}
}

// debugPath returns where separate debug information is, if there is any.
func debugPath(f *elf.File) string {
	s := f.Section(".note.gnu.build-id")
	if s == nil {
		return ""
	}
	b, err := s.Data()
	if err != nil || len(b) < 18 { // its header has 12 bytes, and the name 4
		return ""
	}
	id := hex.EncodeToString(b[16:])
	return filepath.Join("/usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
}

// frame returns the function that has the byte at an offset of the file.
func (m *module) frame(offset uint64) Frame {
	f, ok := m.frames[offset]
	if !ok {
		f = m.find(offset)
		m.frames[offset] = f
	}
	return f
}

func (m *module) find(offset uint64) Frame {
	f := Frame{Function: fmt.Sprintf("%s+%#x", filepath.Base(m.path), offset+1), File: m.path}
	for _, p := range m.segments {
		if p.Off > offset || offset-p.Off >= p.Filesz {
			continue
		}
		addr := offset - p.Off + p.Vaddr
		f.Function = fmt.Sprintf("%s+%#x", filepath.Base(m.path), addr)
		i, _ := slices.BinarySearchFunc(m.functions, addr, func(of function, addr uint64) int {
			if of.from <= addr {
				return -1
			}
			return 1
		})
		if i > 0 && addr < m.functions[i-1].to {
			f.Function = m.functions[i-1].name
		}
		if file, line := m.line(addr); line > 0 {
			f.File, f.Line = file, line
		}
		break
	}
	return f
}

// line returns the line of an address, 0 if it is not known.
func (m *module) line(addr uint64) (file string, line int) {
	if m.dwarf == nil {
		return "", 0
	}
	unit, err := m.dwarf.Reader().SeekPC(addr)
	if err != nil {
		return "", 0
	}
	lines, err := m.dwarf.LineReader(unit)
	var e dwarf.LineEntry
	if err != nil || lines == nil || lines.SeekPC(addr, &e) != nil || e.File == nil {
		return "", 0
	}
	return e.File.Name, e.Line
}
