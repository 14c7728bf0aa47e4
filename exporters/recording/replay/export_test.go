package replay

import (
	"testing"
	"time"
)

// Impatient has Run wait less for calls that hang.
func Impatient(t *testing.T) {
	was := patience
	patience = 200 * time.Millisecond
	t.Cleanup(func() { patience = was })
}
