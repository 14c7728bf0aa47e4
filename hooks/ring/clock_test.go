package ring

import (
	"strings"
	"testing"
	"time"
)

func TestClocks(t *testing.T) {
	coarse := NewCoarseClock(100 * time.Microsecond)
	var last int64
	for range 20 {
		now := coarse.Now()
		if precise := PreciseClock().Now(); now < last || now > precise+int64(time.Millisecond) {
			t.Errorf("the coarse clock shows %d, after %d; precisely it is %d", now, last, precise)
		}
		for last = now; coarse.Now() == last; time.Sleep(time.Microsecond) { // it moves on
		}
	}
	coarse.Close()
	if coarse.Close() != nil {
		t.Error("a second Close fails")
	}
	stopped := coarse.Now()
	time.Sleep(time.Millisecond)
	if coarse.Now() != stopped {
		t.Error("it runs on after Close")
	}
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "ring: NewCoarseClock(1ns): use ") {
			t.Errorf("a resolution of 1 ns panics with %q", text)
		}
	}()
	NewCoarseClock(time.Nanosecond)
}
