// Command buildjaeger prints the path of a Jaeger binary for the tests of this
// repository, after building it into the cache if there is none yet. Run it
// before go test, whose own time limit is too short for the first build.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	path, err := jaegertest.Binary(ctx, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "buildjaeger:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
