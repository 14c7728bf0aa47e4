package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// A perfettoPacket is a TracePacket, by the names that Perfetto has for its fields.
type perfettoPacket struct {
	Timestamp               int64 `json:",string"`
	TrustedPacketSequenceID int
	SequenceFlags           int
	ClockSnapshot           *struct{ Clocks []perfettoClock }
	TrackDescriptor         *perfettoTrack
	TrackEvent              *perfettoEvent
	InternedData            *perfettoInterned
	ProfilePacket           *perfettoProfile
}

type perfettoClock struct {
	ClockID   int
	Timestamp int64 `json:",string"`
}

type perfettoTrack struct {
	UUID       int64 `json:",string"`
	ParentUUID int64 `json:",string"`
	Name       string
	Process    *struct {
		PID         int
		ProcessName string
	}
	Counter *struct{ Unit string }
}

type perfettoEvent struct {
	Type             string
	TrackUUID        int64 `json:",string"`
	Name             string
	CounterValue     int64 `json:",string"`
	CallstackIID     int64 `json:",string"`
	DebugAnnotations []struct {
		Name, StringValue       string
		UintValue, PointerValue int64 `json:",string"`
	}
}

// about returns what an event says, but for addresses.
func (e *perfettoEvent) about() map[string]string {
	all := make(map[string]string)
	for _, a := range e.DebugAnnotations {
		if a.StringValue == "" && a.PointerValue == 0 {
			a.StringValue = strconv.FormatInt(a.UintValue, 10)
		}
		all[a.Name] = a.StringValue
	}
	return all
}

type perfettoString struct {
	IID int64 `json:",string"`
	Str []byte
}

type perfettoInterned struct {
	FunctionNames, MappingPaths, SourcePaths []perfettoString
	Mappings                                 []struct {
		IID           int64 `json:",string"`
		PathStringIDs []string
	}
	Frames []struct {
		IID            int64 `json:",string"`
		FunctionNameID int64 `json:",string"`
		MappingID      int64 `json:",string"`
		RelPC          int64 `json:",string"`
		SourcePathIID  int64 `json:",string"`
		LineNumber     int
	}
	Callstacks []struct {
		IID      int64 `json:",string"`
		FrameIDs []string
	}
}

type perfettoProfile struct {
	ProcessDumps []struct {
		PID                       int64 `json:",string"`
		HeapName                  string
		Timestamp, StartTimestamp int64 `json:",string"`
		Samples                   []struct {
			CallstackID              int64 `json:",string"`
			SelfAllocated, SelfFreed int64 `json:",string"`
			AllocCount, FreeCount    int64 `json:",string"`
		}
	}
	Continued bool
	Index     int64 `json:",string"`
}

// readPerfetto reads a trace by the messages that Perfetto defines. None of its fields may be one that they do not have.
func readPerfetto(t *testing.T, trace []byte) (packets []perfettoPacket) {
	t.Helper()
	f, err := os.Open("testdata/perfetto/trace.desc.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var set descriptorpb.FileDescriptorSet
	unpacked, err := gzip.NewReader(f)
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(unpacked); err == nil {
			err = proto.Unmarshal(b, &set)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("perfetto.protos.Trace")
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(d.(protoreflect.MessageDescriptor))
	if err := proto.Unmarshal(trace, m); err != nil {
		t.Fatal(err)
	}
	noUnknown(t, m)
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	all := struct{ Packet []perfettoPacket }{}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all.Packet
}

func noUnknown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if b := m.GetUnknown(); len(b) > 0 {
		t.Fatalf("%s has no such field: % x", m.Descriptor().FullName(), b)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				noUnknown(t, v.List().Get(i).Message())
			}
		default:
			noUnknown(t, v.Message())
		}
		return true
	})
}

// A perfettoTrace is what the packets of a trace say.
type perfettoTrace struct {
	began  int64
	tracks map[int64]*perfettoTrack
	events []perfettoPacket
	stacks map[int64][]string                    // function:line, the outermost first
	dumps  map[string]map[int64]map[string]*held // by heap, time and stack
}

