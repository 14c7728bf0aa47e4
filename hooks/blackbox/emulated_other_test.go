//go:build !linux

package blackbox

func emulated() bool { return false }
