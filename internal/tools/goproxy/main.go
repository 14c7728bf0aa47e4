// Command goproxy writes versions of modules of a git repository into a folder that the go command takes as GOPROXY,
// made as the Go module proxy makes them from tags:
//
//	go run ./goproxy -out DIR -version v0.1.0 -rev HEAD . exporters examples
//
// An argument is the folder of a module within the repository. A version that DIR already has is replaced.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	out := flag.String("out", "", "folder of the proxy, an absolute path")
	version := flag.String("version", "", "version of all modules, as v0.1.0")
	rev := flag.String("rev", "HEAD", "git revision to take the files from")
	repo := flag.String("repo", ".", "root of the git repository")
	flag.Parse()
	if !filepath.IsAbs(*out) || *version == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	root, err := filepath.Abs(*repo)
	for _, dir := range flag.Args() {
		if err == nil {
			err = add(*out, root, *rev, *version, path.Clean(dir))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "goproxy:", err)
		os.Exit(1)
	}
}

// add writes one version of the module in the folder dir of the repository root.
func add(out, root, rev, version, dir string) error {
	cmd := exec.Command("git", "-C", root, "show", rev+":./"+path.Join(dir, "go.mod"))
	cmd.Stderr = os.Stderr
	mod, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go.mod of %s at %s: %w", dir, rev, err)
	}
	m := module.Version{Path: modfile.ModulePath(mod), Version: version}
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return fmt.Errorf("module of %s: %w", dir, err)
	}
	versions := filepath.Join(out, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(versions, 0o755); err != nil {
		return err
	}
	write := func(name string, data []byte) {
		if err == nil {
			err = os.WriteFile(filepath.Join(versions, name), data, 0o644)
		}
	}
	write(version+".mod", mod)
	write(version+".info", fmt.Appendf(nil, `{"Version":%q,"Time":%q}`, version, time.Now().UTC().Format(time.RFC3339)))
	write("list", []byte(list(versions)))
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(versions, version+".zip"))
	if err != nil {
		return err
	}
	if dir == "." {
		dir = ""
	}
	if err := zip.CreateFromVCS(f, m, root, rev, dir); err != nil {
		f.Close()
		return fmt.Errorf("%v at %s: %w", m, rev, err)
	}
	return f.Close()
}

// list returns the versions that a folder has, one a line.
func list(dir string) string {
	mods, _ := filepath.Glob(filepath.Join(dir, "*.mod"))
	var b strings.Builder
	for _, mod := range mods {
		fmt.Fprintln(&b, strings.TrimSuffix(filepath.Base(mod), ".mod"))
	}
	return b.String()
}
