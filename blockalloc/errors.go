package blockalloc

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/internal/injected"
)

// The errors of this package. An allocator's error wraps one of them and adds the call,
// its arguments and the remedy; test with [errors.Is]. If the operating system refused,
// its own error is wrapped beside it.
var (
	ErrOutOfMemory      = errors.New("out of memory")
	ErrBadLayout        = errors.New("bad layout")
	ErrUnsupportedAlign = errors.New("alignment not supported by this allocator")
	ErrNotOwned         = errors.New("block not owned by this allocator")
	ErrDoubleFree       = errors.New("block already freed")
	ErrLimit            = errors.New("limit reached")
	ErrScoped           = errors.New("an inner scope is open")
	ErrClosed           = errors.New("allocator closed")
	ErrLive             = errors.New("blocks are still live")
	ErrWouldMove        = errors.New("the block cannot be resized in place")
)

// The errors that package blockalloc/debug finds beside [ErrDoubleFree], [ErrNotOwned] and
// [ErrLive].
var (
	ErrOverrun      = errors.New("access past the end of a block")
	ErrUnderrun     = errors.New("access before the start of a block")
	ErrUseAfterFree = errors.New("block used after it was freed")
	ErrNotZeroed    = errors.New("memory not zeroed")
)

// ErrorTypeOther is the [ErrorType] of an error that wraps none of this package.
const ErrorTypeOther = "_OTHER"

// ErrorType returns the value of OpenTelemetry's attribute error.type for err: a name
// of low cardinality, such as "out_of_memory", "limit", "double_free" or "closed". It
// names the most specific error of this package that err wraps: an error of [Limit],
// which wraps [ErrLimit] and [ErrOutOfMemory], is "limit". Other errors are
// [ErrorTypeOther], and nil is "". Spans, logs and metrics of this module use these
// names. It costs some hundred nanoseconds.
func ErrorType(err error) string {
	if err == nil {
		return ""
	}
	for _, t := range errorTypes {
		if errors.Is(err, t.err) {
			return t.name
		}
	}
	return ErrorTypeOther
}

// errorTypes has the most specific errors first: those that are wrapped beside others.
var errorTypes = [...]struct {
	err  error
	name string
}{
	{injected.Err, "injected"},
	{ErrUseAfterFree, "use_after_free"},
	{ErrOverrun, "overrun"},
	{ErrUnderrun, "underrun"},
	{ErrNotZeroed, "not_zeroed"},
	{ErrDoubleFree, "double_free"},
	{ErrNotOwned, "not_owned"},
	{ErrUnsupportedAlign, "unsupported_align"},
	{ErrBadLayout, "bad_layout"},
	{ErrScoped, "scoped"},
	{ErrClosed, "closed"},
	{ErrLive, "live"},
	{ErrWouldMove, "would_move"},
	{ErrLimit, "limit"},
	{ErrOutOfMemory, "out_of_memory"},
}

// allocateError says which allocator refused which layout and why.
func allocateError(allocator string, l Layout, err error) error {
	return fmt.Errorf("blockalloc: %s.Allocate(%v): %w", allocator, l, err)
}

// freeError says which allocator refused to take which block back and why.
func freeError(allocator string, b Block, err error) error {
	return fmt.Errorf("blockalloc: %s.Free(%v): %w", allocator, b, err)
}

// reallocateError says which allocator left which block as it was and why.
func reallocateError(allocator string, b Block, size uintptr, err error) error {
	return fmt.Errorf("blockalloc: %s.Reallocate(%v, %d): %w", allocator, b, size, err)
}

// resizeError says which allocator left which block as it was and why.
func resizeError(allocator string, b Block, size uintptr, err error) error {
	return fmt.Errorf("blockalloc: %s.Resize(%v, %d): %w", allocator, b, size, err)
}

// closeError says which allocator stays open and how much is live.
func closeError(allocator string, blocks int, size int64) error {
	return fmt.Errorf("blockalloc: %s.Close: %w: %d of them, %d bytes in all: free them first", allocator, ErrLive, blocks, size)
}

var errEmptyReallocate = fmt.Errorf("%w: the alignment wanted is not known: use Allocate", ErrBadLayout)
