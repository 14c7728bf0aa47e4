package main

import (
	"cmp"
	"encoding/binary"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// Numbers of fields of Perfetto's messages, which protos/perfetto/trace there defines; testdata/perfetto has what tests compare them with.
const (
	tracePacket = 1

	packetClockSnapshot   = 6
	packetTimestamp       = 8
	packetSequence        = 10
	packetTrackEvent      = 11
	packetInterned        = 12
	packetSequenceFlags   = 13
	packetProfile         = 37
	packetTrackDescriptor = 60

	sequenceCleared = 1 // of flags
	sequenceNeeds   = 2

	snapshotClocks          = 1
	clockID, clockTimestamp = 1, 2
	clockRealtime           = 1 // IDs
	clockMonotonic          = 3
	clockMonotonicCoarse    = 4 // that of heap profiles
	clockBoottime           = 6 // that of packets

	trackUUID, trackName, trackProcess, trackParent, trackCounter = 1, 2, 3, 5, 8
	processPID, processName                                       = 1, 6
	counterUnit, counterShareKey                                  = 3, 7
	unitBytes                                                     = 3

	eventAnnotations, eventType, eventTrack, eventName, eventCounterValue, eventCallstack = 4, 9, 11, 23, 30, 56
	typeSliceBegin, typeSliceEnd, typeInstant, typeCounter                                = 1, 2, 3, 4
	annotationUint, annotationString, annotationPointer, annotationName                   = 3, 6, 7, 10

	internedFunctions, internedFrames, internedCallstacks, internedPaths, internedSources, internedMappings protowire.Number = 5, 6, 7, 17, 18, 19

	stringID, stringBytes                                                 = 1, 2
	mappingID, mappingPath                                                = 1, 7
	frameID, frameFunction, frameMapping, framePC, frameSource, frameLine = 1, 2, 3, 4, 5, 6
	callstackID, callstackFrames                                          = 1, 2

	profileDumps, profileContinued, profileIndex                                  = 5, 6, 7
	dumpPID, dumpSamples, dumpTimestamp, dumpHeap, dumpInterval, dumpStart        = 1, 2, 9, 11, 12, 15
	sampleCallstack, sampleAllocated, sampleFreed, sampleAllocations, sampleFrees = 1, 2, 3, 5, 6
)

// The tracks that are always there.
const (
	processTrack = 1 + iota
	allTrack     // live bytes of all
	groupsTrack  // has those of groups
	blocksTrack  // has those of blocks
	firstTrack   // of others
)

// perfetto writes live bytes as counters, what failed or was dropped as instants, the lives of blocks as slices, and what each site
// holds as a heap profile, for Perfetto. It reads the recording once.
func (e *export) perfetto(w io.Writer, in *history.Recording) (history.Unknown, error) {
	p := newPerfettoWriter(w, in)
	t := newTracks(e, in, p)
	o := t.options()
	first, last := in.Span()
	heap := newHeapProfile(p, first)
	for i := range e.snapshots {
		o.Moments = append(o.Moments, first+time.Duration(float64(last-first)*float64(i)/float64(e.snapshots)))
	}
	var read *history.History
	o.Reached = func(i int, h *history.History) {
		if read = h; i > 0 {
			heap.snapshot(h, o.Moments[i])
		}
	}
	all := func(*history.Block) bool { return true }
	weight := func(b *history.Block) float64 { return float64(b.Size) * float64(b.Life()) }
	blocks := history.FindBlocks(in, all, func(a, b *history.Block) int { return cmp.Compare(weight(b), weight(a)) }, e.slices, o)
	if read != nil {
		t.end(read.Now())
		heap.snapshot(read, read.Now())
		heap.peak(read)
	}
	p.lives(blocks.Blocks)
	return blocks.Unknown, p.err
}

// A perfettoWriter writes a trace packet by packet.
type perfettoWriter struct {
	w      io.Writer
	began  uint64 // nanoseconds since 1970
	pid    uint64
	tracks uint64
	packet message
	count  int
	err    error

	series  map[*series]uint64 // tracks
	strings map[internedString]uint64
	frames  map[recording.Frame]uint64
	stacks  map[string]uint64 // by the frames
	sites   map[*history.Site]uint64
	fresh   message // InternedData that was not sent
	key     []byte
}

type internedString struct {
	kind protowire.Number
	s    string
}

func newPerfettoWriter(w io.Writer, in *history.Recording) *perfettoWriter {
	h := in.Header()
	p := &perfettoWriter{
		w: w, began: uint64(h.Began.UnixNano()), pid: uint64(uint32(h.PID)), tracks: firstTrack,
		series: make(map[*series]uint64), strings: make(map[internedString]uint64), frames: make(map[recording.Frame]uint64), stacks: make(map[string]uint64), sites: make(map[*history.Site]uint64),
	}
	var clocks message
	for _, id := range []uint64{clockRealtime, clockMonotonic, clockMonotonicCoarse, clockBoottime} {
		clocks = clocks.message(snapshotClocks, message(nil).number(clockID, id).number(clockTimestamp, p.began))
	}
	p.send(p.at(0).message(packetClockSnapshot, clocks))
	process := message(nil).number(processPID, p.pid).text(processName, h.Program)
	p.track(message(nil).number(trackUUID, processTrack).message(trackProcess, process))
	program := message(nil).number(mappingID, 1).number(mappingPath, p.string(internedPaths, h.Program))
	p.fresh = p.fresh.message(internedMappings, program)
	return p
}

// at begins a packet of a moment.
func (p *perfettoWriter) at(moment time.Duration) message {
	return message(nil).number(packetTimestamp, p.time(moment))
}

func (p *perfettoWriter) time(moment time.Duration) uint64 { return p.began + uint64(moment) }

// send writes a packet, with the strings, frames and stacks that it or one after it names.
func (p *perfettoWriter) send(packet message) {
	flags := uint64(sequenceNeeds)
	if p.count == 0 {
		flags = sequenceCleared
	}
	p.count++
	packet = packet.number(packetSequence, 1).number(packetSequenceFlags, flags)
	if len(p.fresh) > 0 {
		packet = packet.message(packetInterned, p.fresh)
		p.fresh = p.fresh[:0]
	}
	if p.err == nil {
		p.packet = p.packet[:0].message(tracePacket, packet)
		_, p.err = p.w.Write(p.packet)
	}
}

func (p *perfettoWriter) track(descriptor message) {
	p.send(message(nil).message(packetTrackDescriptor, descriptor))
}

// newTrack adds a track below another.
func (p *perfettoWriter) newTrack(parent uint64, name string) uint64 {
	p.tracks++
	p.track(message(nil).number(trackUUID, p.tracks).number(trackParent, parent).text(trackName, name))
	return p.tracks
}

func (p *perfettoWriter) event(at time.Duration, kind, track uint64, of message) {
	p.send(p.at(at).message(packetTrackEvent, of.number(eventType, kind).number(eventTrack, track)))
}

func (p *perfettoWriter) counter(at time.Duration, s *series, bytes int64) {
	track, ok := p.series[s]
	if !ok {
		track = p.counterTrack(s)
		p.series[s] = track
	}
	p.event(at, typeCounter, track, message(nil).number(eventCounterValue, uint64(bytes)))
}

func (p *perfettoWriter) counterTrack(s *series) uint64 {
	counter := message(nil).number(counterUnit, unitBytes).text(counterShareKey, "live bytes")
	track, parent := uint64(allTrack), uint64(processTrack)
	switch s.number {
	case 0:
	case 1:
		p.track(message(nil).number(trackUUID, groupsTrack).number(trackParent, processTrack).text(trackName, "live bytes of each"))
		fallthrough
	default:
		p.tracks++
		track, parent = p.tracks, groupsTrack
	}
	p.track(message(nil).number(trackUUID, track).number(trackParent, parent).text(trackName, s.name).message(trackCounter, counter))
	return track
}

func (p *perfettoWriter) instant(at time.Duration, name string, e *recording.Event) {
	m := message(nil).text(eventName, name)
	switch {
	case e == nil:
	case e.Dropped > 0:
		m = m.message(eventAnnotations, message(nil).text(annotationName, "events").number(annotationUint, uint64(e.Dropped)))
	default:
		m = about(m, ownerName(e.Proxy, e.Child), e.Size, e.Requested, e.Region)
		if stack := stackOf(e); len(stack) > 0 {
			m = m.number(eventCallstack, p.callstack(ownerName(e.Proxy, e.Child), stack))
		}
	}
	p.event(at, typeInstant, processTrack, m)
}

// about adds what is known of a block to an event.
func about(m message, of string, size, requested uintptr, region string) message {
	text := func(name, value string) {
		m = m.message(eventAnnotations, message(nil).text(annotationName, name).text(annotationString, value))
	}
	text("of", of)
	if region != "" {
		text("region", region)
	}
	m = m.message(eventAnnotations, message(nil).text(annotationName, "size").number(annotationUint, uint64(size)))
	if requested > 0 {
		m = m.message(eventAnnotations, message(nil).text(annotationName, "requested").number(annotationUint, uint64(requested)))
	}
	return m
}

// string returns the ID of a string, of one of InternedData's kinds.
func (p *perfettoWriter) string(kind protowire.Number, s string) uint64 {
	key := internedString{kind, s}
	id, ok := p.strings[key]
	if !ok {
		id = uint64(len(p.strings) + 1)
		p.strings[key] = id
		p.fresh = p.fresh.message(kind, message(nil).number(stringID, id).text(stringBytes, s))
	}
	return id
}

func (p *perfettoWriter) frame(f recording.Frame) uint64 {
	id, ok := p.frames[f]
	if ok {
		return id
	}
	function := p.string(internedFunctions, f.Function)
	id = uint64(len(p.frames) + 1)
	p.frames[f] = id
	// Perfetto knows a frame by its address and its function: so each has an address of its own.
	m := message(nil).number(frameID, id).number(frameFunction, function).number(frameMapping, 1).number(framePC, id)
	if f.File != "" {
		m = m.number(frameSource, p.string(internedSources, f.File)).number(frameLine, uint64(f.Line))
	}
	p.fresh = p.fresh.message(internedFrames, m)
	return id
}

// callstack returns the ID of a stack, whose outermost frame is who was asked for memory: in Perfetto a flame graph is of all of them.
func (p *perfettoWriter) callstack(of string, stack []recording.Frame) uint64 {
	p.key = binary.AppendUvarint(p.key[:0], p.frame(recording.Frame{Function: of}))
	for i := len(stack) - 1; i >= 0; i-- {
		p.key = binary.AppendUvarint(p.key, p.frame(stack[i]))
	}
	if len(stack) == 0 {
		p.key = binary.AppendUvarint(p.key, p.frame(recording.Frame{Function: "unknown"}))
	}
	id, ok := p.stacks[string(p.key)]
	if !ok {
		id = uint64(len(p.stacks) + 1)
		p.stacks[string(p.key)] = id
		m := message(nil).number(callstackID, id)
		for rest := p.key; len(rest) > 0; {
			frame, n := binary.Uvarint(rest)
			m, rest = m.number(callstackFrames, frame), rest[n:]
		}
		p.fresh = p.fresh.message(internedCallstacks, m)
	}
	return id
}

func (p *perfettoWriter) site(s *history.Site) uint64 {
	id, ok := p.sites[s]
	if !ok {
		id = p.callstack(ownerName(s.Proxy, s.Child), s.Stack)
		p.sites[s] = id
	}
	return id
}
