package tracer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// TestStackText: whatever functions and files are named, the attribute is valid UTF-8 and bounded, and
// the innermost calls are in it.
func TestStackText(t *testing.T) {
	var frames []heapprofile.Frame
	for _, ugly := range texttest.Table() {
		frames = append(frames, heapprofile.Frame{Function: ugly.Text, File: ugly.Text, Line: 7})
	}
	for len(frames) < 32 {
		frames = append(frames, frames...)
	}
	for n := range frames {
		if s := stackText(frames[:n]); !utf8.ValidString(s) || len(s) > text.MaxText {
			t.Errorf("of %d frames: %d bytes, valid: %t", n, len(s), utf8.ValidString(s))
		}
	}
	first := heapprofile.Frame{Function: "main.load", File: "/src/main.go", Line: 7}
	if s := stackText(append([]heapprofile.Frame{first}, frames...)); !strings.HasPrefix(s, "main.load\n\t/src/main.go:7\n") {
		t.Errorf("%.80q", s)
	}
}
