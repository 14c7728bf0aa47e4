package blocktest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestConforms: the suite finds nothing wrong with allocators that have no
// defect, of each kind that Config knows.
func TestConforms(t *testing.T) {
	for name, c := range map[string]blocktest.Config{
		"Heap":   {New: func(testing.TB) blockalloc.Allocator { return new(blockalloc.Heap) }, MaxSize: 16 << 20, Zeroed: true},
		"Stack":  stackConfig(""),
		"Slots":  slotsConfig(""),
		"Relay":  relayConfig(""),
		"Frames": framesConfig(""),
	} {
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

// TestTinyAllocator runs the suite with the least that Config allows.
func TestTinyAllocator(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New:     func(testing.TB) blockalloc.Allocator { return new(blockalloc.Heap) },
		MaxSize: 2,
		MaxLive: 2,
		Zeroed:  true,
	})
}

func FuzzSlots(f *testing.F) { blocktest.Fuzz(f, slotsConfig(os.Getenv(defectVariable))) }

func FuzzStack(f *testing.F) { blocktest.Fuzz(f, stackConfig(os.Getenv(defectVariable))) }

func FuzzFrames(f *testing.F) { blocktest.Fuzz(f, framesConfig(os.Getenv(defectVariable))) }

// TestFuzzFindsDefects: the fuzz target finds them too, most often with its seeds
// alone.
func TestFuzzFindsDefects(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	for _, c := range []struct{ target, defect string }{
		{"FuzzSlots", "interior"}, {"FuzzSlots", "loses the block"}, {"FuzzSlots", "keeps its memory"},
		{"FuzzStack", "shrinks too far"}, {"FuzzStack", "constructor leaks"},
		{"FuzzFrames", "pop forgets a block"}, {"FuzzFrames", "count stops"},
	} {
		t.Run(c.target+"/"+c.defect, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^"+c.target+"$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), defectVariable+"="+c.defect)
			out, err := cmd.CombinedOutput()
			if want := "--- FAIL: " + c.target + " "; err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "This is what comes of") {
				t.Errorf("the target passes (%v), want %q:\n%s", err, want, out)
			}
		})
	}
}
