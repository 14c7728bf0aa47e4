package main

import (
	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// A profiler makes a profile with the sample types of Go's heap profile.
type profiler struct {
	*profile.Profile
	functions map[function]*profile.Function
	locations map[blackbox.Frame]*profile.Location
}

type function struct{ name, file string }

// newProfiler returns a profiler for a program, whose file nobody needs to find symbols.
func newProfiler(program, buildID string, rate int64) *profiler {
	return &profiler{
		Profile: &profile.Profile{
			SampleType: []*profile.ValueType{
				{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"},
				{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"},
			},
			DefaultSampleType: "inuse_space",
			PeriodType:        &profile.ValueType{Type: "space", Unit: "bytes"},
			Period:            rate,
			Mapping: []*profile.Mapping{{
				ID: 1, File: program, BuildID: buildID,
				HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true,
			}},
		},
		functions: make(map[function]*profile.Function),
		locations: make(map[blackbox.Frame]*profile.Location),
	}
}

// add adds a sample, to which calls are added.
func (p *profiler) add(allocated, inUse history.Amount) *profile.Sample {
	s := &profile.Sample{Value: []int64{allocated.Blocks, allocated.Bytes, inUse.Blocks, inUse.Bytes}, Label: make(map[string][]string)}
	p.Sample = append(p.Sample, s)
	return s
}

// call adds the next call of a sample, after those that it made.
func (p *profiler) call(s *profile.Sample, f blackbox.Frame) {
	at := p.locations[f]
	if at == nil {
		key := function{f.Function, f.File}
		of := p.functions[key]
		if of == nil {
			of = &profile.Function{ID: uint64(len(p.functions) + 1), Name: f.Function, SystemName: f.Function, Filename: f.File}
			p.functions[key] = of
			p.Function = append(p.Function, of)
		}
		at = &profile.Location{
			ID: uint64(len(p.locations) + 1), Address: f.PC, Mapping: p.Mapping[0],
			Line: []profile.Line{{Function: of, Line: int64(f.Line)}},
		}
		p.locations[f] = at
		p.Location = append(p.Location, at)
	}
	s.Location = append(s.Location, at)
}

// profileOfBox returns what was live, in the end or at the peak: what is allocated is what was live.
func profileOfBox(c *blackbox.Contents, peak bool) *profile.Profile {
	sites := c.Live
	if peak {
		sites = c.Peak
	}
	p := newProfiler(c.Build.Executable, c.Build.ID, int64(sites.Rate))
	p.Comments = c.Damage
	if !sites.Time.IsZero() {
		p.TimeNanos = sites.Time.UnixNano()
	}
	for _, site := range sites.Sites {
		live := history.Amount{Blocks: site.Blocks, Bytes: site.Bytes}
		s := p.add(live, live)
		for _, l := range site.Labels {
			s.Label[l.Key] = append(s.Label[l.Key], l.Value)
		}
		for _, f := range site.Stack {
			p.call(s, f)
		}
	}
	return p.Profile
}

// profileOfSites returns what sites have allocated, and what of it is live, or at the peak was.
func profileOfSites(r *history.Recording, k *history.Ranking, peak bool) *profile.Profile {
	p := newProfiler(r.Header().Program, "", 1)
	first, last := r.Span()
	p.TimeNanos, p.DurationNanos = r.Time(last).UnixNano(), int64(last-first)
	p.Comments = unknowns(&k.Unknown)
	for i := range k.Sites {
		site := &k.Sites[i]
		inUse := site.Live
		if peak {
			inUse = site.Peak
		}
		s := p.add(site.Allocated, inUse)
		if site.Child != "" {
			s.Label["allocator"] = []string{site.Child}
		}
		if site.Proxy != "" {
			s.Label["proxy"] = []string{site.Proxy}
		}
		for _, f := range site.Stack {
			p.call(s, blackbox.Frame{Function: f.Function, File: f.File, Line: f.Line})
		}
	}
	return p.Profile
}
