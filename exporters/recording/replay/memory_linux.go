package replay

import (
	"fmt"
	"os"
)

// resident returns how many bytes of the process are in memory, 0 if that is not known.
func resident() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var virtual, pages int64
	if _, err := fmt.Sscan(string(data), &virtual, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
