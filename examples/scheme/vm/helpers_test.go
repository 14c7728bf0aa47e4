package vm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// newMachine returns a Machine whose memory is checked at the end of the test, and what it writes.
func newMachine(t testing.TB, o Options) (*Machine, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	if o.Memory == nil {
		mem := alloctest.New(t, alloctest.WithStacks(alloctest.Off))
		o.Memory = func(string) blockalloc.Allocator { return mem }
	}
	if o.Out == nil {
		o.Out = out
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, out
}

// run returns what the forms of text are, and then the error, if there is one.
func run(m *Machine, text string) string {
	var all []string
	err := m.Run(strings.NewReader(text), func(s string) { all = append(all, s) })
	if err != nil {
		all = append(all, "error: "+err.Error())
	}
	return strings.Join(all, "\n")
}
