package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

func shrinkFlags(f *flag.FlagSet) func(args []string, out, _ io.Writer) (int, error) {
	on := targetFlags(f)
	to := f.String("o", "", "write the smallest recording to this `FILE`; - is the standard output")
	addresses := f.Bool("addresses", false, "compare the addresses of live blocks too")
	return func(args []string, out, _ io.Writer) (int, error) {
		if len(args) != 1 || *to == "" {
			return failed, errUsage
		}
		if _, _, err := on.new(); err != nil {
			return failed, err
		}
		if a, err := os.Stat(args[0]); err == nil {
			if b, err := os.Stat(*to); err == nil && os.SameFile(a, b) {
				return failed, errors.New("-o names the recording itself: give another file")
			}
		}
		header, events, damage := readRecording(args[0])
		if damage != nil && len(events) == 0 {
			return failed, damage
		}
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
		small, err := replay.Shrink(ctx, events, fails)
		if small == nil {
			return failed, err
		}
		if written := writeFile(*to, out, func(w io.Writer) error { return writeRecording(w, header, small) }); written != nil {
			return failed, written
		}
		if err != nil { // interrupted
			return failed, err
		}
		if *to != "-" {
			fmt.Fprintf(out, "%d of %s are left: %v\n", len(small), number(int64(len(events)), "event"), fails(small))
		}
		if damage != nil {
			return damaged, fmt.Errorf("%s is damaged, and what comes after that was left out: %w", args[0], damage)
		}
		return whole, nil
	}
}

// readRecording reads all events. If the recording is damaged, it returns those before that too.
func readRecording(path string) (h recording.Header, events []recording.Event, err error) {
	r, err := recording.Open(path)
	if err != nil {
		return h, nil, err
	}
	defer r.Close()
	for e, err := range r.Events() {
		if err != nil {
			return r.Header(), events, err
		}
		events = append(events, e)
	}
	return r.Header(), events, nil
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
