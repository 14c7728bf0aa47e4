//go:build race

package blockalloc_test

const raceEnabled = true
