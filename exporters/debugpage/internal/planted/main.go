// Planted serves the page of a program in which there is something of each kind to be found.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/alloctrace/alloctrace/exporters/debugpage"
	"github.com/alloctrace/alloctrace/exporters/internal/plant"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "listen on this `ADDRESS`, and print the page's URL")
	scale := flag.Bool("scale", false, "add 100,000 live blocks of 1,000 sites, and 1,000,000 events")
	step := flag.Duration("step", 50*time.Millisecond, "how often the program goes on")
	flag.Parse()
	log.SetFlags(0)

	events := 1 << 13
	if *scale {
		events = 1 << 20
	}
	p, err := plant.New(events)
	if err != nil {
		log.Fatal(err)
	}
	if *scale {
		if err := p.Scale(100_000, 1000, 1_000_000); err != nil {
			log.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/alloctrace/", debugpage.Handler(debugpage.Options{Unreachable: true}, p.Proxy))
	go func() {
		for range time.Tick(*step) {
			if err := p.Step(); err != nil {
				log.Fatal(err)
			}
		}
	}()
	fmt.Printf("http://%s/debug/alloctrace/\n", l.Addr())
	log.Fatal(http.Serve(l, mux))
}
