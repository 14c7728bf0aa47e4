package hooks

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// TestUglyErrors: the Writer's lines are lines, and the text of the error is in them.
func TestUglyErrors(t *testing.T) {
	for _, ugly := range texttest.Table() {
		var out strings.Builder
		NewWriter(&out).Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed}, errors.New(ugly.Text))
		line := out.String()
		_, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " err=")
		if got, err := strconv.Unquote(quoted); err != nil || got != text.Text(ugly.Text) || strings.Count(line, "\n") != 1 || !utf8.ValidString(line) {
			t.Errorf("%s: %v: %.200q", ugly.Case, err, line)
		}
	}
}
