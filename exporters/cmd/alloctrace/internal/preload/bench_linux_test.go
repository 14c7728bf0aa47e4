package preload

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints by how much a recorded pair of malloc and free takes longer, without stacks and with stacks of 16 calls. It is the median
// of runs in turns, of 200,000 pairs each.
func BenchmarkTable(b *testing.B) {
	program, library := build(b)
	variants := []struct {
		name     string
		recorded bool
		frames   int
	}{{"alone", false, 0}, {"stackless", true, 0}, {"stacks", true, 16}}
	took := make([][]float64, len(variants))
	for b.Loop() {
		for range 11 {
			for i, v := range variants {
				cmd := exec.Command(program, "pairs")
				if v.recorded {
					cmd.Env = Options{Frames: v.frames}.Environ(os.Environ(), library, b.TempDir())
				}
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
				if err != nil {
					b.Fatal(err)
				}
				took[i] = append(took[i], ns)
			}
		}
	}
	median := func(list []float64) float64 {
		slices.Sort(list)
		return list[len(list)/2]
	}
	fmt.Println()
	alone := median(took[0])
	measure.Row(os.Stdout, b, "malloc_alone", alone, "ns", measure.NoBound)
	for i, v := range variants[1:] {
		measure.Row(os.Stdout, b, "malloc_recorded_"+v.name, median(took[i+1])-alone, "ns more", measure.NoBound)
	}
}
