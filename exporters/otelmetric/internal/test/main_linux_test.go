package test_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

// child is the variable that has this test binary be a program that may not read its own
// pagemap.
const child = "ALLOCTRACE_OTELMETRIC"

func TestMain(m *testing.M) {
	const setTHPDisable = 41 // PR_SET_THP_DISABLE: what is touched is what is resident, whatever the system's setting
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, setTHPDisable, 1, 0, 0, 0, 0)
	if os.Getenv(child) != "" {
		collections()
		return
	}
	os.Exit(m.Run())
}

// collections writes what is collected without the right to read, by a Registration of before
// and by one of after that.
func collections() {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	begin := func() {
		if _, err := otelmetric.RegisterRSS([]counter.Source{new(counter.Counter)}, otelmetric.WithMeterProvider(provider)); err != nil {
			fmt.Println(err)
		}
	}
	begin()
	if _, err := otelmetric.Register(counter.Stats{LiveBytes: 7}, otelmetric.WithName("good"), otelmetric.WithMeterProvider(provider)); err != nil {
		fmt.Println(err)
	}
	_ = syscall.Setuid(65534) // without effect unless this is root
	const setDumpable = 4     // PR_SET_DUMPABLE: the files of /proc/self become root's, as they do for a daemon that gives up its rights
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, setDumpable, 0, 0, 0, 0, 0)
	if f, err := os.Open("/proc/self/pagemap"); err == nil {
		f.Close()
		fmt.Println(readable)
		return
	}
	begin()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		fmt.Println(err)
	}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok {
			fmt.Println(m.Name, sum.DataPoints[0].Value)
		}
	}
}

const readable = "it can be read"

// TestUnreadable: a process that may not read its own pagemap has all other metrics, and
// how often it failed.
func TestUnreadable(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := string(out)
	if strings.HasPrefix(got, readable) {
		t.Skip("this system lets a process without rights read its pagemap")
	}
	if !strings.Contains(got, "allocator.memory.used 7\n") || !strings.Contains(got, "allocator.rss.read_failures 2\n") || strings.Contains(got, "allocator.rss ") {
		t.Errorf("collected is\n%s", got)
	}
}
