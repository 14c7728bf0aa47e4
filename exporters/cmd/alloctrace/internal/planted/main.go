// Planted writes a recording and a black box of a program in which there is something of each kind to be found.
package main

import (
	"errors"
	"flag"
	"log"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/internal/plant"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

func main() {
	to := flag.String("recording", "", "write the recording to this `FILE`")
	box := flag.String("box", "", "write the black box to this `FILE`")
	flag.Parse()
	log.SetFlags(0)
	if *to == "" || *box == "" || flag.NArg() > 0 {
		log.Fatal("planted: use -recording FILE -box FILE")
	}
	if err := write(*to, *box); err != nil {
		log.Fatal(err)
	}
}

// steps is how often the program goes on: each time a little has grown, so that it has after each quarter of the recording. They are so few
// that what grows is less than the cache at the end, however long they take.
const steps = 200

func write(to, path string) error {
	began := time.Now()
	rec, err := recording.Create(to, recording.Options{Queue: 1 << 18}) // for the beginning, at once
	if err != nil {
		return err
	}
	var box *blackbox.Box
	p, err := plant.New(1<<10, func(*heapprofile.Profile) (alloctrace.Hook, error) { return rec, nil }, func(profile *heapprofile.Profile) (alloctrace.Hook, error) {
		box, err = blackbox.Create(path, blackbox.Options{Profile: profile})
		return box, err
	})
	if err != nil {
		return errors.Join(err, rec.Close())
	}
	box.Watch(p.Proxy)
	most := max(2*time.Second, 9*time.Since(began)) // the beginning, in which nothing grows, is to be far less than a quarter
	tick := time.NewTicker(most / steps)
	defer tick.Stop()
	for time.Since(began) < most {
		if err := p.Step(); err != nil {
			return errors.Join(err, box.Close(), rec.Close())
		}
		<-tick.C
	}
	return errors.Join(box.Close(), rec.Close(), p.Close())
}
