// All has all packages in one program.
package main

import (
	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	_ "github.com/alloctrace/alloctrace/exporters/expvars"
	_ "github.com/alloctrace/alloctrace/exporters/memlimit"
	_ "github.com/alloctrace/alloctrace/exporters/otellog"
	_ "github.com/alloctrace/alloctrace/exporters/otelmetric"
	_ "github.com/alloctrace/alloctrace/exporters/otlp"
	_ "github.com/alloctrace/alloctrace/exporters/otlpfile"
	_ "github.com/alloctrace/alloctrace/exporters/pprof"
	_ "github.com/alloctrace/alloctrace/exporters/prometheus"
	_ "github.com/alloctrace/alloctrace/exporters/recording"
	_ "github.com/alloctrace/alloctrace/exporters/rss"
	_ "github.com/alloctrace/alloctrace/exporters/tracegrpc"
	_ "github.com/alloctrace/alloctrace/hooks/sloghook"
	_ "github.com/alloctrace/alloctrace/hooks/zlog"
	_ "github.com/alloctrace/alloctrace/tracer"
	_ "github.com/alloctrace/alloctrace/tracer/tracehttp"
)

func main() {
	if err := alloctrace.Wrap(blockalloc.Default()).Close(); err != nil {
		panic(err)
	}
}
