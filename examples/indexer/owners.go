package main

import (
	"cmp"
	"context"
	"slices"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/tracer"
)

// newProfile returns a hook that knows every block, of which there are few, and which region
// allocated it, so that a leak has a name. Programs that allocate all the time take the default
// rate.
func newProfile() *heapprofile.Profile {
	return heapprofile.New(heapprofile.Options{Rate: 1, Owner: func(ctx context.Context) string {
		if r := tracer.FromContext(ctx); r != nil {
			return r.Name()
		}
		return "no region"
	}})
}

// A leak is what one region allocated and nobody freed.
type leak struct {
	Region string `json:"region"`
	Blocks int64  `json:"blocks"`
	Bytes  int64  `json:"bytes"`
}

// leaksOf returns what is live now, by region.
func leaksOf(p *heapprofile.Profile) []leak {
	byRegion := make(map[string]leak)
	for _, s := range p.Report().Sites {
		l := byRegion[s.Owner]
		byRegion[s.Owner] = leak{s.Owner, l.Blocks + s.Blocks, l.Bytes + s.Bytes}
	}
	leaks := make([]leak, 0, len(byRegion))
	for _, l := range byRegion {
		leaks = append(leaks, l)
	}
	slices.SortFunc(leaks, func(a, b leak) int { return cmp.Compare(a.Region, b.Region) })
	return leaks
}
