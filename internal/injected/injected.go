// Package injected has the error of failures that are injected: package blockalloc/failing makes
// them, and blockalloc names their type, which knows no package above it.
package injected

import "errors"

// Err is failing.ErrInjected.
var Err = errors.New("injected failure")
