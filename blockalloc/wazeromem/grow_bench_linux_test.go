package wazeromem_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkGrowth has a guest grow to 1 GiB, or a fifth of the memory that is available, by single pages, and fill each. It is
// measured beside a guest that has as much from the start, and beside wazero's own memory, which append grows. The rows
// are of wall time, of the process's CPU time, which the garbage collector is part of, and of the most that was resident.
func BenchmarkGrowth(b *testing.B) {
	pages := min(1<<30, available(b)/5) / page
	r := newRuntime(b, wazero.NewRuntimeConfig(), nil)
	grows, full := compile(b, r, guest{}), compile(b, r, guest{min: uint32(pages)})
	mem := alloctrace.Wrap(blockalloc.NewLimit(wazeromem.Default(), 1<<30), alloctrace.WithName("guests"))
	guests := wazeromem.New(mem, wazeromem.Options{Limit: 1 << 30})
	fill := func(module api.Module, function string) error {
		_, err := module.ExportedFunction(function).Call(b.Context(), uint64(pages))
		return err
	}
	ours := func(compiled wazero.CompiledModule, function string) error {
		g, err := guests.Instantiate(b.Context(), "guest", instantiation(r, compiled, anonymous()))
		if err != nil {
			return err
		}
		defer closeGuest(b, g)
		return g.Do(b.Context(), func(module api.Module) error { return fill(module, function) })
	}
	own := func(compiled wazero.CompiledModule, function string) error {
		module, err := r.InstantiateModule(b.Context(), compiled, anonymous())
		if err != nil {
			return err
		}
		defer module.Close(b.Context())
		return fill(module, function)
	}
	var subjects []measure.Subject
	for _, s := range []struct {
		name     string
		run      func(compiled wazero.CompiledModule, function string) error
		compiled wazero.CompiledModule
		function string
	}{
		{"reservation", ours, full, "fillPages"}, {"wazeromem", ours, grows, "fillGrowing"},
		{"wazero_reservation", own, full, "fillPages"}, {"wazero", own, grows, "fillGrowing"},
	} {
		subjects = append(subjects, measure.Subject{Name: s.name, Turn: 1, Run: func(int) {
			if err := s.run(s.compiled, s.function); err != nil {
				b.Fatalf("%s: %v", s.name, err)
			}
		}})
	}
	for b.Loop() {
		times := measure.Run(9, subjects[:2]) // alone: what wazero's own memory leaves to the garbage collector costs who comes next
		all := measure.Run(3, subjects)
		costs := make(map[string]cost)
		for _, s := range subjects {
			costs[s.Name] = costOf(b, func() { s.Run(1) })
		}
		row := func(name string, value float64, unit string, bound float64) {
			measure.Row(os.Stdout, b, "guest_growth_"+name, value, unit, bound)
		}
		row("size", float64(pages)*page/(1<<20), "MiB", measure.NoBound)
		row("reservation", times.Median("reservation")/1e6, "ms", measure.NoBound)
		row("wazeromem", times.Ratio("wazeromem", "reservation"), "x", 1.10)
		for _, name := range []string{"wazero_reservation", "wazero"} {
			row(name, all.Ratio(name, "reservation"), "x", measure.NoBound)
		}
		for _, s := range subjects {
			row(s.Name+"_cpu", costs[s.Name].cpu.Seconds()*1e3, "ms", measure.NoBound)
			row(s.Name+"_rss", costs[s.Name].resident/(1<<20), "MiB", measure.NoBound)
		}
	}
	if err := mem.Close(); err != nil {
		b.Error(err)
	}
}

type cost struct {
	cpu      time.Duration
	resident float64 // bytes
}

// costOf returns the medians of what f costs the process in three runs: its CPU time, and by how much more was resident at most.
func costOf(b *testing.B, f func()) cost {
	var cpu []time.Duration
	var resident []float64
	for range 3 {
		debug.FreeOSMemory()
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the highest is what is resident now
			b.Logf("what was resident at most is not known: %v", err)
		}
		before, highest := cpuTime(b), statusBytes(b, "/proc/self/status", "VmRSS")
		f()
		cpu = append(cpu, cpuTime(b)-before)
		resident = append(resident, statusBytes(b, "/proc/self/status", "VmHWM")-highest)
	}
	slices.Sort(cpu)
	slices.Sort(resident)
	return cost{cpu[1], resident[1]}
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// available returns how many bytes the machine says it can give, or the container if that is less.
func available(b *testing.B) int {
	n := statusBytes(b, "/proc/meminfo", "MemAvailable")
	if data, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseFloat(string(bytes.TrimSpace(data)), 64); err == nil {
			n = min(n, limit)
		}
	}
	return int(n)
}

// statusBytes returns the line of a file of /proc that is in kB.
func statusBytes(b *testing.B, path, key string) float64 {
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(fmt.Sprintf(`(?m)^%s:\s+(\d+) kB$`, key)).FindSubmatch(data)
	if m == nil {
		b.Fatalf("%s has no %s", path, key)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n * 1024
}
