package pprof

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/internal/text"
)

// merge returns a and b as one. It has the sample types of a, and then those that b alone has;
// a value of a type that a profile does not have is 0. Type and order of a's and b's values
// may differ, but not the unit of a type that both have. a and b are changed.
func merge(a, b *profile.Profile) (*profile.Profile, error) {
	types := slices.Clone(a.SampleType)
	for _, p := range []*profile.Profile{a, b} {
		for i, own := range p.SampleType {
			if indexOfType(p.SampleType, own.Type) != i {
				return nil, fmt.Errorf("sample type %q is twice in a profile: write the two profiles apart", own.Type)
			}
			switch at := indexOfType(types, own.Type); {
			case at < 0:
				types = append(types, own)
			case types[at].Unit != own.Unit:
				return nil, fmt.Errorf("sample type %q is in %s in one profile and in %s in the other: write them apart", own.Type, types[at].Unit, own.Unit)
			}
		}
	}
	for _, p := range []*profile.Profile{a, b} {
		for _, s := range p.Sample {
			values := make([]int64, len(types))
			for i, v := range s.Value {
				values[indexOfType(types, p.SampleType[i].Type)] = v
			}
			s.Value = values
		}
		p.SampleType = types
	}
	return profile.Merge([]*profile.Profile{a, b})
}

func indexOfType(types []*profile.ValueType, name string) int {
	return slices.IndexFunc(types, func(t *profile.ValueType) bool { return t.Type == name })
}

// clean makes all strings of p valid UTF-8 of bounded length. Labels whose keys become equal
// are one with several values.
func clean(p *profile.Profile) {
	for _, m := range p.Mapping {
		m.File = text.Text(m.File)
	}
	for _, f := range p.Function {
		f.Name, f.SystemName, f.Filename = text.Text(f.Name), text.Text(f.SystemName), text.Text(f.Filename)
	}
	for _, s := range p.Sample {
		if len(s.Label) == 0 {
			continue
		}
		labels := make(map[string][]string, len(s.Label))
		for _, key := range slices.Sorted(maps.Keys(s.Label)) {
			name := text.Name(key)
			for _, v := range s.Label[key] {
				labels[name] = append(labels[name], text.Name(v))
			}
		}
		s.Label = labels
	}
}
