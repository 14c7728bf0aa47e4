package text_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

var errSentinel = errors.New("out of memory")

// TestError: a good error is handed on as it is; of any other the text is made good and what it wraps is found.
func TestError(t *testing.T) {
	if got := text.Error(errSentinel); got != errSentinel {
		t.Errorf("a good error became %#v", got)
	}
	for _, ugly := range texttest.Table() {
		err := fmt.Errorf("%s: %w", ugly.Text, errSentinel)
		got := text.Error(err)
		if got.Error() != text.Text(err.Error()) || !errors.Is(got, errSentinel) {
			t.Errorf("%s: %.200q", ugly.Case, got)
		}
	}
}
