package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/tracer"
)

// batch is how many operations a region has.
const batch = 10_000

// pagecache does the program's work. The report is complete if there is no error.
func pagecache(ctx context.Context, o options, stderr io.Writer) (r report, err error) {
	began := time.Now()
	r.Options = fmt.Sprintf("%d pages of %d B, limit %s, %d goroutines", o.pages(), o.page, counter.FormatBytes(o.limit), o.goroutines)
	if o.heap {
		w := &work{options: o, mem: onGoHeap(o.limit), inner: goHeap{}}
		err = w.run(ctx, stderr, &r)
		r.Seconds = time.Since(began).Seconds()
		return r, err
	}
	spans, err := newSpans(o.trace)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, spans.finish(&r.Trace)) }()
	pool := new(blockalloc.Pool)
	profile := heapprofile.New(heapprofile.Options{Rate: o.rate()})
	proxy := alloctrace.Wrap(pool, alloctrace.WithName("pagecache"), alloctrace.WithHooks(profile, ring.New(1024, nil)))
	w := &work{options: o, mem: observed(proxy, o.limit), inner: pool, proxy: proxy}
	err = w.run(ctx, stderr, &r)
	r.End, r.Purposes = proxy.Stats(), proxy.ChildStats()
	r.Seconds = time.Since(began).Seconds()
	r.Leaks = profile.Report()
	if live := proxy.Close(); !o.leak {
		err = errors.Join(err, live, pool.Close())
	}
	return r, err
}

// work is a run of the program.
type work struct {
	options
	mem   memory
	inner blockalloc.Allocator
	proxy *alloctrace.Proxy // nil if nothing is observed

	cache *cache
	want  []atomic.Uint32 // the newest generation of each page
	reads atomic.Int64
	done  atomic.Int64 // batches that were begun
}

// region calls f in a region of that name, if anything is observed.
func (w *work) region(ctx context.Context, name string, f func(context.Context, *tracer.Region) error) error {
	if w.proxy == nil {
		return f(ctx, nil)
	}
	ctx, region := tracer.Start(ctx, name, w.proxy)
	defer region.End()
	return f(ctx, region)
}

// run does all phases. It frees all memory, and removes the file unless it has a name.
func (w *work) run(ctx context.Context, stderr io.Writer, r *report) error {
	return w.region(ctx, "pagecache", func(ctx context.Context, region *tracer.Region) (err error) {
		if region != nil {
			r.Trace.ID = traceID(ctx)
		}
		file, err := w.create()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.end(file)) }()
		if r.Direct = file.direct; !file.direct && !w.buffered {
			fmt.Fprintln(stderr, "pagecache: warning: pages go through the kernel's page cache as well, which counts as memory of this process's group:", file.why)
		}
		w.want = make([]atomic.Uint32, w.pages()+1)
		w.cache = newCache(ctx, file, uintptr(w.page), w.mem)
		err = w.operations(ctx)
		if err == nil && w.proxy != nil {
			r.Busy = w.proxy.Stats()
		}
		closing := w.region(context.WithoutCancel(ctx), "close", func(ctx context.Context, _ *tracer.Region) error {
			return w.cache.in(ctx).close()
		})
		if w.leak && errors.Is(closing, errPinned) {
			closing = nil
		}
		r.Cache, r.Reads = w.cache.total(), w.reads.Load()
		r.Writes = int64(w.ops) - r.Reads
		if err = errors.Join(err, closing); err != nil {
			return err
		}
		return w.verify(file.Name())
	})
}

// create makes the file. It has a page more than the operations use, for -leak.
func (w *work) create() (file *pageFile, err error) {
	name := w.file
	if name == "" {
		dir, err := os.MkdirTemp("", "pagecache-")
		if err != nil {
			return nil, err
		}
		defer func() {
			if file == nil {
				err = errors.Join(err, os.Remove(dir))
			}
		}()
		name = filepath.Join(dir, "pages")
	}
	buffer, err := w.inner.Allocate(blockalloc.BlockLayout(uintptr(max(w.page, 1<<20))))
	if err != nil {
		return nil, err
	}
	file, err = createFile(name, buffer.Bytes(), w.page, w.pages()+1, !w.buffered)
	return file, errors.Join(err, w.inner.Free(buffer))
}

// end closes the file, and removes a temporary one.
func (w *work) end(file *pageFile) error {
	if w.file != "" {
		return file.Close()
	}
	return errors.Join(file.remove(), os.Remove(filepath.Dir(file.Name())))
}

// operations has goroutines take batches until there are none left.
func (w *work) operations(ctx context.Context) error {
	batches := int64((w.ops + batch - 1) / batch)
	errs := make([]error, w.goroutines)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				n := w.done.Add(1) - 1
				if n >= batches {
					return
				}
				if errs[i] = w.batch(ctx, n, min(batch, w.ops-int(n)*batch)); errs[i] != nil {
					stop(errs[i])
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// batch does some operations in a region.
func (w *work) batch(ctx context.Context, n int64, ops int) error {
	return w.region(ctx, "batch", func(ctx context.Context, region *tracer.Region) error {
		s := w.cache.in(ctx)
		random := rand.New(rand.NewPCG(w.seed, uint64(n)))
		pick := w.distribution(random)
		reads := 0
		for i := range ops {
			if i%256 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			page := pick()
			var err error
			if random.IntN(100) < w.writes {
				err = s.write(page, func() { w.want[page].Add(1) })
			} else {
				reads++
				err = s.read(page, func(b []byte) error { return w.verifyPage(b, page) })
			}
			if err != nil {
				return err
			}
		}
		if w.leak && n == 0 {
			if err := w.forget(s); err != nil {
				return err
			}
		}
		w.reads.Add(int64(reads))
		region.SetAttributes(attribute.Int("pagecache.reads", reads), attribute.Int("pagecache.writes", ops-reads))
		return nil
	})
}

// forget pins a page that nobody else uses, and forgets to unpin it.
func (w *work) forget(s *session) error {
	_, err := s.pin(w.pages())
	return err
}

// distribution returns what picks the next page.
func (w *work) distribution(random *rand.Rand) func() uint32 {
	pages := w.pages()
	if w.uniform {
		return func() uint32 { return random.Uint32N(pages) }
	}
	zipf := rand.NewZipf(random, 1.1, 8, uint64(pages-1))
	return func() uint32 {
		const prime = 2654435761 // those that are used most lie anywhere in the file
		return uint32(zipf.Uint64() * prime % uint64(pages))
	}
}

// verifyPage checks that a page is of the newest generation.
func (w *work) verifyPage(b []byte, page uint32) error {
	generation, err := generationOf(b, page)
	if err == nil && generation != w.want[page].Load() {
		err = fmt.Errorf("page %d: %w: its generation is %d, want %d", page, errCorrupt, generation, w.want[page].Load())
	}
	return err
}

// verify checks all pages of the file, which is read without the cache.
func (w *work) verify(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, w.page)
	for page := range w.pages() + 1 {
		if _, err := f.ReadAt(b, int64(page)*int64(w.page)); err != nil {
			return err
		}
		if err := w.verifyPage(b, page); err != nil {
			return fmt.Errorf("in the file: %w", err)
		}
	}
	return nil
}
