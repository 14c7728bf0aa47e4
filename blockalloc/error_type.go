package blockalloc

import (
	"errors"

	"github.com/alloctrace/alloctrace/internal/injected"
)

// ErrorTypeOther is the [ErrorType] of an error that is none of this package's.
const ErrorTypeOther = "_OTHER"

// ErrorType returns the value of OpenTelemetry's attribute error.type for err: a name of
// low cardinality for the error of this package that err wraps, such as "out_of_memory",
// "limit", "double_free" or "closed". Of several it is the most specific one: an error of
// [Limit], which wraps [ErrLimit] and [ErrOutOfMemory], is "limit", also where the context
// ended while it waited. Other errors are [ErrorTypeOther], and nil is "". Spans, logs and
// metrics that name errors all use it. It costs some hundred nanoseconds.
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
	{ErrLimit, "limit"},
	{ErrOutOfMemory, "out_of_memory"},
}
