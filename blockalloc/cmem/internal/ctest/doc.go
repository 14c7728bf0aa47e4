// Package ctest is C code that allocates and frees memory by itself, for the tests of cmem: cgo must not be in test files.
package ctest
