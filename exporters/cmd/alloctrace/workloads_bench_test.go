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
	rows := "| program | events, acquisitions | asked for | recorded |"
	for _, on := range targets() {
		rows += fmt.Sprintf(" %s |", on)
	}
	rows += "\n" + strings.Repeat("|---", strings.Count(rows, "|")-1) + "|\n"
	for _, w := range workloads {
		b.Run(w.name, func(b *testing.B) {
			for b.Loop() {
				rows += rowOf(b, w)
			}
		})
	}
	fmt.Print("\n" + rows)
}

// rowOf returns a row: what was granted when that was most, by how much the resident memory has grown, and the time in the allocator.
func rowOf(b *testing.B, w workload) string {
	path, said := recordedWorkload(b, w, 20)
	var row string
	for _, on := range targets() {
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
		if row == "" {
			row = fmt.Sprintf("| %s | %d, %d | %s in %d | %s", w.name, r.Recorded.Events, r.Calls.Allocate.Count+r.Calls.Reallocate.Count,
				counter.FormatBytes(r.Recorded.Peak.Requested), r.Recorded.Peak.Blocks, counter.FormatBytes(r.Recorded.Peak.Granted))
			if m := regexp.MustCompile(`at most (.*) of the process`).FindStringSubmatch(said); m != nil {
				row += ", " + m[1] + " in all"
			}
		}
		calls := r.Calls.Allocate.Time + r.Calls.Reallocate.Time + r.Calls.Free.Time
		row += fmt.Sprintf(" | %s, %s, %v", counter.FormatBytes(r.Peak.Granted), counter.FormatBytes(r.Resident.Peak-r.Resident.Before), calls.Round(time.Millisecond))
	}
	return row + " |\n"
}
