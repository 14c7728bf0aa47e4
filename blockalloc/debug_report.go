package blockalloc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a [Debug] finds beside [ErrDoubleFree], [ErrNotOwned] and [ErrLive].
var (
	ErrOverrun      = errors.New("access past the end of a block")
	ErrUnderrun     = errors.New("access before the start of a block")
	ErrUseAfterFree = errors.New("block used after it was freed")
	ErrNotZeroed    = errors.New("memory not zeroed")
)

// DebugKind is what a [DebugReport] is on.
type DebugKind int

// The kinds, with the error that the report wraps.
const (
	DebugDoubleFree   DebugKind = iota // ErrDoubleFree: a free or reallocation of a block that was freed
	DebugForeign                       // ErrNotOwned: of one that this Debug does not know
	DebugWrongSize                     // ErrNotOwned: of a live one with another size
	DebugInterior                      // ErrNotOwned: of something that begins inside a block
	DebugOverrun                       // ErrOverrun
	DebugUnderrun                      // ErrUnderrun
	DebugUseAfterFree                  // ErrUseAfterFree
	DebugNotZeroed                     // ErrNotZeroed: the parent broke its promise
	DebugLeak                          // ErrLive: blocks that one call stack allocated and nobody freed
)

var debugKinds = [...]struct {
	name string
	err  error
}{
	{"double free", ErrDoubleFree},
	{"foreign free", ErrNotOwned},
	{"wrong-size free", ErrNotOwned},
	{"interior free", ErrNotOwned},
	{"overrun", ErrOverrun},
	{"underrun", ErrUnderrun},
	{"use after free", ErrUseAfterFree},
	{"not zeroed", ErrNotZeroed},
	{"leak", ErrLive},
}

// String returns, for example, "double free".
func (k DebugKind) String() string {
	if k < 0 || int(k) >= len(debugKinds) {
		return fmt.Sprintf("DebugKind(%d)", int(k))
	}
	return debugKinds[k].name
}

// A DebugPlace is where a block is or was. It keeps nothing alive.
type DebugPlace struct {
	Addr   uintptr
	Layout Layout
}

func placeOf(b Block) DebugPlace { return DebugPlace{b.Addr(), b.Layout()} }

// String returns what Block.String does.
func (p DebugPlace) String() string { return fmt.Sprintf("block %#x of %v", p.Addr, p.Layout) }

// A DebugReport is an error that a [Debug] has found, for [errors.As].
type DebugReport struct {
	Kind  DebugKind
	Op    string     // the method that found it, "" when a block left the quarantine
	Block DebugPlace // the block concerned, zero for DebugForeign; of a leak the first
	Given DebugPlace // what was passed to Free or Reallocate

	// Offset is where the memory that was accessed begins, in bytes from the start of
	// Block; for DebugInterior it is where Given begins. Length is how many
	// bytes there are to the last that is wrong; Found and Want are the first 8 of
	// them. Fault says that the access was not found by its traces: the processor
	// refused it. Whether it was to read or to write is not known then, Go does not
	// tell, and the last three are empty.
	Offset      int
	Length      int
	Found, Want []byte
	Fault       bool

	// Blocks and Bytes are how many leaked blocks Allocated is the origin of.
	Blocks int
	Bytes  int64

	Allocated DebugStack // who allocated Block
	Freed     DebugStack // who freed or reallocated it, if it is not live
	Now       DebugStack // who called Op; of Catch, who did the access
}

// report begins a report on r, which may be nil. The caller may or may not hold d.mu.
func (d *Debug) report(kind DebugKind, op string, r *debugBlock, given Block, now DebugStack) *DebugReport {
	report := &DebugReport{Kind: kind, Op: op, Now: now}
	if !given.IsZero() {
		report.Given = placeOf(given)
	}
	if r != nil {
		report.Block, report.Allocated, report.Freed = r.place, r.allocated, r.freed
	}
	if d.options.Report != nil {
		d.tellMu.Lock()
		defer d.tellMu.Unlock()
		d.untold = append(d.untold, report)
	}
	return report
}

func (r *DebugReport) set(hurt *damage) {
	r.Offset, r.Length, r.Found, r.Want = hurt.offset, hurt.length, hurt.found, hurt.want
}

// damaged returns a report if the canaries of a live block are overwritten, or nil.
func (d *Debug) damaged(op string, r *debugBlock, now DebugStack) *DebugReport {
	hurt := r.inspect()
	if hurt == nil {
		return nil
	}
	kind := DebugOverrun
	if hurt.offset < 0 {
		kind = DebugUnderrun
	}
	report := d.report(kind, op, r, Block{}, now)
	report.set(hurt)
	return report
}

// abused returns a report if a freed block was written to, or around, or nil.
func (d *Debug) abused(op string, r *debugBlock, now DebugStack) *DebugReport {
	if r.sealed {
		return nil
	}
	r.show()
	defer r.hide()
	var hurt *damage
	switch {
	case d.options.ZeroFree:
		hurt = differs(r.block.Bytes(), 0)
	case !d.options.NoPoison:
		hurt = differs(r.block.Bytes(), freedPoison)
	}
	if hurt == nil {
		hurt = r.inspect()
	}
	if hurt == nil {
		return nil
	}
	report := d.report(DebugUseAfterFree, op, r, Block{}, now)
	report.set(hurt)
	return report
}

