//go:build !race

package zlog_test

const raceEnabled = false
