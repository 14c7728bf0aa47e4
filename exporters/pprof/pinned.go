package pprof

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// WritePinned writes who pins memory of the allocators, see [heapprofile.Profile.Pinned], as a gzipped protocol buffer with the sample type
// pinned, in bytes. What is pinned by nobody, being empty, is a sample of its own, named so. With a rate of 1, so is what unknown
// blocks pin, and the sum is exact. With other rates the other samples stand for those blocks. WritePinned panics as Pinned does, and if p is
// nil.
func WritePinned(w io.Writer, p *heapprofile.Profile, of ...blockalloc.Allocator) error {
	require("WritePinned", p != nil)
	report, err := p.Pinned(of...)
	if err == nil {
		err = buildPinned(report, time.Now()).Write(w)
	}
	if err != nil {
		return fmt.Errorf("pprof: WritePinned: %w", err)
	}
	return nil
}

func buildPinned(r heapprofile.PinnedReport, at time.Time) *profile.Profile {
	b := newBuilder(int(r.Rate), at)
	b.profile.SampleType = []*profile.ValueType{{Type: "pinned", Unit: "bytes"}}
	for _, s := range r.Samples {
		b.add(s.Stack, s.Labels, s.Bytes)
	}
	if r.Rate <= 1 {
		b.addNamed("unknown blocks", r.Unknown)
	}
	b.addNamed("nobody: empty", r.Empty)
	clean(b.profile)
	return b.profile
}

// addNamed adds a sample that has no stack, but only a name.
func (b *builder) addNamed(name string, value int64) {
	if value > 0 {
		b.profile.Sample = append(b.profile.Sample, &profile.Sample{Location: b.named([]heapprofile.Frame{{Function: name}}), Value: []int64{value}})
	}
}

// servePinned answers a request for who pins memory.
func (h handler) servePinned(w http.ResponseWriter, r *http.Request, o options) {
	if len(h.of) == 0 {
		fail(w, http.StatusBadRequest, errors.New("pinned=1: this handler does not know whose memory that is: have the program pass its Proxy to Handler"))
		return
	}
	report, err := h.profile.Pinned(h.of...)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("pinned=1: %w", err))
		return
	}
	setType(w, o.text, o.json)
	switch {
	case r.Method == http.MethodHead:
	case o.text:
		_, _ = io.WriteString(w, report.String()) // the client has gone, here and below
	case o.json:
		_ = json.NewEncoder(w).Encode(report)
	default:
		_ = buildPinned(report, time.Now()).Write(w)
	}
}
