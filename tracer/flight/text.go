package flight

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/text"
)

const (
	textEvents   = 256 // in the text of a record
	textChildren = 32
	textSlices   = 10 // of the window
)

// WriteText writes a record of now to w, in one Write. It makes no trace.
func (r *Recorder) WriteText(w io.Writer) error {
	if _, err := w.Write(r.take(r.demand(context.Background())).text()); err != nil {
		return fmt.Errorf("flight: WriteText: %w", err)
	}
	return nil
}

// Dump makes a record of now, with a link to the span in ctx, where Options say. It returns the error of the Writer.
func (r *Recorder) Dump(ctx context.Context) error {
	if err := r.dump(r.demand(ctx)); err != nil {
		return fmt.Errorf("flight: Dump: %w", err)
	}
	return nil
}

// why returns the cause for people.
func (c *cause) why() string {
	if c.err == nil {
		return c.reason
	}
	where := ""
	if c.region != "" {
		where = fmt.Sprintf(" in region %q", text.Name(c.region))
	}
	return fmt.Sprintf("%s of %s failed%s: %s", c.event.Kind.Op(), size(c.event.Size), where, text.Line(c.err.Error(), text.MaxName))
}

func size(n uintptr) string {
	if int64(n) < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return counter.FormatBytes(int64(n))
}

func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

func change(n int64) string {
	if n > 0 {
		return "+" + counter.FormatBytes(n)
	}
	return counter.FormatBytes(n)
}

// text returns the record for people.
func (rec *record) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "allocator flight record of %s", rec.to.UTC().Format("2006-01-02T15:04:05.000000Z"))
	if rec.proxy != "" {
		fmt.Fprintf(&b, ", %q", text.Name(rec.proxy))
	}
	fmt.Fprintf(&b, "\nwhy: %s\n", rec.why())
	if rec.span.IsValid() {
		fmt.Fprintf(&b, "  in span %s of trace %s\n", rec.span.SpanID(), rec.span.TraceID())
	}
	if rec.suppressed > 0 {
		fmt.Fprintf(&b, "  %s since the record before made none\n", number(rec.suppressed, "trigger"))
	}
	rec.writeTimes(&b)
	rec.writeHolders(&b)
	rec.writeEvents(&b)
	return b.Bytes()
}

// writeTimes writes the totals, and then those of each tenth of the window.
func (rec *record) writeTimes(b *bytes.Buffer) {
	t := rec.totals
	fmt.Fprintf(b, "\nthe last %v: %s allocated by %s and %s, %s freed by %s, %s, %s\n", rec.window,
		counter.FormatBytes(t.in), number(t.allocations, "allocation"), number(t.reallocations, "reallocation"),
		counter.FormatBytes(t.out), number(t.frees, "free"), number(t.failures, "failure"), change(t.net()))
	if rec.cut {
		fmt.Fprintf(b, "  the events reach back %v only: more fit into a larger Options.Events\n", rec.to.Sub(rec.from))
	}
	begin, width := rec.to.Add(-rec.window), rec.window/textSlices
	var parts [textSlices]record
	for _, e := range rec.events {
		i := min(max(int(e.Time.Sub(begin)/max(width, 1)), 0), textSlices-1)
		parts[i].events = append(parts[i].events, e)
	}
	live := int64(0)
	if rec.stats != nil {
		live = rec.stats.LiveBytes
	}
	var lines []string
	for i := textSlices - 1; i >= 0; i-- {
		p := &parts[i]
		p.addUp(nil)
		end := ""
		if rec.stats != nil {
			end = fmt.Sprintf(" %12s live", counter.FormatBytes(live))
		}
		if len(p.events) > 0 {
			lines = append(lines, fmt.Sprintf("  %12s %6d events %12s allocated %12s freed %6d failed%s\n", "-"+(width*time.Duration(textSlices-i)).String(),
				len(p.events), counter.FormatBytes(p.totals.in), counter.FormatBytes(p.totals.out), p.totals.failures, end))
		}
		live = max(0, live-p.totals.net())
	}
	for i := len(lines) - 1; i >= 0; i-- {
		b.WriteString(lines[i])
	}
}

// writeHolders writes who holds what.
func (rec *record) writeHolders(b *bytes.Buffer) {
	if rec.stats != nil {
		s := rec.stats
		fmt.Fprintf(b, "\nlive: %s in %s, at the peak %s\n", counter.FormatBytes(s.LiveBytes), number(s.LiveBlocks, "block"), counter.FormatBytes(s.PeakBytes))
	}
	changes := make(map[string]int64)
	for _, c := range rec.byChild {
		changes[c.name] = c.net()
	}
	var rest counter.Stats
	if rec.stats != nil {
		rest = *rec.stats
	}
	for _, s := range rec.children {
		rest = rest.Sub(s)
	}
	names := rec.holding()
	for i, name := range names {
		if i == textChildren {
			fmt.Fprintf(b, "  and %d more children\n", len(names)-i)
			break
		}
		s := rec.children[name]
		fmt.Fprintf(b, "  %12s in %s, %s: %s\n", counter.FormatBytes(s.LiveBytes), number(s.LiveBlocks, "block"), change(changes[name]), text.Line(name, text.MaxName))
	}
	if rec.stats != nil && len(rec.children) > 0 && rest.LiveBlocks > 0 {
		fmt.Fprintf(b, "  %12s in %s of no child\n", counter.FormatBytes(rest.LiveBytes), number(rest.LiveBlocks, "block"))
	}
	if rec.holders != nil {
		fmt.Fprintf(b, "\nby calls: %s", strings.TrimRight(rec.holders.String(), "\n")+"\n")
	}
}

// writeEvents writes the last events.
func (rec *record) writeEvents(b *bytes.Buffer) {
	events := rec.events
	fmt.Fprintf(b, "\nevents:\n")
	if more := len(events) - textEvents; more > 0 {
		fmt.Fprintf(b, "  %s before\n", number(int64(more), "event"))
		events = events[more:]
	}
	for _, e := range events {
		fmt.Fprintf(b, "  %s\n", rec.line(e))
	}
}

// line returns the line of an event.
func (rec *record) line(e ring.Record) string {
	line := fmt.Sprintf("%+12.3fms %-17s", float64(e.Time.Sub(rec.to))/float64(time.Millisecond), kind(e.Kind))
	if e.Kind != 0 {
		line += fmt.Sprintf(" %12s aligned to %s", size(e.Size), size(e.Align))
	}
	if e.Child != "" {
		line += " of " + text.Line(e.Child, text.MaxName)
	}
	if e.Err != nil {
		line += ": " + text.Line(e.Err.Error(), text.MaxName)
	}
	return line
}

// kind returns the name of k; 0 is of an event whose error the ring has forgotten.
func kind(k alloctrace.Kind) string {
	if k == 0 {
		return "failed"
	}
	return k.String()
}