// held is what a stack holds.
type held struct{ allocated, freed, allocations, frees int64 }

func perfettoOf(t *testing.T, trace []byte) *perfettoTrace {
	t.Helper()
	p := &perfettoTrace{tracks: make(map[int64]*perfettoTrack), stacks: make(map[int64][]string), dumps: make(map[string]map[int64]map[string]*held)}
	packets := readPerfetto(t, trace)
	functions, sources, frames := make(map[int64]string), make(map[int64]string), make(map[int64]string)
	unique := make(map[int64]bool)
	mapping := "" // the path of the only one
	index := int64(0)
	for i := range packets {
		packet := &packets[i]
		if packet.TrustedPacketSequenceID != 1 || (packet.SequenceFlags == 1) != (i == 0) || (packet.SequenceFlags == 2) != (i > 0) {
			t.Fatalf("packet %d: sequence %d, flags %d", i, packet.TrustedPacketSequenceID, packet.SequenceFlags)
		}
		if in := packet.InternedData; in != nil {
			for _, s := range in.FunctionNames {
				functions[s.IID] = string(s.Str)
			}
			for _, s := range in.SourcePaths {
				sources[s.IID] = string(s.Str)
			}
			for _, m := range in.Mappings {
				for _, s := range in.MappingPaths {
					if len(m.PathStringIDs) == 1 && m.PathStringIDs[0] == strconv.FormatInt(s.IID, 10) && m.IID == 1 {
						mapping = string(s.Str)
					}
				}
			}
			for _, f := range in.Frames {
				// A file has the path of its folder, or of its module if -trimpath has built this.
				if mapping == "" || f.MappingID != 1 || unique[f.RelPC] || functions[f.FunctionNameID] == "" || f.SourcePathIID > 0 && !strings.Contains(sources[f.SourcePathIID], "/") {
					t.Fatalf("frame %+v", f)
				}
				unique[f.RelPC] = true
				frames[f.IID] = functions[f.FunctionNameID] + ":" + strconv.Itoa(f.LineNumber)
			}
			for _, c := range in.Callstacks {
				for _, id := range c.FrameIDs {
					n, err := strconv.ParseInt(id, 10, 64)
					if err != nil || frames[n] == "" {
						t.Fatalf("stack %+v, %v", c, err)
					}
					p.stacks[c.IID] = append(p.stacks[c.IID], frames[n])
				}
			}
		}
		switch {
		case packet.ClockSnapshot != nil:
			for _, c := range packet.ClockSnapshot.Clocks {
				p.began = c.Timestamp
			}
			if len(packet.ClockSnapshot.Clocks) != 4 {
				t.Errorf("%+v", packet.ClockSnapshot)
			}
		case packet.TrackDescriptor != nil:
			track := packet.TrackDescriptor
			if p.tracks[track.UUID] != nil || (track.ParentUUID == 0) != (track.Process != nil) || track.ParentUUID > 0 && p.tracks[track.ParentUUID] == nil {
				t.Errorf("track %+v", track)
			}
			p.tracks[track.UUID] = track
		case packet.TrackEvent != nil:
			if p.tracks[packet.TrackEvent.TrackUUID] == nil || packet.TrackEvent.CallstackIID > 0 && p.stacks[packet.TrackEvent.CallstackIID] == nil {
				t.Fatalf("event %+v", packet.TrackEvent)
			}
			p.events = append(p.events, *packet)
		case packet.ProfilePacket != nil:
			if packet.ProfilePacket.Index != index {
				t.Fatalf("heap profile %d is %d", index, packet.ProfilePacket.Index)
			}
			index++
			p.addProfile(t, packet.ProfilePacket)
		default:
			t.Errorf("packet %d is empty", i)
		}
	}
	return p
}

