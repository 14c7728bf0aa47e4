//go:build !unix && !windows

package blockalloc

import "errors"

func applyOption(int, []byte, string) error { return errors.ErrUnsupported }
