// Command cost says what a program takes on our memory beside its own: processor time, and the peak of resident memory.
//
//	cost -rounds N OWN OURS ARGUMENT...
//
// It runs two builds of a program by turns, with the same arguments, and prints of each the medians, and the medians of
// the rounds' ratios with their standard errors. It fails if one of the programs does, or if a ratio is over its bound.
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"slices"
	"syscall"
)

// The bounds of OURS over OWN.
const (
	timeBound   = 1.03
	memoryBound = 1.05
)

// A cost is processor time in seconds, and memory in MiB.
type cost struct{ time, memory float64 }

func main() {
	log.SetFlags(0)
	log.SetPrefix("cost: ")
	rounds := flag.Int("rounds", 5, "how often each program runs")
	flag.Parse()
	if flag.NArg() < 2 || *rounds < 1 {
		log.Fatal("usage: cost -rounds N OWN OURS ARGUMENT...")
	}
	programs, args := flag.Args()[:2], flag.Args()[2:]
	var costs [2][]cost
	for round := range *rounds {
		for i := range programs {
			i = (i + round) % 2 // so that neither is always the first
			c, err := run(programs[i], args)
			if err != nil {
				log.Fatal(err)
			}
			costs[i] = append(costs[i], c)
		}
	}
	over := row("processor time s", costs, func(c cost) float64 { return c.time }, timeBound)
	if row("peak memory MiB", costs, func(c cost) float64 { return c.memory }, memoryBound) || over {
		os.Exit(1)
	}
}

// run runs a program to its end.
func run(program string, args []string) (cost, error) {
	cmd := exec.Command(program, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return cost{}, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	time := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return cost{time.Seconds(), float64(usage.Maxrss) / 1024}, nil
}

// row prints a row, and reports whether the ratio is over its bound.
func row(name string, costs [2][]cost, of func(cost) float64, bound float64) bool {
	var own, ours, ratios []float64
	for i := range costs[0] {
		own, ours = append(own, of(costs[0][i])), append(ours, of(costs[1][i]))
		ratios = append(ratios, ours[i]/own[i])
	}
	ratio, verdict := median(ratios), "ok"
	if ratio > bound {
		verdict = "over"
	}
	fmt.Printf("  %-17s own %7.2f  ours %7.2f  %5.2f x +- %.2f  %.2f %s\n", name, median(own), median(ours), ratio, standardError(ratios), bound, verdict)
	return ratio > bound
}

// standardError returns that of the median of x, as for normal noise: sqrt(pi/2) times that of the mean.
func standardError(x []float64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += v
	}
	mean := sum / float64(len(x))
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return math.Sqrt(math.Pi / 2 * squares / float64(len(x)) / float64(max(1, len(x)-1)))
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
