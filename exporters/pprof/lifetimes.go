package pprof

import (
	"fmt"
	"io"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// WriteLifetimes writes how long blocks live, as p.Lifetimes has it, in the form that go tool pprof reads: those that were freed as
// ended_objects and ended_space, and those that are live as inuse_objects and inuse_space. A sample is the blocks of one class of
// times, each of which goes up to twice the one before. Its tag "lifetime" is how long they have lived at most, or "age" how long they have
// been live at least. So
//
//	go tool pprof -sample_index=inuse_space -tagfocus=age=1hr: lifetimes.pb.gz
//
// shows what has been live for more than 72 minutes, where the first class above an hour begins, and -tags how the times are distributed. What is
// older than exactly an hour is what [Handler] has with older=1h. It panics if p is nil.
// An error says that Lifetimes of [heapprofile.Options] was not set, or is of w.
func WriteLifetimes(w io.Writer, p *heapprofile.Profile) error {
	require("WriteLifetimes", p != nil)
	lifetimes := p.Lifetimes()
	if lifetimes == nil {
		return fmt.Errorf("pprof: WriteLifetimes: %w", errNoLifetimes)
	}
	if err := buildLifetimes(lifetimes, p.Rate()).Write(w); err != nil {
		return fmt.Errorf("pprof: WriteLifetimes: %w", err)
	}
	return nil
}

func buildLifetimes(lifetimes []heapprofile.Lifetime, rate int) *profile.Profile {
	b := newBuilder(rate, time.Now(), "ended_objects", "ended_space", "inuse_objects", "inuse_space")
	b.profile.DefaultSampleType = "ended_space"
	for _, l := range lifetimes {
		var labels map[string][]string
		if l.Owner != "" {
			labels = map[string][]string{"owner": {l.Owner}}
		}
		stack := b.named(l.Stack)
		add := func(tag string, times []heapprofile.Times, part time.Duration, values func(t heapprofile.Times) []int64) {
			for _, t := range times {
				b.profile.Sample = append(b.profile.Sample, &profile.Sample{
					Value: values(t), Location: stack, Label: labels,
					NumLabel: map[string][]int64{tag: {int64(t.Most / part)}}, NumUnit: map[string][]string{tag: {"nanoseconds"}},
				})
			}
		}
		add("lifetime", l.Ended.Times, 1, func(t heapprofile.Times) []int64 { return []int64{t.Blocks, t.Bytes, 0, 0} })
		add("age", l.Live.Times, 2, func(t heapprofile.Times) []int64 { return []int64{0, 0, t.Blocks, t.Bytes} })
	}
	clean(b.profile)
	return b.profile
}

// named returns the locations of calls of which only the names are known.
func (b *builder) named(stack []heapprofile.Frame) (locations []*profile.Location) {
	for _, f := range stack {
		l := b.byName[f]
		if l == nil {
			l = &profile.Location{
				ID: uint64(len(b.profile.Location) + 1), Mapping: b.profile.Mapping[0],
				Line: []profile.Line{{Function: b.function(f.Function, f.File), Line: int64(f.Line)}},
			}
			b.byName[f] = l
			b.profile.Location = append(b.profile.Location, l)
		}
		locations = append(locations, l)
	}
	return locations
}
