package jaegertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Version is the Go module version of the Jaeger that [Build] makes, which is
// Jaeger 2.13: the newest one that can be had as a Go module.
const Version = "v1.76.0"

var errNoBinary = errors.New(`no Jaeger here; run "make integration", which builds one, or name one in ALLOCTRACE_JAEGER`)

func binaryName() string {
	if runtime.GOOS == "windows" {
		return "jaeger.exe"
	}
	return "jaeger"
}

// cachePath returns where Build keeps the binary for this platform.
func cachePath() (string, error) {
	root := os.Getenv("ALLOCTRACE_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("jaegertest: no cache folder (%w); name one in ALLOCTRACE_CACHE", err)
		}
		root = filepath.Join(user, "alloctrace")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("jaegertest: cache folder: %w", err)
	}
	return filepath.Join(root, "jaeger-"+Version, runtime.GOOS+"-"+runtime.GOARCH, binaryName()), nil
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// find returns a binary that is already there, or errNoBinary.
func find() (string, error) {
	if path := os.Getenv("ALLOCTRACE_JAEGER"); path != "" {
		if !isFile(path) {
			return "", fmt.Errorf("jaegertest: ALLOCTRACE_JAEGER=%q: no such file; name a jaeger binary or unset it", path)
		}
		return path, nil
	}
	if path, err := exec.LookPath("jaeger"); err == nil {
		return path, nil
	}
	path, err := cachePath()
	if err != nil {
		return "", fmt.Errorf("%w (%w)", errNoBinary, err)
	}
	if !isFile(path) {
		return "", errNoBinary
	}
	return path, nil
}

// Binary returns the path of a Jaeger binary: one that is already there (see
// the package comment), else one that it builds with [Build]. progress, which
// may be nil, gets a line for each step.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	path, err := find()
	if errors.Is(err, errNoBinary) {
		return Build(ctx, progress)
	}
	return path, err
}
