package debug

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/canary"
)

// Kind is the misuse that a [Report] is about.
type Kind int

// The kinds, with the error that the report wraps.
const (
	DoubleFree   Kind = iota // ErrDoubleFree: a free or reallocation of a block that was freed
	Foreign                  // ErrNotOwned: of one that this Allocator does not know
	WrongSize                // ErrNotOwned: of a live one with another size
	Interior                 // ErrNotOwned: of something that begins inside a block
	Overrun                  // ErrOverrun
	Underrun                 // ErrUnderrun
	UseAfterFree             // ErrUseAfterFree
	NotZeroed                // ErrNotZeroed: the parent broke its promise
	Leak                     // ErrLive: blocks that one call stack allocated and nobody freed
)

var kinds = [...]struct {
	name string
	err  error
}{
	{"double free", blockalloc.ErrDoubleFree},
	{"foreign free", blockalloc.ErrNotOwned},
	{"wrong-size free", blockalloc.ErrNotOwned},
	{"interior free", blockalloc.ErrNotOwned},
	{"overrun", blockalloc.ErrOverrun},
	{"underrun", blockalloc.ErrUnderrun},
	{"use after free", blockalloc.ErrUseAfterFree},
	{"not zeroed", blockalloc.ErrNotZeroed},
	{"leak", blockalloc.ErrLive},
}

// String returns, for example, "double free".
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kinds[k].name
}

// A Place is the address and layout of a block, which may be freed. It keeps nothing
// alive.
type Place struct {
	Addr   uintptr
	Layout blockalloc.Layout
}

func placeOf(b blockalloc.Block) Place { return Place{b.Addr(), b.Layout()} }

// String returns the same as Block.String.
func (p Place) String() string { return fmt.Sprintf("block %#x of %v", p.Addr, p.Layout) }

// A Report is the error for misuse that an [Allocator] found, or one of package guard. Get it by [errors.As].
type Report struct {
	By    string // the package that found it, "debug" or "guard"
	Kind  Kind
	Op    string // the method that found it, "" when a block left the quarantine
	Block Place  // the block concerned, zero for Foreign; of a leak the first
	Given Place  // what was passed to Free or Reallocate

	// Offset is where the accessed memory begins, in bytes from the start of Block; for
	// Interior, where Given begins. Length is how many bytes there are up to the last wrong
	// one; Found and Want are the first 8 of them. Fault says that the processor refused
	// the access. Whether that was a read or a write is not known then, and Length, Found
	// and Want are empty.
	Offset      int
	Length      int
	Found, Want []byte
	Fault       bool

	// Blocks and Bytes are the sums of the leaked blocks that Allocated allocated.
	Blocks int
	Bytes  int64

	Allocated Stack // who allocated Block
	Freed     Stack // who freed or reallocated it, if it is not live
	Now       Stack // who called Op; of Catch and Describe, who did the access

	skip callers.Skip
}

// report begins a report on r, which may be nil.
func (d *Allocator) report(kind Kind, op string, r *record, given blockalloc.Block, now Stack) *Report {
	report := &Report{By: "debug", Kind: kind, Op: op, Now: now, skip: d.skip}
	if !given.IsZero() {
		report.Given = placeOf(given)
	}
	if r != nil {
		report.Block, report.Allocated, report.Freed = r.place, r.allocated, r.freed
	}
	if d.options.OnReport != nil {
		d.reportMu.Lock()
		defer d.reportMu.Unlock()
		d.undelivered = append(d.undelivered, report)
	}
	return report
}

func (r *Report) set(damage *canary.Mismatch) {
	r.Offset, r.Length, r.Found, r.Want = damage.Offset, damage.Length, damage.Found, damage.Want
}

// damaged returns a report if the canaries of a live block were overwritten, or nil.
func (d *Allocator) damaged(op string, r *record, now Stack) *Report {
	damage := r.inspect()
	if damage == nil {
		return nil
	}
	kind := Overrun
	if damage.Offset < 0 {
		kind = Underrun
	}
	report := d.report(kind, op, r, blockalloc.Block{}, now)
	report.set(damage)
	return report
}

// abused returns a report if a freed block or its canaries were written to, or nil.
func (d *Allocator) abused(op string, r *record, now Stack) *Report {
	if r.sealed {
		return nil
	}
	r.unpoison()
	defer r.poison()
	var damage *canary.Mismatch
	switch {
	case d.options.ZeroFree:
		damage = canary.Differs(r.block.Bytes(), 0)
	case !d.options.NoPoison:
		damage = canary.Differs(r.block.Bytes(), freedPoison)
	}
	if damage == nil {
		damage = r.inspect()
	}
	if damage == nil {
		return nil
	}
	report := d.report(UseAfterFree, op, r, blockalloc.Block{}, now)
	report.set(damage)
	return report
}

// maxLeaks is how many call stacks Close names.
const maxLeaks = 20

