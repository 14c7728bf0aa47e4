package debugpage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// A hub makes one Tick a second for all who look, less often if one takes more than a five-hundredth of that. Its goroutine runs while there are any.
type hub struct {
	source  page.Ticker
	watched func(bool)

	mu      sync.Mutex
	lookers int
	stop    chan struct{}                  // closed when nobody looks any more
	ended   chan struct{}                  // closed when the goroutine has ended; nil if there was none
	tick    ticked                         // the last one
	servers map[*http.Server]chan struct{} // closed when that one shuts down
}

// ticked is a Tick, as it goes to those who have had the one before, and to others.
type ticked struct {
	serial int64
	next   chan struct{} // closed when there is another
	whole  *page.Tick    // nil if there is none yet

	change, all []byte // JSON; change is nil if there was none before; all is made when somebody needs it
}

// writeTime is how long a looker has to take an event.
const writeTime = 30 * time.Second

// aliveTime is how often a looker is told that the program is there, for one in which a Tick takes long has them seldom.
const aliveTime = 5 * time.Second

// An event without data would be none.
var (
	aliveEvent = []byte("event: alive\ndata: 0\n\n")
	endsEvent  = []byte("event: ends\ndata: 0\n\n") // that there is no more, and the browser is to ask again
)

// begin adds a looker.
func (h *hub) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lookers++; h.lookers == 1 {
		before := h.ended
		h.stop, h.ended = make(chan struct{}), make(chan struct{})
		h.tick.next = make(chan struct{})
		go h.run(h.stop, before, h.ended)
	}
}

// end takes a looker out.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lookers--; h.lookers == 0 {
		close(h.stop)
		h.tick = ticked{serial: h.tick.serial}
	}
}

// run makes Ticks until stop is closed. It begins when the one before it has ended, if there is one.
func (h *hub) run(stop, before, ended chan struct{}) {
	defer close(ended)
	if before != nil {
		<-before
	}
	h.watched(true)
	defer h.watched(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		began := time.Now()
		_ = sources.Try(func() error { // a page is not worth a program
			h.advance(h.source.Tick(), stop)
			return nil
		})
		timer.Reset(newFor(time.Since(began), first))
	}
}

// advance makes t the last Tick, unless stop is closed.
func (h *hub) advance(t *page.Tick, stop chan struct{}) {
	h.mu.Lock()
	was, current := h.tick, h.stop == stop && h.lookers > 0
	h.mu.Unlock()
	if !current {
		return
	}
	is := ticked{serial: was.serial + 1, next: make(chan struct{}), whole: t}
	if was.whole != nil { // nobody else sets it meanwhile
		is.change = encoded(change(was.whole, t))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop == stop && h.lookers > 0 {
		h.tick = is
		close(was.next)
	}
}

// after returns the event for somebody who has had the Tick of a serial number, the number of it, and what is closed when there is another.
// It is nil if there is no other yet.
func (h *hub) after(serial int64) (event []byte, now int64, next chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &h.tick
	switch {
	case serial == t.serial || t.whole == nil:
		return nil, serial, t.next
	case serial == t.serial-1 && t.change != nil: // it has had the one before, or there would have been none
		return t.change, t.serial, t.next
	}
	if t.all == nil {
		t.all = encoded(t.whole)
	}
	return t.all, t.serial, t.next
}

// encoded returns a Tick as an event.
func encoded(t *page.Tick) []byte {
	data, err := json.Marshal(t)
	if err != nil { // a Tick has numbers alone
		panic(fmt.Sprintf("debugpage: a tick is no JSON: %v", err))
	}
	return slices.Concat([]byte("event: tick\ndata: "), data, []byte("\n\n"))
}

// change returns what of a Tick is other than in the one before.
func change(was, is *page.Tick) *page.Tick {
	t := *is
	t.Whole = false
	t.Node, t.Site, t.SiteLive, t.SiteAllocated = []int{}, []int{}, []int64{}, []int64{}
	before, all, changed := was.NodeColumns(), is.NodeColumns(), t.NodeColumns()
	for i := range changed {
		*changed[i] = []int64{}
	}
	nodes := rowsOf(was.Node)
	for row, node := range is.Node {
		old, ok := nodes[node]
		for i := range all {
			ok = ok && (*before[i])[old] == (*all[i])[row]
		}
		if !ok {
			t.Node = append(t.Node, node)
			for i := range all {
				*changed[i] = append(*changed[i], (*all[i])[row])
			}
		}
	}
	sites := rowsOf(was.Site)
	for row, site := range is.Site {
		old, ok := sites[site]
		if !ok || was.SiteLive[old] != is.SiteLive[row] || was.SiteAllocated[old] != is.SiteAllocated[row] {
			t.Site = append(t.Site, site)
			t.SiteLive, t.SiteAllocated = append(t.SiteLive, is.SiteLive[row]), append(t.SiteAllocated, is.SiteAllocated[row])
		}
	}
	return &t
}

func rowsOf(list []int) map[int]int {
	rows := make(map[int]int, len(list))
	for row, n := range list {
		rows[n] = row
	}
	return rows
}

// shutdown returns what is closed when the server of a request shuts down: it would wait for the stream without end.
func (h *hub) shutdown(r *http.Request) <-chan struct{} {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	down, ok := h.servers[server]
	if !ok {
		if h.servers == nil {
			h.servers = make(map[*http.Server]chan struct{})
		}
		down = make(chan struct{})
		h.servers[server] = down
		server.RegisterOnShutdown(sync.OnceFunc(func() { close(down) }))
	}
	return down
}

// serve sends Ticks until the client goes away, or the server shuts down. What is in front of the handler may keep an answer until it has ended, as
// http.TimeoutHandler does: then one Tick is an answer.
func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	down := h.shutdown(r) // before the client knows of the stream, and somebody shuts down for whom it would come too late
	flushes := control.Flush() == nil
	h.begin()
	defer h.end()
	alive := time.NewTicker(aliveTime)
	defer alive.Stop()
	var serial int64 = -1
	for beat := false; ; {
		event, now, next := h.after(serial)
		if event == nil && beat {
			event = aliveEvent
		}
		if event != nil {
			serial = now
			_ = control.SetWriteDeadline(time.Now().Add(writeTime)) // else the server's holds, and the browser asks again after it
			if _, err := w.Write(event); err != nil {
				return
			}
			if !flushes {
				_, _ = w.Write(endsEvent) // or the client has gone
				return
			}
			if err := control.Flush(); err != nil {
				return
			}
		}
		beat = false
		select {
		case <-next:
		case <-alive.C:
			beat = true
		case <-r.Context().Done():
			return
		case <-down:
			return
		}
	}
}
