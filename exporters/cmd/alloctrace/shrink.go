package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

func shrinkFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	on := targetFlags(f)
	alone := f.Bool("alone", false, leaveOutOld)
	to := f.String("o", "", "write the smallest recording to this `FILE`; - is the standard output")
	addresses := f.Bool("addresses", false, "compare the addresses of live blocks too")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 1 || *to == "" {
			return failed, errUsage
		}
		if _, _, err := on.new(); err != nil {
			return failed, err
		}
		r, err := open(args[0], *alone, errOut)
		if err != nil {
			return failed, err
		}
		if isOneOf(*to, r.Files()) {
			return failed, errors.New("-o names the recording itself: give another file")
		}
		events, damage := readEvents(r)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		fails := func(events []recording.Event) error {
			a, end, err := on.new()
			if err != nil {
				return err
			}
			if _, err = replay.Run(ctx, replay.New(events), a, replay.Options{Addresses: *addresses}); err != nil {
				_ = end() // what the failure left live stays
				return err
			}
			return end()
		}
		if fails(events) == nil {
			return notReplayed, errors.Join(fmt.Errorf("the replay of %s does not fail: there is nothing to shrink", args[0]), damage)
		}
		shown, remove := showingFewest(fails, errOut)
		small, err := replay.Shrink(ctx, events, shown)
		remove()
		if small == nil {
			return failed, err
		}
		if written := writeFile(*to, out, func(w io.Writer) error { return writeRecording(w, r.Header(), small) }); written != nil {
			return failed, written
		}
		if err != nil { // interrupted
			return failed, err
		}
		if *to != "-" {
			fmt.Fprintf(out, "%d of %s are left: %v\n", len(small), number(int64(len(events)), "event"), fails(small))
		}
		if damage != nil {
			return damaged, fmt.Errorf("what is damaged was left out: %w", damage)
		}
		return whole, nil
	}
}

// isOneOf reports whether a path is of one of the files.
func isOneOf(path string, files []string) bool {
	info, err := os.Stat(path)
	return err == nil && slices.ContainsFunc(files, func(file string) bool {
		other, err := os.Stat(file)
		return err == nil && os.SameFile(info, other)
	})
}

// showingFewest returns fails, which shows how few events have failed so far, and what removes that. It does so if errOut is a terminal.
func showingFewest(fails func([]recording.Event) error, errOut io.Writer) (shown func([]recording.Event) error, remove func()) {
	if !isTerminal(errOut) {
		return fails, func() {}
	}
	fewest := math.MaxInt
	show := func(text string) { fmt.Fprintf(errOut, "\r%-30s\r%s", "", text) }
	return func(events []recording.Event) error {
		err := fails(events)
		if err != nil && len(events) < fewest {
			fewest = len(events)
			show(number(int64(fewest), "event") + " left")
		}
		return err
	}, func() { show("") }
}

// readEvents reads all events. If some of the recording is damaged, it returns the rest, and the errors.
func readEvents(r *history.Recording) (events []recording.Event, damage error) {
	for e, err := range r.Events() {
		if err != nil {
			damage = errors.Join(damage, err)
		} else {
			events = append(events, e)
		}
	}
	return events, damage
}

func writeRecording(w io.Writer, h recording.Header, events []recording.Event) error {
	to, err := recording.NewWriter(w, h)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := to.Write(e); err != nil {
			return err
		}
	}
	return to.Close()
}
