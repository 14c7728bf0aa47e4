// Package pprof writes what a [heapprofile.Profile] has sampled as go tool pprof reads it, with
// the sample types of Go's own heap profile: alloc_objects, alloc_space, inuse_objects
// and inuse_space, so that both merge.
//
//	offheap := heapprofile.New(heapprofile.Options{})
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(offheap))
//	http.Handle("GET /debug/pprof/offheap", pprof.Handler(offheap))
//
// and then
//
//	go tool pprof -http=: http://localhost:6060/debug/pprof/offheap?combined=1
//
// The labels of [runtime/pprof.Labels] in the context of an allocation are labels of its
// sample, and the name of a child Proxy is the label "allocator": -tagfocus=allocator=index.
// Keys and values are cut after 1 KiB, names of functions and files after 16 KiB, and bytes that
// are not valid UTF-8 become U+FFFD. A label with an empty value is lost, because go tool pprof
// reads none.
//
// go tool pprof and [WriteCombined] can merge this profile with a heap profile that has more
// sample types. profile.Merge of github.com/google/pprof cannot.
package pprof

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// Write writes the samples of p so far, as a gzipped protocol buffer. It costs some microseconds
// for each place that has allocated, because symbols are looked up now and not when memory is
// allocated. It panics if p is nil.
func Write(w io.Writer, p *heapprofile.Profile) error {
	require("Write", p != nil)
	if err := build(p).Write(w); err != nil {
		return fmt.Errorf("pprof: Write: %w", err)
	}
	return nil
}

// WriteFile writes the file at path as [Write] does, and replaces an existing one.
func WriteFile(path string, p *heapprofile.Profile) error {
	require("WriteFile", p != nil)
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("pprof: WriteFile: %w", err)
	}
	return errors.Join(Write(f, p), f.Close())
}

// WritePeak writes what was live at the peak k, in the same form: what was allocated is what was live. The time of the
// profile is that of the peak. It panics if k is nil.
func WritePeak(w io.Writer, k *heapprofile.Peak) error {
	require("WritePeak", k != nil)
	if err := buildPeak(k).Write(w); err != nil {
		return fmt.Errorf("pprof: WritePeak: %w", err)
	}
	return nil
}

// WriteCombined writes Go's heap profile and what p has sampled so far as one profile.
// Samples have the label "memory" with the value "heap" or "offheap", which go tool pprof
// puts at the root with -tagroot=memory. Go's are as old as the last garbage collection,
// as ever.
//
// Sample types are joined by their names. One that Go's profile has beside the four, such as
// the memory_space of golang/go#79179, is 0 in the samples of p: what it is of is the memory of
// the whole process, mappings included, of which it would be a second count.
func WriteCombined(w io.Writer, p *heapprofile.Profile) error {
	require("WriteCombined", p != nil)
	combined, err := combine(p)
	if err == nil {
		err = combined.Write(w)
	}
	if err != nil {
		return fmt.Errorf("pprof: WriteCombined: %w", err)
	}
	return nil
}

// require panics if function was not given a profile.
func require(function string, given bool) {
	if !given {
		panic("pprof: " + function + ": the profile is nil: pass the hook that samples, which the Proxy has too")
	}
}

// combine returns Go's heap profile and that of p as one.
func combine(p *heapprofile.Profile) (*profile.Profile, error) {
	var heap bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&heap, 0); err != nil {
		return nil, err
	}
	onHeap, err := profile.Parse(&heap)
	if err != nil {
		return nil, err
	}
	return combineWith(onHeap, build(p))
}

// combineWith returns both as one, of which the bytes in use are shown unless another sample
// type is asked for.
func combineWith(onHeap, off *profile.Profile) (*profile.Profile, error) {
	onHeap.SetLabel("memory", []string{"heap"})
	off.SetLabel("memory", []string{"offheap"})
	combined, err := merge(onHeap, off)
	if err != nil {
		return nil, err
	}
	combined.DefaultSampleType = off.DefaultSampleType
	clean(combined)
	return combined, nil
}

