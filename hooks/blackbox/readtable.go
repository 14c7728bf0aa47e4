package blackbox

import (
	"bytes"
	"encoding/json"
	"time"
)

// readTables reads the newest table that is whole, in either reading. One that was being written when the process ended is no damage.
func (r *reader) readTables() {
	var newest uint64
	var at uint64
	var content []byte
	for i := range uint64(2) {
		damage := ""
		for _, file := range [][]byte{r.first, r.second} {
			b := part(file, r.tablesAt+i*r.tableLen, r.tableLen)
			if len(b) < tableHeader {
				damage = "is missing"
				continue
			}
			generation, n := order.Uint64(b), uint64(order.Uint32(b[16:]))
			if generation == 0 { // it is being written, or was never
				damage = ""
				continue
			}
			if n > uint64(len(b)-tableHeader) || tableSum(generation, b[8:20], b[tableHeader:][:n]) != order.Uint32(b[20:]) {
				damage = "has a checksum that is wrong"
				continue
			}
			if damage = ""; generation > newest {
				newest, at, content = generation, order.Uint64(b[8:]), b[tableHeader:][:n]
			}
		}
		if damage != "" {
			r.damaged("table %d %s", i, damage)
		}
	}
	if newest == 0 {
		r.damaged("no table is whole: proxies, what was live, the peak and the build are missing")
		return
	}
	r.contents.Written = timeOf(at)
	r.readTable(content)
}

func (r *reader) readTable(content []byte) {
	var frames []Frame
	var sites *Sites // that lines of sites belong to
	for text := range bytes.Lines(content) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			r.damaged("a line of a table cannot be read: %v", err)
			continue
		}
		c := r.contents
		switch {
		case l.Build != nil:
			c.Build = *l.Build
		case l.Proxy != nil:
			c.Proxies = append(c.Proxies, *l.Proxy)
		case l.Frame != nil:
			frames = append(frames, *l.Frame)
		case l.Live != nil:
			c.Live, sites = *l.Live, &c.Live
		case l.Peak != nil:
			c.Peak, sites = *l.Peak, &c.Peak
		case l.Site != nil && sites != nil:
			site := l.Site.Site
			site.Stack = []Frame{}
			for _, n := range l.Site.Stack {
				if n < 0 || n >= len(frames) {
					r.damaged("a site has frame %d of %d", n, len(frames))
					continue
				}
				site.Stack = append(site.Stack, frames[n])
			}
			sites.Sites = append(sites.Sites, site)
		case l.Omitted != nil:
			c.Omitted, c.Live.Omitted, c.Peak.Omitted = l.Omitted.Proxies, l.Omitted.Live, l.Omitted.Peak
		}
	}
}

// timeOf returns the time of so many nanoseconds since 1970, and of none the zero one.
func timeOf(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns))
}
