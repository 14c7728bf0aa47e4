//go:build unix && !linux && !freebsd

package blockalloc

import "errors"

func noDump([]byte) error { return errors.ErrUnsupported }
