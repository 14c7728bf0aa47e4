package prometheus_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

// child is the variable that has this test binary be a program that cannot read its own
// pagemap, and says for want of what.
const child = "ALLOCTRACE_PROMETHEUS"

func TestMain(m *testing.M) {
	const setTHPDisable = 41 // PR_SET_THP_DISABLE: what is touched is what is resident, whatever the system's setting
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, setTHPDisable, 1, 0, 0, 0, 0)
	if want := os.Getenv(child); want != "" {
		scrapes(want)
		return
	}
	os.Exit(m.Run())
}

// takeAway takes away what is to be wanted, and returns a function that gives it back, or nil.
func takeAway(want string) (giveBack func()) {
	switch want {
	case "descriptors":
		var files []*os.File
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
			panic(err)
		}
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				break
			}
			files = append(files, f)
		}
		return func() {
			for _, f := range files {
				f.Close()
			}
		}
	case "rights":
		_ = syscall.Setuid(65534) // without effect unless this is root
		const setDumpable = 4     // PR_SET_DUMPABLE: the files of /proc/self become root's, as they do for a daemon that gives up its rights
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, setDumpable, 0, 0, 0, 0, 0)
	}
	return nil
}

// scrapes writes what a handler answers in want, of a collector from before and of a new one,
// and what it answers after it.
func scrapes(want string) {
	good := new(counter.Counter)
	good.Allocate(7, 7)
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("heap"))
	scrape := func(c *allocprom.RSSCollector, err error) {
		if err != nil {
			fmt.Println(err)
			return
		}
		r := prometheus.NewRegistry()
		r.MustRegister(c, allocprom.NewCollector(good, "good", allocprom.Options{}))
		w := httptest.NewRecorder()
		promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		fmt.Printf("status %d\n%s", w.Code, w.Body)
	}
	before, err := allocprom.NewRSSCollector(mem)
	giveBack := takeAway(want)
	if f, err := os.Open("/proc/self/pagemap"); err == nil {
		f.Close()
		fmt.Println(readable)
		return
	}
	scrape(before, err)
	fmt.Println(separator)
	scrape(allocprom.NewRSSCollector(mem))
	fmt.Println(separator)
	if giveBack != nil {
		giveBack()
		scrape(before, err)
	}
}

const separator, readable = "----", "it can be read"

// TestUnreadable: in a process that may not read its own pagemap, and in one that has no file
// descriptor left, a scrape has all but the resident memory, and how often it failed.
func TestUnreadable(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"rights", "descriptors"} {
		t.Run(want, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), child+"="+want)
			cmd.Stderr = t.Output()
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(out), readable) {
				t.Skip("this system lets a process without rights read its pagemap")
			}
			got := strings.Split(string(out), separator+"\n")
			for i, got := range got[:2] {
				if !strings.HasPrefix(got, "status 200\n") ||
					!strings.Contains(got, `allocator_memory_used_bytes{allocator_child="",allocator_name="good"} 7`) ||
					!strings.Contains(got, "\nallocator_rss_read_failures_total 1\n") ||
					strings.Contains(got, "allocator_rss_bytes") || strings.Contains(got, "allocator_memory_resident_bytes") {
					t.Errorf("scrape %d is\n%s", i, got)
				}
			}
			if got := got[2]; want == "descriptors" && (!strings.Contains(got, "\nallocator_rss_read_failures_total 1\n") || !strings.Contains(got, "\nallocator_rss_bytes{")) {
				t.Errorf("with descriptors again it is\n%s", got)
			}
		})
	}
}