func (p *perfettoTrace) addProfile(t *testing.T, profile *perfettoProfile) {
	t.Helper()
	for _, d := range profile.ProcessDumps {
		at := d.Timestamp - p.began
		if p.dumps[d.HeapName] == nil {
			p.dumps[d.HeapName] = make(map[int64]map[string]*held)
		}
		if p.dumps[d.HeapName][at] == nil {
			p.dumps[d.HeapName][at] = make(map[string]*held)
		}
		if d.StartTimestamp > d.Timestamp || d.PID == 0 {
			t.Errorf("dump of %s from %d to %d", d.HeapName, d.StartTimestamp, d.Timestamp)
		}
		for _, s := range d.Samples {
			if p.stacks[s.CallstackID] == nil {
				t.Fatalf("sample %+v", s)
			}
			p.dumps[d.HeapName][at][strings.Join(p.stacks[s.CallstackID], ";")] = &held{s.SelfAllocated, s.SelfFreed, s.AllocCount, s.FreeCount}
		}
	}
}

// heap returns what of a heap stacks have up to a moment, as Perfetto adds it up: less than before is refused.
func (p *perfettoTrace) heap(t *testing.T, name string, until int64) map[string]held {
	t.Helper()
	all := make(map[string]held)
	var times []int64
	for at := range p.dumps[name] {
		times = append(times, at)
	}
	slices.Sort(times)
	for _, at := range times {
		if at > until {
			break
		}
		for stack, now := range p.dumps[name][at] {
			was := all[stack]
			if now.allocated < was.allocated || now.freed < was.freed || now.allocations < was.allocations || now.frees < was.frees {
				t.Fatalf("at %d %s has %+v, and before that %+v", at, stack, now, was)
			}
			all[stack] = *now
		}
	}
	return all
}

// counters returns the values of each counter, in order, and when they are from.
func (p *perfettoTrace) counters() (values map[string][]int64, times map[string][]int64) {
	values, times = make(map[string][]int64), make(map[string][]int64)
	for _, e := range p.events {
		if e.TrackEvent.Type == "TYPE_COUNTER" {
			name := p.tracks[e.TrackEvent.TrackUUID].Name
			values[name] = append(values[name], e.TrackEvent.CounterValue)
			times[name] = append(times[name], e.Timestamp-p.began)
		}
	}
	return values, times
}

// TestExportPerfetto: by the messages of Perfetto, the trace has counters of each child, failures, lives of blocks and a heap profile.
func TestExportPerfetto(t *testing.T) {
	r := &runner{t: t}
	path := newRecording(t)
	p := perfettoOf(t, []byte(r.run(whole, "export", "perfetto", "-steps", "200", "-snapshots", "10", "-slices", "3", path)))
	if process := p.tracks[1].Process; process == nil || process.PID != os.Getpid() || process.ProcessName == "" || p.began != 946684800e9 {
		t.Errorf("%+v, began %d", p.tracks[1], p.began)
	}
	values, times := p.counters()
	cache := values[`"mem", child "cache"`]
	if len(values) != 3 || len(cache) != 101 || cache[0] != 0 || cache[1] != 1024 || cache[100] != 100<<10 || times[`"mem", child "cache"`][100] < 98.5e9 ||
		slices.Max(values["live bytes"]) != 102912 || values["live bytes"][len(values["live bytes"])-1] != 100<<10 || slices.Max(values[`"mem"`]) != 512 {
		t.Errorf("%v\n%v", values, times)
	}
	lives, begun := 0, make(map[int64]int64)
	for _, e := range p.events {
		track, at := p.tracks[e.TrackEvent.TrackUUID], e.Timestamp-p.began
		switch stack := p.stacks[e.TrackEvent.CallstackIID]; e.TrackEvent.Type {
		case "TYPE_COUNTER":
			if track.Counter == nil || track.Counter.Unit != "UNIT_SIZE_BYTES" {
				t.Errorf("%+v", track)
			}
		case "TYPE_INSTANT":
			if about := e.TrackEvent.about(); e.TrackEvent.Name != "allocate failed" || at != 50e9 || about["of"] != `"mem"` || about["size"] != "2097152" {
				t.Errorf("%+v", e.TrackEvent)
			}
		case "TYPE_SLICE_BEGIN":
			about := e.TrackEvent.about()
			if at != int64(lives)*1e9 || e.TrackEvent.Name != "alloctrace.hold" || track.Name != `"mem", child "cache"` || stack[0] != track.Name+":0" || !strings.Contains(stack[len(stack)-1], "alloctrace.hold:") ||
				about["state"] != "live" || about["size"] != "1024" {
				t.Errorf("%+v at %d on %+v of %q", e.TrackEvent, at, track, stack)
			}
			lives++
			begun[track.UUID] = at
		case "TYPE_SLICE_END":
			if _, ok := begun[track.UUID]; !ok || at != 99.5e9 {
				t.Errorf("%+v at %d", e.TrackEvent, at)
			}
		}
	}
	if lives != 3 {
		t.Errorf("%d lives of blocks, want 3", lives)
	}
	sum := func(of map[string]held, stack string) (sum held) {
		for name, h := range of {
			if strings.HasPrefix(name, stack) {
				sum.allocated, sum.freed, sum.allocations, sum.frees = sum.allocated+h.allocated, sum.freed+h.freed, sum.allocations+h.allocations, sum.frees+h.frees
			}
		}
		return sum
	}
	if len(p.dumps["off-heap"]) != 10 {
		t.Errorf("%d dumps, want 10", len(p.dumps["off-heap"]))
	}
	for until, want := range map[int64][2]held{
		49.75e9: {{51200, 0, 50, 0}, {25600, 25600, 50, 50}},
		99.5e9:  {{102400, 0, 100, 0}, {51200, 51200, 100, 100}},
	} {
		of := p.heap(t, "off-heap", until)
		if got := [2]held{sum(of, `"mem", child`), sum(of, `"mem":0`)}; got != want {
			t.Errorf("at %d: %+v, want %+v", until, got, want)
		}
	}
	peak := p.dumps["off-heap at the peak"][99e9]
	if got := sum(p.heap(t, "off-heap at the peak", 100e9), ""); len(peak) != 2 || got != (held{102912, 0, 101, 0}) {
		t.Errorf("at the peak %+v in %d sites", got, len(peak))
	}
}

