package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestProgress(t *testing.T) {
	var plain, terminal bytes.Buffer
	long := strings.Repeat("x", 100)
	newProgress(&plain).show(func() string { return long })()
	if plain.String() != long+"\n" {
		t.Errorf("plain progress is %q", plain.String())
	}
	stop := progress{w: &terminal, terminal: true}.show(func() string { return "half" })
	stop()
	if want := "\rhalf" + strings.Repeat(" ", 74) + "\n"; !strings.HasSuffix(terminal.String(), want) {
		t.Errorf("progress on a terminal is %q, want %q at its end", terminal.String(), want)
	}
}
