package debug

import (
	"log/slog"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/callers"
)

var _ slog.LogValuer = (*Report)(nil)

// LogValue has [log/slog] write the report as a group, which docs/fields.md has the fields of. What has nothing
// to say is left out. It costs some microseconds a stack.
func (r *Report) LogValue() slog.Value {
	fields := []slog.Attr{slog.String("kind", r.Kind.String()), slog.String("error_type", blockalloc.ErrorType(r))}
	if r.Op != "" {
		fields = append(fields, slog.String("op", r.Op))
	}
	place := r.Block
	if r.Kind == Foreign {
		place = r.Given
	}
	fields = append(fields, slog.Uint64("addr", uint64(place.Addr)),
		slog.Uint64("size", uint64(place.Layout.Size)), slog.Uint64("align", uint64(place.Layout.Align)))
	switch r.Kind {
	case Overrun, Underrun, UseAfterFree, NotZeroed, Interior:
		fields = append(fields, slog.Int("offset", r.Offset), slog.Bool("fault", r.Fault))
	case Leak:
		fields = append(fields, slog.Int("blocks", r.Blocks), slog.Int64("bytes", r.Bytes))
	}
	for _, s := range []struct {
		name  string
		stack Stack
	}{{"allocated", r.Allocated}, {"freed", r.Freed}, {"now", r.Now}} {
		if text := callers.Lines(r.Frames(s.stack)); text != "" {
			fields = append(fields, slog.String(s.name, text))
		}
	}
	return slog.GroupValue(fields...)
}
