//go:build !linux

package preload

import (
	"errors"
	"testing"
)

// TestUnsupported: elsewhere than on Linux nothing is built.
func TestUnsupported(t *testing.T) {
	if _, err := Build(t.Context(), t.TempDir()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the error is %v", err)
	}
}
