package main

import (
	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// profileOf returns what was live, in the end or at the peak, with the sample types of Go's heap profile: what was allocated is what
// was live.
func profileOf(c *blackbox.Contents, peak bool) *profile.Profile {
	sites := c.Live
	if peak {
		sites = c.Peak
	}
	program := &profile.Mapping{
		ID: 1, File: c.Build.Executable, BuildID: c.Build.ID,
		HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true,
	}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{
			{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"},
			{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"},
		},
		DefaultSampleType: "inuse_space",
		PeriodType:        &profile.ValueType{Type: "space", Unit: "bytes"},
		Period:            int64(sites.Rate),
		Mapping:           []*profile.Mapping{program},
		Comments:          c.Damage,
	}
	if !sites.Time.IsZero() {
		p.TimeNanos = sites.Time.UnixNano()
	}
	functions, locations := make(map[function]*profile.Function), make(map[blackbox.Frame]*profile.Location)
	for _, s := range sites.Sites {
		sample := &profile.Sample{Value: []int64{s.Blocks, s.Bytes, s.Blocks, s.Bytes}, Label: make(map[string][]string)}
		for _, l := range s.Labels {
			sample.Label[l.Key] = append(sample.Label[l.Key], l.Value)
		}
		for _, f := range s.Stack {
			at := locations[f]
			if at == nil {
				key := function{f.Function, f.File}
				of := functions[key]
				if of == nil {
					of = &profile.Function{ID: uint64(len(functions) + 1), Name: f.Function, SystemName: f.Function, Filename: f.File}
					functions[key] = of
					p.Function = append(p.Function, of)
				}
				at = &profile.Location{
					ID: uint64(len(locations) + 1), Address: f.PC, Mapping: program,
					Line: []profile.Line{{Function: of, Line: int64(f.Line)}},
				}
				locations[f] = at
				p.Location = append(p.Location, at)
			}
			sample.Location = append(sample.Location, at)
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

type function struct{ name, file string }
