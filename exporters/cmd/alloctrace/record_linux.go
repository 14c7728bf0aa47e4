package main

import (
	"os"
	"syscall"
)

// maxResident returns how many bytes of a process that has ended were in memory at most, 0 if that is not known.
func maxResident(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return int64(u.Maxrss) << 10
	}
	return 0
}