// build makes a profile of p's samples.
func build(p *heapprofile.Profile) *profile.Profile {
	return buildOf(p.Samples(), p.Rate(), time.Now())
}

func buildPeak(k *heapprofile.Peak) *profile.Profile {
	at := k.Get()
	return buildOf(at.Samples, k.Profile().Rate(), at.Time)
}

func buildOf(samples []heapprofile.Sample, rate int, at time.Time) *profile.Profile {
	b := newBuilder(rate, at, "alloc_objects", "alloc_space", "inuse_objects", "inuse_space")
	b.profile.DefaultSampleType = "inuse_space"
	for _, s := range samples {
		b.add(s.Stack, s.Labels, s.AllocatedBlocks, s.AllocatedBytes, s.LiveBlocks, s.LiveBytes)
	}
	clean(b.profile)
	return b.profile
}

type builder struct {
	profile   *profile.Profile
	functions map[functionKey]*profile.Function
	locations map[uintptr]*profile.Location
	byName    map[heapprofile.Frame]*profile.Location
}

// newBuilder returns a builder of a profile with these types of samples, in pairs of a number of blocks and their bytes.
func newBuilder(rate int, at time.Time, types ...string) *builder {
	// All symbols are found here, and nobody needs the program's file to find them.
	program, _ := os.Executable()
	here := &profile.Mapping{ID: 1, File: program, HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true}
	b := &builder{
		functions: make(map[functionKey]*profile.Function),
		locations: make(map[uintptr]*profile.Location),
		byName:    make(map[heapprofile.Frame]*profile.Location),
		profile: &profile.Profile{
			PeriodType: &profile.ValueType{Type: "space", Unit: "bytes"},
			Period:     int64(rate),
			TimeNanos:  at.UnixNano(),
			Mapping:    []*profile.Mapping{here},
		},
	}
	for i, name := range types {
		b.profile.SampleType = append(b.profile.SampleType, &profile.ValueType{Type: name, Unit: []string{"count", "bytes"}[i%2]})
	}
	return b
}

type functionKey struct{ name, file string }

func (b *builder) add(stack []uintptr, labels []heapprofile.Label, values ...int64) {
	sample := &profile.Sample{Value: values}
	for _, l := range labels {
		if sample.Label == nil {
			sample.Label = make(map[string][]string)
		}
		sample.Label[l.Key] = append(sample.Label[l.Key], l.Value)
	}
	// Functions that were inlined come first, and then the one that has their address.
	var inlined []runtime.Frame
	for _, f := range callers.Frames(stack) {
		inlined = append(inlined, f)
		if f.Func != nil {
			sample.Location = append(sample.Location, b.location(inlined))
			inlined = nil
		}
	}
	if len(inlined) > 0 {
		sample.Location = append(sample.Location, b.location(inlined))
	}
	b.profile.Sample = append(b.profile.Sample, sample)
}

// location returns that of frames which were inlined into the last of them.
func (b *builder) location(frames []runtime.Frame) *profile.Location {
	pc := frames[0].PC // of which there is one for each way of inlining
	if l := b.locations[pc]; l != nil {
		return l
	}
	l := &profile.Location{ID: uint64(len(b.profile.Location) + 1), Address: uint64(pc), Mapping: b.profile.Mapping[0]}
	for _, f := range frames {
		l.Line = append(l.Line, profile.Line{Function: b.function(f.Function, f.File), Line: int64(f.Line)})
	}
	b.locations[pc] = l
	b.profile.Location = append(b.profile.Location, l)
	return l
}

func (b *builder) function(name, file string) *profile.Function {
	key := functionKey{name, file}
	if of := b.functions[key]; of != nil {
		return of
	}
	of := &profile.Function{ID: uint64(len(b.profile.Function) + 1), Name: name, SystemName: name, Filename: file}
	b.functions[key] = of
	b.profile.Function = append(b.profile.Function, of)
	return of
}