// TestExportPerfettoStorm: what stacks have allocated and hold in the end, and at the peak, is what the model has.
func TestExportPerfettoStorm(t *testing.T) {
	path, m := newStorm(t, stormEvents())
	r := &runner{t: t}
	p := perfettoOf(t, []byte(r.run(whole, "export", "perfetto", "-by", "site", path)))
	allocated, live, byDepth, blocks := make(map[string]int64), make(map[string]int64), make(map[int]int64), int64(0)
	names := map[string]string{`"mem":0`: "", `"mem", child "cache":0`: "cache", `"mem", child "it's \"odd\"":0`: `it's "odd"`}
	end := int64(math.MaxInt64)
	for stack, has := range p.heap(t, "off-heap", end) {
		of, _, _ := strings.Cut(stack, ";")
		child, ok := names[of]
		if !ok {
			t.Fatalf("%q", stack)
		}
		allocated[child] += has.allocated
		live[child] += has.allocated - has.freed
		byDepth[strings.Count(stack, "alloctrace.deep:")] += has.allocated - has.freed
		blocks += has.allocations
	}
	if !maps.Equal(allocated, m.allocated) || !maps.Equal(live, m.live) || blocks != m.blocks {
		t.Errorf("%d blocks, allocated %v, live %v, want %d, %v, %v", blocks, allocated, live, m.blocks, m.allocated, m.live)
	}
	for depth, want := range m.held {
		if byDepth[depth] != want {
			t.Errorf("live at depth %d: %d, want %d", depth, byDepth[depth], want)
		}
	}
	peak := int64(0)
	for _, has := range p.heap(t, "off-heap at the peak", end) {
		peak += has.allocated
	}
	values, _ := p.counters()
	all := values["live bytes"]
	if peak != m.peak || slices.Max(all) != m.peak || all[len(all)-1] != total(m.live) || len(values) < 1+3*16 {
		t.Errorf("peak %d and %d, live %d, want %d and %d; %d counters", peak, slices.Max(all), all[len(all)-1], m.peak, total(m.live), len(values))
	}
}
