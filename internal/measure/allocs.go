package measure

import "testing"

// WantAllocs checks how many Go heap allocations a call of f makes, as an average of 1000 calls.
func WantAllocs(t testing.TB, want float64, f func()) {
	t.Helper()
	if Race {
		t.Log("under the race detector sync.Pool drops items: nothing to measure")
		return
	}
	if got := testing.AllocsPerRun(1000, f); got != want {
		t.Errorf("%v allocations, want %v", got, want)
	}
}
