//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/grpcmem"
	"github.com/alloctrace/alloctrace/exporters/memlimit"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// beVariant has the test binary be one of the variants of BenchmarkTable: its name, and the bytes of a message.
const beVariant = "ECHO_BENCH_BE_VARIANT"

// variants are whose buffers gRPC has, by what is added to the one before.
var variants = []string{"own", "ours", "paced", "everything"}

// What a variant costs.
type cost struct {
	Calls       int
	CPU         float64 // seconds
	Collections uint64
	Seconds     float64
	RSS         int64 // at the most, as the kernel has it
}

func TestMain(m *testing.M) {
	var variant string
	var size int
	if _, err := fmt.Sscan(os.Getenv(beVariant), &variant, &size); err == nil {
		c, err := measureVariant(variant, size)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BenchmarkTable prints what an echo of messages costs with gRPC's own buffers and with ours, at GOGC=100: each variant is
// a process of its own, in turns. A row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	const rounds = 7
	for b.Loop() {
		fmt.Println()
		for _, size := range []int{4 << 10, 64 << 10, 256 << 10} {
			costs := make(map[string][]cost)
			for range rounds {
				for _, i := range rand.Perm(len(variants)) {
					costs[variants[i]] = append(costs[variants[i]], runVariant(b, variants[i], size))
				}
			}
			for _, v := range variants {
				row := func(measured, unit string, bound float64, of func(c cost) float64) {
					name := fmt.Sprintf("grpc_%dk_%s_%s", size>>10, v, measured)
					all := make([]float64, rounds)
					for i, c := range costs[v] {
						all[i] = of(c)
					}
					measure.Row(os.Stdout, b, name, median(all), unit, measure.NoBound)
					if v == "own" {
						return
					}
					for i, c := range costs["own"] {
						all[i] = of(costs[v][i]) / of(c)
					}
					if v != "everything" {
						bound = measure.NoBound
					}
					measure.Row(os.Stdout, b, name, median(all), "x own", bound)
				}
				row("cpu", "µs/call", 1.03, func(c cost) float64 { return c.CPU * 1e6 / float64(c.Calls) })
				row("rss", "MiB", 1.05, func(c cost) float64 { return float64(c.RSS) / (1 << 20) })
				row("collections", "/1000", measure.NoBound, func(c cost) float64 { return float64(c.Collections) * 1000 / float64(c.Calls) })
				row("pace", "/s", measure.NoBound, func(c cost) float64 { return float64(c.Collections) / c.Seconds })
			}
		}
	}
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// runVariant has a process of its own be the variant.
func runVariant(b *testing.B, variant string, size int) (c cost) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	for _, s := range os.Environ() {
		if !strings.HasPrefix(s, "GOGC=") && !strings.HasPrefix(s, "GOMEMLIMIT=") {
			cmd.Env = append(cmd.Env, s)
		}
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s %d", beVariant, variant, size))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &c)
	}
	if err != nil {
		b.Fatalf("%s: %v: %s", variant, err, out)
	}
	return c
}

// measureVariant has a server echo messages of a size to four clients, for 200 MiB each way, or 8000 calls.
func measureVariant(variant string, size int) (c cost, err error) {
	var pool mem.BufferPool
	var ours *grpcmem.Pool
	if variant != "own" {
		o := grpcmem.Options{}
		blocks := &blockalloc.Pool{MaxCached: 12 << 20}
		slab, err := blockalloc.NewSlab(blocks, 64<<10)
		if err != nil {
			return c, err
		}
		var buffers blockalloc.Allocator = slab
		if variant == "everything" {
			buffers = alloctrace.Wrap(slab, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{})))
			o.OnDrop = func(backstop.Drop) {}
		}
		if variant != "ours" {
			pacer, err := memlimit.NewPacer(memlimit.PacerOptions{MaxGarbage: 6 << 20}, memlimit.Pool(blocks))
			if err != nil {
				return c, err
			}
			defer pacer.Close()
		}
		ours = grpcmem.New(buffers, o)
		pool = ours
		experimental.SetDefaultBufferPool(pool) // that of the codec; nothing else runs yet
	} else {
		pool = mem.DefaultBufferPool()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, err
	}
	s := grpc.NewServer(experimental.BufferPool(pool))
	s.RegisterService(&echoing, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), experimental.WithBufferPool(pool), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return c, err
	}
	c.Calls = min(200<<20/size, 8000)
	if err := callEcho(conn, size, c.Calls/10); err != nil { // warms up
		return c, err
	}
	before, collections, start := processor(), cycles(), time.Now()
	if err := callEcho(conn, size, c.Calls); err != nil {
		return c, err
	}
	after := processor()
	c.Seconds, c.CPU, c.Collections = time.Since(start).Seconds(), seconds(after)-seconds(before), cycles()-collections
	c.RSS = maxRSS(after)
	err = conn.Close()
	s.GracefulStop()
	if ours != nil {
		err = errors.Join(err, ours.Shutdown(context.Background()))
	}
	return c, errors.Join(err, <-served)
}

// echoing is a service that answers with what it is sent.
var echoing = grpc.ServiceDesc{
	ServiceName: service, HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		q := new(message)
		return q, decode(q)
	}}},
}

// callEcho makes so many calls, four at a time.
func callEcho(conn *grpc.ClientConn, size, calls int) error {
	body := make([]byte, size)
	var begun atomic.Int64
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil && begun.Add(1) <= int64(calls) {
				var a message
				errs[i] = conn.Invoke(context.Background(), "/"+service+"/Echo", &message{Value: body}, &a)
				if errs[i] == nil && len(a.Value) != size {
					errs[i] = fmt.Errorf("%d bytes come back of %d", len(a.Value), size)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func processor() (u syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u
}

func seconds(u syscall.Rusage) float64 { return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9 }

func maxRSS(u syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss) // bytes there, KiB elsewhere
	}
	return int64(u.Maxrss) << 10
}

// cycles is how many garbage collections there were.
func cycles() uint64 {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
