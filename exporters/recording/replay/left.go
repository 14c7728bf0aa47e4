package replay

import (
	"fmt"
	"runtime/debug"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// freeLeft finds what the first failure is about, and frees what is live. It checks it too, unless the replay was stopped.
func (w *worker) freeLeft() {
	debug.SetPanicOnFault(true)
	r := w.run
	r.nameOther()
	ended := r.stopped.Load()
	for i := range r.slots {
		s := &r.slots[i]
		if s.acquired < 0 {
			continue
		}
		if !ended {
			o := &r.p.ops[s.acquired]
			r.result.Left.Blocks++
			r.result.Left.Requested += int64(o.size())
			r.result.Left.Granted += int64(s.block.Size())
		}
		w.freeOne(s, ended)
	}
	for _, b := range r.refused {
		w.freeAgain(b)
	}
	r.result.Resident.After = resident()
}

// freeOne frees the block of s. After the replay was stopped, errors are expected, and say nothing.
func (w *worker) freeOne(s *slot, ended bool) {
	w.next, w.op = s.acquired, callNames[callFree]
	r := w.run
	defer func() {
		v := recover()
		if w.returned(); v != nil && !ended {
			w.atEnd(Panicked, fmt.Errorf("%v", v), 0)
		}
	}()
	b := s.block
	if !ended {
		if wrong := check(b.Bytes(), int(b.Size()), seedOf(s.acquired), r.options.Edges); wrong != nil {
			w.atEnd(Changed, wrong, b.Addr()+uintptr(wrong.offset))
		}
	}
	w.entering()
	err := r.allocator.Free(b)
	if w.returned(); err != nil && !ended {
		w.atEnd(Refused, err, 0)
	}
}

// freeAgain frees what could not be freed, if it can be now. What is wrong with it was said.
func (w *worker) freeAgain(b blockalloc.Block) {
	defer func() {
		_ = recover()
		w.returned()
	}()
	w.entering()
	_ = w.run.allocator.Free(b)
}

func (w *worker) atEnd(reason Reason, err error, wrong uintptr) {
	f := w.failure(reason, err)
	f.AtEnd = true
	w.run.fail(f, wrong)
	w.run.nameOther()
}

// nameOther finds the block that has the byte which the first failure found changed, beside the one whose byte it is.
func (r *run) nameOther() {
	f := r.result.First
	if f == nil || f.Other != nil || r.wrong == 0 {
		return
	}
	for i := range r.slots {
		s := &r.slots[i]
		if s.acquired < 0 || r.wrong < s.block.Addr() || r.wrong-s.block.Addr() >= s.block.Size() {
			continue
		}
		if event := r.p.event(&r.p.ops[s.acquired]); event.Number != f.Event.Number && (f.Acquired == nil || event.Number != f.Acquired.Number) {
			f.Other = &event
			return
		}
	}
}
