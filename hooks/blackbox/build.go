package blackbox

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/alloctrace/alloctrace/internal/text"
)

// thisBuild returns what this program is.
func thisBuild() Build {
	b := Build{Go: runtime.Version(), Settings: map[string]string{"GOOS": runtime.GOOS, "GOARCH": runtime.GOARCH}}
	if path, err := os.Executable(); err == nil {
		b.Executable = text.Name(path)
		if runtime.GOOS == "linux" { // a new build may have taken its place since the process began
			path = "/proc/self/exe"
		}
		b.ID = buildID(path)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Package, b.Module, b.Version = text.Name(info.Path), text.Name(info.Main.Path), text.Name(info.Main.Version)
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision", "vcs.time", "vcs.modified":
				b.Settings[s.Key] = text.Name(s.Value)
			}
		}
	}
	return b
}

// buildID returns the build ID that the go command has put into a program, "" if it is not where it mostly is.
func buildID(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	begin, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	return buildIDIn(begin)
}

// buildIDIn finds the build ID in the beginning of a program: in an ELF note of type 4 of the name "Go", or where the
// text begins, as cmd/internal/buildid does.
func buildIDIn(program []byte) string {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		note := make([]byte, 8, 12)
		order.PutUint32(note[4:], 4)
		note = append(note[4:], "Go\x00\x00"...)
		if at := bytes.Index(program, note); at >= 8 && order.Uint32(program[at-8:]) == 4 {
			rest := program[at+len(note):]
			if n := order.Uint32(program[at-4:]); uint64(n) <= uint64(len(rest)) {
				return text.Name(string(rest[:n]))
			}
		}
	}
	_, rest, found := bytes.Cut(program, []byte("\xff Go build ID: "))
	quoted, _, ended := bytes.Cut(rest, []byte("\n \xff"))
	if !found || !ended {
		return ""
	}
	id, err := strconv.Unquote(string(quoted))
	if err != nil {
		return ""
	}
	return text.Name(id)
}