// leaks returns a report for each call stack that allocated live blocks, as reports show it, the
// largest sum first. d.gate is locked.
func (d *Allocator) leaks() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sums := make(map[string]*Report) // by addresses and by calls: there is one for all addresses of the same calls
	var all []*Report
	for _, r := range d.live() {
		key := fmt.Sprint([]uintptr(r.allocated))
		leak := sums[key]
		if leak == nil {
			calls := d.calls(r.allocated)
			leak = sums[calls]
			if leak == nil {
				leak = &Report{By: "debug", Kind: Leak, Op: "Close", Block: r.place, Allocated: r.allocated, skip: d.skip}
				sums[calls] = leak
				all = append(all, leak)
			}
			sums[key] = leak
		}
		leak.Blocks++
		leak.Bytes += int64(r.place.Layout.Size)
	}
	slices.SortStableFunc(all, func(a, b *Report) int { return cmp.Compare(b.Bytes, a.Bytes) })
	if d.options.OnReport != nil {
		d.reportMu.Lock()
		defer d.reportMu.Unlock()
		d.undelivered = append(d.undelivered, all...)
	}
	var errs []error
	for _, leak := range all[:min(len(all), maxLeaks)] {
		errs = append(errs, leak)
	}
	if n := len(all) - len(errs); n > 0 {
		errs = append(errs, fmt.Errorf("debug: Close: %w: allocated in %d more places", blockalloc.ErrLive, n))
	}
	return errs
}

// calls tells the calls of a stack that reports show from others.
func (d *Allocator) calls(s Stack) string {
	var calls strings.Builder
	for _, f := range d.skip.Frames(s) {
		fmt.Fprintf(&calls, "%q %q %d\n", f.Function, f.File, f.Line)
	}
	return calls.String()
}

func isReport(err error) bool {
	var report *Report
	return errors.As(err, &report)
}

// deliver calls Options.OnReport with what was not delivered yet. No lock is held.
func (d *Allocator) deliver() {
	if d.options.OnReport == nil {
		return
	}
	for r := d.nextUndelivered(); r != nil; r = d.nextUndelivered() {
		d.options.OnReport(r)
	}
}

// nextUndelivered takes the oldest report that was not delivered, nil if there is none.
func (d *Allocator) nextUndelivered() *Report {
	d.reportMu.Lock()
	defer d.reportMu.Unlock()
	if len(d.undelivered) == 0 {
		return nil
	}
	r := d.undelivered[0]
	d.undelivered = d.undelivered[1:]
	return r
}

// Unwrap returns the error of r.Kind.
func (r *Report) Unwrap() error { return kinds[r.Kind].err }

// Frames returns the frames of a stack of r as Error shows them: those of [Stack.Frames] without the calls of Options.Skip.
func (r *Report) Frames(s Stack) []runtime.Frame { return r.skip.Frames(s) }

// Error returns all of the report: a line that says what was found, and below it the
// known stacks, without the calls of Options.Skip.
func (r *Report) Error() string {
	var t strings.Builder
	t.WriteString(r.By + ": ")
	switch {
	case r.Given.Addr != 0:
		fmt.Fprintf(&t, "%s(%v): ", r.Op, r.Given)
	case r.Op != "":
		t.WriteString(r.Op + ": ")
	}
	fmt.Fprintf(&t, "%v: %s", r.Unwrap(), r.detail())
	r.writeStack(&t, "allocated by", r.Allocated)
	if r.Kind == DoubleFree {
		r.writeStack(&t, "freed first by", r.Freed)
		r.writeStack(&t, map[bool]string{true: "reallocated by", false: "freed again by"}[r.Op == "Reallocate"], r.Now)
		return t.String()
	}
	r.writeStack(&t, "freed by", r.Freed)
	switch {
	case r.Fault && (r.Op == "Catch" || r.Op == "Describe"):
		r.writeStack(&t, "accessed by", r.Now)
	case r.Op == "Free":
		r.writeStack(&t, "freed now by", r.Now)
	case r.Op == "Reallocate":
		r.writeStack(&t, "reallocated now by", r.Now)
	case r.Op == "Allocate":
		r.writeStack(&t, "allocated now by", r.Now)
	default:
		r.writeStack(&t, "found by", r.Now)
	}
	return t.String()
}

// detail says what was found beside the kind.
func (r *Report) detail() string {
	switch r.Kind {
	case DoubleFree:
		if r.Given != r.Block {
			return fmt.Sprintf("it was %v: free a block once", r.Block)
		}
		return "free a block once"
	case Foreign:
		return "it was not allocated here, or freed long ago: free a block with the allocator it came from"
	case WrongSize:
		return fmt.Sprintf("the block at this address has %d B: free the Block that was allocated", r.Block.Layout.Size)
	case Interior:
		return fmt.Sprintf("it begins at byte %d of %v: free the Block that was allocated", r.Offset, r.Block)
	case Leak:
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

func (r *Report) writeStack(t *strings.Builder, who string, s Stack) {
	if text := callers.Lines(r.Frames(s)); text != "" {
		fmt.Fprintf(t, "\n\t%s\n\t\t%s", who, strings.ReplaceAll(text, "\n", "\n\t\t"))
	}
}
