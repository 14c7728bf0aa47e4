package callers

import (
	"runtime"
	"strings"
	"testing"
)

func here() []uintptr {
	pcs := make([]uintptr, 32)
	return pcs[:runtime.Callers(1, pcs)]
}

func names(frames []runtime.Frame) string {
	var list []string
	for _, f := range frames {
		list = append(list, f.Function[strings.LastIndexByte(f.Function, '/')+1:])
	}
	return strings.Join(list, " ")
}

func TestFrames(t *testing.T) {
	if got, want := names(Frames(here())), "callers.here callers.TestFrames"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := Frames(nil); got != nil {
		t.Errorf("of no stack: %v", got)
	}
	pcs := here()
	if got := names(Frames(pcs[2:])); !strings.HasPrefix(got, "testing.tRunner") {
		t.Errorf("of a stack that is all Go's: %q, want all of it", got)
	}
}

func TestOurs(t *testing.T) {
	for _, c := range []struct {
		function, file string
		want           bool
	}{
		{module + ".(*Proxy).Free", "proxy.go", true},
		{module + ".TestProxy", "proxy_test.go", false},
		{module + "/blockalloc.(*Debug).Free", "debug.go", true},
		{module + "/blockalloc/typed.(*Vec[...]).Grow", "vec.go", true},
		{module + "/blockalloc/blocktest.Run", "run.go", false},
		{module + "/hooks.(*Leaks).Observe", "leaks.go", true},
		{module + "/hooks/zlog.New", "zlog.go", false},
		{module + "/alloctest.AllocsPerRun", "assert.go", true},
		{module + "/examples/quickstart.main", "main.go", false},
		{"main.main", "main.go", false},
		{"example.com/alloctrace.Wrap", "wrap.go", false},
	} {
		if got := ours(runtime.Frame{Function: c.function, File: c.file}); got != c.want {
			t.Errorf("%s in %s is ours: %t", c.function, c.file, got)
		}
	}
}
