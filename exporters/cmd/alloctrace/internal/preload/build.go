package preload

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

//go:embed recorder
var recorder embed.FS

// Build builds the recorder, and returns the path of the library in dir. The C compiler is $CC, or else cc. A remedy is in the error
// if there is none.
func Build(ctx context.Context, dir string) (path string, err error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("%w on %s: programs that use C's malloc are recorded on Linux", errors.ErrUnsupported, runtime.GOOS)
	}
	if strings.ContainsAny(dir, " :") { // which separate the libraries of LD_PRELOAD
		return "", fmt.Errorf("the dynamic linker loads nothing of %q: set TMPDIR to a directory without spaces and colons", dir)
	}
	if err := os.CopyFS(dir, recorder); err != nil {
		return "", err
	}
	from, to := filepath.Join(dir, "recorder", "preload.c"), filepath.Join(dir, "preload.so")
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	if _, err := exec.LookPath(cc[0]); err != nil {
		return "", fmt.Errorf("there is no C compiler, which builds the recorder: install one (apt-get install gcc libc6-dev), or name it in CC: %w", err)
	}
	cc = append(cc, "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-static-libgcc", "-fexceptions", "-Wl,--wrap=_dl_find_object", "-o", to, from)
	if said, err := exec.CommandContext(ctx, cc[0], cc[1:]...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not build the recorder (does it have the headers, as of libc6-dev?): %w: %s", cc[0], err, strings.TrimSpace(string(said)))
	}
	return to, nil
}

// Options are what a program records.
type Options struct {
	MaxBytes int64 // of a file, 0 for no limit; further events are lost
	Frames   int   // how many calls of a stack, 64 at most
	Parent   int   // record the child of this process alone; 0 is all
}

// Environ returns env with what has programs load the library and write to dir.
func (o Options) Environ(env []string, library, dir string) []string {
	load := library
	var rest []string
	for _, v := range env {
		if others, ok := strings.CutPrefix(v, "LD_PRELOAD="); ok && others != "" {
			load += ":" + others
		} else if !ok {
			rest = append(rest, v)
		}
	}
	return append(rest, "LD_PRELOAD="+load, fmt.Sprintf("ALLOCTRACE_PRELOAD=%d %d %d %s", o.MaxBytes, o.Frames, o.Parent, dir))
}
