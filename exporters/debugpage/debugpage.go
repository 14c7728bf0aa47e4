// Package debugpage serves a page that shows off-heap memory live: how much there is and by whom, over time, as a flame graph and as a map, how long
// blocks live, which sites look like leaks, and the last events.
//
//	profile := heapprofile.New(heapprofile.Options{})
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(profile))
//	…
//	mux.Handle("/debug/alloctrace/", debugpage.Handler(debugpage.Options{}, mem))
//
// Beside a pattern such as "GET /", which Go's mux refuses together with that one, register two: "GET /debug/alloctrace/" and
// "POST /debug/alloctrace/". The POST is for the page's buttons.
//
// It finds the [heapprofile.Profile] and the [ring.Ring] among the hooks of the Proxies. Without them it shows counters and the map alone, and
// says for each tab what to switch on. "Save" makes one file of the page, which opens in a browser without a server. The command alloctrace
// serve shows the same of a recording or a black box.
//
// # Who may look
//
// The page shows names of functions, files, children and addresses, and nothing of what is in blocks. It answers the same machine alone, unless
// Options.Remote says that authentication is in front of it. It refuses Host headers by which another site could read it (DNS rebinding), and
// requests that the pages of other sites make. Its own policy lets the browser load nothing from elsewhere, and run nothing but its program.
//
// # Cost
//
// While nobody looks there is no goroutine and no timer, and nothing is kept but the names of what was shown, and what was live at the last mark.
// While somebody looks, the counters and
// sites are read once a second, for all who look together: some 50 to 130 nanoseconds for each child, and a microsecond for each site.
// What costs more, such as the map, is made when its tab is open. It is made again once five hundred times as long has passed as it
// took: so that a page takes at most a hundredth of a processor, however many look.
package debugpage

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// Options configure [Handler]. The zero value is right for most.
type Options struct {
	// Title is what the page is called. If it is empty, that is the program's name.
	Title string

	// Profile says who holds memory. If it is nil, it is the first one among the hooks of the Proxies, or that of a tracer.Lifetimes there.
	Profile *heapprofile.Profile

	// Ring has the last events. If it is nil, it is the first one among the hooks of the Proxies, or that of a blackbox.Box there.
	Ring *ring.Ring

	// Hosts are names by which the page is reached, such as "debug.example.com", beside localhost and the address that is listened on.
	Hosts []string

	// Remote has the page answer other machines than this one, and proxies that say that they come for one. Set it where your own
	// authentication is in front of the handler.
	Remote bool

	// Unreachable adds a button that finds the blocks to which nothing points any more. It stops the program for a heap dump, in which the
	// Go runtime can end the program: see [heapprofile.Profile.Unreachable].
	Unreachable bool
}

// Handler returns a handler that serves the page of Proxies. Pass the outermost: their children, and the allocators below, are shown with them. One
// that allocates from another that is passed too is shown below it, and counted once. The handler serves what the end of a URL's path says, so that
// it can be mounted at any path that ends in a slash.
//
// Several goroutines may call the handler at once. It panics if there is no Proxy, or one is nil.
func Handler(o Options, of ...*alloctrace.Proxy) http.Handler {
	if len(of) == 0 || slices.Contains(of, nil) {
		panic("debugpage: Handler: a Proxy is nil, or there is none: pass those that the program allocates from")
	}
	of = slices.Clone(of)
	for _, p := range of {
		for _, h := range p.Hooks() {
			o.find(h)
		}
	}
	return newServer(newLive(o, of), page.Access{Hosts: slices.Clone(o.Hosts), Remote: o.Remote})
}

// find takes a hook, or what a hook has, for a field that is nil.
func (o *Options) find(h alloctrace.Hook) {
	switch h := h.(type) {
	case *heapprofile.Profile:
		o.Profile = cmp.Or(o.Profile, h)
	case interface{ Profile() *heapprofile.Profile }: // tracer.Lifetimes
		o.Profile = cmp.Or(o.Profile, h.Profile())
	case *ring.Ring:
		o.Ring = cmp.Or(o.Ring, h)
	case interface{ Ring() *ring.Ring }: // blackbox.Box
		o.Ring = cmp.Or(o.Ring, h.Ring())
	}
}