// maxLeaks is how many call stacks Close names.
const maxLeaks = 20

// leaks returns a report for each call stack that allocated live blocks, the largest
// sum first. The caller holds d.gate alone.
func (d *Debug) leaks() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sums := make(map[string]*DebugReport)
	var all []*DebugReport
	for _, r := range d.live() {
		key := fmt.Sprint([]uintptr(r.allocated))
		leak := sums[key]
		if leak == nil {
			leak = &DebugReport{Kind: DebugLeak, Op: "Close", Block: r.place, Allocated: r.allocated}
			sums[key] = leak
			all = append(all, leak)
		}
		leak.Blocks++
		leak.Bytes += int64(r.place.Layout.Size)
	}
	slices.SortStableFunc(all, func(a, b *DebugReport) int { return cmp.Compare(b.Bytes, a.Bytes) })
	if d.options.Report != nil {
		d.tellMu.Lock()
		defer d.tellMu.Unlock()
		d.untold = append(d.untold, all...)
	}
	var errs []error
	for _, leak := range all[:min(len(all), maxLeaks)] {
		errs = append(errs, leak)
	}
	if n := len(all) - len(errs); n > 0 {
		errs = append(errs, fmt.Errorf("blockalloc: Debug.Close: %w: allocated in %d more places", ErrLive, n))
	}
	return errs
}

func isReport(err error) bool {
	var report *DebugReport
	return errors.As(err, &report)
}

// tell calls DebugOptions.Report. The caller holds no lock.
func (d *Debug) tell() {
	if d.options.Report == nil {
		return
	}
	for r := d.nextUntold(); r != nil; r = d.nextUntold() {
		d.options.Report(r)
	}
}

// nextUntold takes the oldest report of which Report does not know, nil if there is none.
func (d *Debug) nextUntold() *DebugReport {
	d.tellMu.Lock()
	defer d.tellMu.Unlock()
	if len(d.untold) == 0 {
		return nil
	}
	r := d.untold[0]
	d.untold = d.untold[1:]
	return r
}

// Unwrap returns the error that goes with r.Kind.
func (r *DebugReport) Unwrap() error { return debugKinds[r.Kind].err }

// Error returns the whole report: a line that says what was found, and below it the
// stacks that are known.
func (r *DebugReport) Error() string {
	var t strings.Builder
	t.WriteString("blockalloc: Debug")
	if r.Op != "" {
		t.WriteString("." + r.Op)
	}
	if r.Given.Addr != 0 {
		fmt.Fprintf(&t, "(%v)", r.Given)
	}
	fmt.Fprintf(&t, ": %v: %s", r.Unwrap(), r.detail())
	writeStack(&t, "allocated by", r.Allocated)
	if r.Kind == DebugDoubleFree {
		writeStack(&t, "freed first by", r.Freed)
		writeStack(&t, map[bool]string{true: "reallocated by", false: "freed again by"}[r.Op == "Reallocate"], r.Now)
		return t.String()
	}
	writeStack(&t, "freed by", r.Freed)
	switch {
	case r.Fault && r.Op == "Catch":
		writeStack(&t, "accessed by", r.Now)
	case r.Op == "Free":
		writeStack(&t, "freed now by", r.Now)
	case r.Op == "Reallocate":
		writeStack(&t, "reallocated now by", r.Now)
	case r.Op == "Allocate":
		writeStack(&t, "allocated now by", r.Now)
	default:
		writeStack(&t, "found by", r.Now)
	}
	return t.String()
}

// detail says what was found beside the kind.
func (r *DebugReport) detail() string {
	switch r.Kind {
	case DebugDoubleFree:
		if r.Given != r.Block {
			return fmt.Sprintf("it was %v: free a block once", r.Block)
		}
		return "free a block once"
	case DebugForeign:
		return "it was not allocated here, or freed long ago: free a block with the allocator it came from"
	case DebugWrongSize:
		return fmt.Sprintf("the block at this address has %d B: free the Block that was allocated", r.Block.Layout.Size)
	case DebugInterior:
		return fmt.Sprintf("it begins at byte %d of %v: free the Block that was allocated", r.Offset, r.Block)
	case DebugLeak:
		return fmt.Sprintf("%d of them, %d bytes in all, the first of them %v", r.Blocks, r.Bytes, r.Block)
	}
	if r.Fault {
		return fmt.Sprintf("at byte %d of %v", r.Offset, r.Block)
	}
	verb := "are"
	if r.Length == 1 {
		verb = "is"
	}
	return fmt.Sprintf("at byte %d of %v: %d B %s wrong, % x instead of % x", r.Offset, r.Block, r.Length, verb, r.Found, r.Want)
}

func writeStack(t *strings.Builder, who string, s DebugStack) {
	if text := s.String(); text != "" {
		fmt.Fprintf(t, "\n\t%s\n\t\t%s", who, strings.ReplaceAll(text, "\n", "\n\t\t"))
	}
}
