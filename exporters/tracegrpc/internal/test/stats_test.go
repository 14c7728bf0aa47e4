package test_test

import (
	"context"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/stats"
)

// recordingAtEnd is a stats.Handler that looks at the span of a call when it begins and ends.
type recordingAtEnd struct {
	remote                  trace.SpanContext // put into the call's context, if it is valid
	began, recording, ended int
}

func (r *recordingAtEnd) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if trace.SpanFromContext(ctx).IsRecording() {
		r.began++
	}
	if r.remote.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, r.remote)
	}
	return ctx
}

func (r *recordingAtEnd) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.End); ok {
		r.ended++
		if trace.SpanFromContext(ctx).IsRecording() {
			r.recording++
		}
	}
}

func (*recordingAtEnd) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*recordingAtEnd) HandleConn(context.Context, stats.ConnStats)                       {}
