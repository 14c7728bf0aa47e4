package measure

import (
	"fmt"
	"os"
	"testing"
)

// Virtual returns the size of the process's address space in bytes.
func Virtual(t *testing.T) int64 {
	t.Helper()
	virtual, _ := statm(t)
	return virtual
}

// Resident returns how many bytes of the process are in memory, as the kernel sums them up.
func Resident(t *testing.T) int64 {
	t.Helper()
	_, resident := statm(t)
	return resident
}

func statm(t *testing.T) (virtual, resident int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(data), &virtual, &resident); err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	return virtual * page, resident * page
}
