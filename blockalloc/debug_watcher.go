package blockalloc

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// A faultWatcher knows the blocks of another process, see ReportFaults.
type faultWatcher struct {
	blocks map[uintptr]*watchedBlock
	gone   debugHistory
	crash  string // the crash output so far
	report *DebugReport
}

// A watchedBlock is one that has a mapping, by addresses, for here they lead nowhere.
type watchedBlock struct {
	debugBlock
	region, from DebugPlace
}

func newFaultWatcher() *faultWatcher {
	return &faultWatcher{blocks: make(map[uintptr]*watchedBlock)}
}

// watch reads records, and crash output between and in the midst of lines of which
// they may be, and returns the report on the first fault near a block, or nil.
func (w *faultWatcher) watch(from io.Reader) *DebugReport {
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadString(faultBegin)
		w.crashed(strings.TrimSuffix(text, string(faultBegin)))
		if err != nil {
			return w.report
		}
		record, err := in.ReadString(faultEnd)
		if err != nil {
			return w.report
		}
		w.told(strings.TrimSuffix(record, string(faultEnd)))
	}
}

// told takes in a record.
func (w *faultWatcher) told(record string) {
	fields := strings.Fields(record)
	if len(fields) < 2 {
		return
	}
	numbers := make([]uintptr, 0, len(fields))
	for _, f := range fields[1:] {
		n, err := strconv.ParseInt(f, faultBase, 64)
		if err != nil {
			return
		}
		numbers = append(numbers, uintptr(n))
	}
	addr, numbers := numbers[0], numbers[1:]
	b := w.blocks[addr]
	switch what := fields[0][0]; {
	case what == faultAllocated && len(numbers) >= 6:
		n := numbers
		b = &watchedBlock{
			region: DebugPlace{n[2], Layout{Size: n[3]}},
			from:   DebugPlace{n[4], Layout{Size: n[5]}},
		}
		b.place = DebugPlace{addr, Layout{n[0], n[1]}}
		b.allocated, b.unmapped = stackHere(n[6:]), true
		w.blocks[addr] = b
	case what == faultFreed && b != nil:
		b.freed, b.dead = stackHere(numbers), true
	case what == faultUnmapped && b != nil:
		delete(w.blocks, addr)
		w.gone.add(&b.debugBlock)
	}
}

// stackHere makes of a record's stack one of this process.
func stackHere(relative []uintptr) DebugStack {
	base := textBase()
	stack := make(DebugStack, len(relative))
	for i, pc := range relative {
		stack[i] = base + pc
	}
	return stack
}

// faultLine is the one with the address of a fault. "unexpected fault address 0x…" is
// not there: the runtime prints it before it considers itself crashing.
var faultLine = `(?m)^(?:\[signal |PC=0x).* addr=(0x[0-9a-f]+)(?: pc=0x[0-9a-f]+\])?$`

// crashed takes in a piece of crash output. The block is looked for at once: other
// goroutines go on for a while, and with them records.
func (w *faultWatcher) crashed(text string) {
	if text == "" || w.report != nil {
		return
	}
	w.crash += text
	whole := w.crash[:strings.LastIndexByte(w.crash, '\n')+1]
	for _, match := range regexp.MustCompile(faultLine).FindAllStringSubmatch(whole, -1) {
		addr, err := strconv.ParseUint(match[1], 0, 64)
		if err != nil {
			continue
		}
		if r := w.faulted(uintptr(addr)); r != nil {
			w.report = r.faultReport(uintptr(addr))
			return
		}
	}
}

// faulted does what Debug.faulted does.
func (w *faultWatcher) faulted(addr uintptr) *debugBlock {
	for _, b := range w.blocks {
		accessible := addr-b.from.Addr < b.from.Layout.Size && !b.dead
		if addr-b.region.Addr < b.region.Layout.Size && !accessible {
			return &b.debugBlock
		}
	}
	return w.gone.findUnmapped(addr)
}

// faultReport returns a report that was found by no method of Debug.
func (r *debugBlock) faultReport(addr uintptr) *DebugReport {
	return &DebugReport{
		Kind: r.faultKind(addr), Block: r.place, Offset: int(addr - r.place.Addr), Fault: true,
		Allocated: r.allocated, Freed: r.freed,
	}
}
