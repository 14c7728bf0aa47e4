package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// BenchmarkWorkloads prints the table of docs/replay.md: what programs do, on each allocator.
func BenchmarkWorkloads(b *testing.B) {
	fmt.Println("\n| program: events, blocks | on | time in it | granted at the peak | for | resident, grown by |\n|---|---|---|---|---|---|")
	for _, w := range workloads {
		b.Run(w.name, func(b *testing.B) {
			for b.Loop() {
				printRows(b, w)
			}
		})
	}
}

func printRows(b *testing.B, w workload) {
	path, said := recordedWorkload(b, w, 20)
	resident := "not known"
	if m := regexp.MustCompile(`at most (.*) of the process`).FindStringSubmatch(said); m != nil {
		resident = m[1] + " in all"
	}
	for i, on := range targets() {
		var errOut bytes.Buffer
		cmd := exec.Command(os.Args[0]) // in a process of its own, whose memory nothing else has used
		cmd.Env, cmd.Stderr = append(os.Environ(), argsVariable+"="+strings.Join([]string{"replay", "-json", "-on", on, path}, "\n")), &errOut
		out, err := cmd.Output()
		var r replay.Result
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil || r.Failed > 0 || r.Operations != r.Recorded.Operations {
			b.Fatalf("%v: %s%v", err, &errOut, r)
		}
		size := func(n int64) string { return counter.FormatBytes(n) }
		if p := r.Recorded.Peak; i == 0 {
			blocks := r.Calls.Allocate.Count + r.Calls.Reallocate.Count
			fmt.Printf("| %s: %d, %d | as recorded | | %s | %s in %d | %s |\n", w.name, r.Recorded.Events, blocks, size(p.Granted), size(p.Requested), p.Blocks, resident)
		}
		calls := r.Calls.Allocate.Time + r.Calls.Reallocate.Time + r.Calls.Free.Time
		fmt.Printf("| | %s | %v | %s | %s in %d | %s |\n", strings.ToUpper(on[:1])+on[1:], calls.Round(100*time.Microsecond), size(r.Peak.Granted), size(r.Peak.Requested), r.Peak.Blocks, size(r.Resident.Peak-r.Resident.Before))
	}
}
