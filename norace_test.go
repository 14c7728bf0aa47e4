//go:build !race

package alloctrace_test

const raceEnabled = false
