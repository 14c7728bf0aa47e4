//go:build !race

package blockalloc_test

const raceEnabled = false
