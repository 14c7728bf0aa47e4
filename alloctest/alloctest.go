// Package alloctest fails tests that leak memory of an allocator, free it twice, write
// past its end or use it after it was freed, and names the code that did so:
//
//	mem := alloctest.New(t)
//	index, err := Build(mem, files)
//
// The test fails at its end if blocks of mem are still live, with a line for each place that
// allocated them, and if a block was freed through another Proxy or child than the one that
// allocated it. It fails at once if memory is misused, with the calls that allocated and freed the
// block. Each test has its own Proxy, so that tests can run in parallel.
//
// Flags are for a whole test binary. Two override what its tests say.
// -alloctest.stacks=full, sampled or off takes stacks of all blocks, which is the default, of one
// in 64 KiB, or of none. -alloctest.debug=guard makes each [debug.Allocator] as strict as it can
// be: it has guard pages, so that the first access to a byte outside a block faults.
// -alloctest.debug=off leaves it out. The environment variable ALLOCTEST_DEBUG does the same as
// the second flag. It is for go test ./..., where not all packages know the flag.
// -alloctest.skip=example.com/adapter,github.com/apache/arrow-go/... leaves packages out of
// all reports, as [WithSkip] does out of those of one test. -alloctest.limit=64MiB fails tests
// that have more live at once, as [WithLimit] does for one test.
//
// With go test -json or -v each test has the attributes alloctest.peak_bytes and
// alloctest.leaked_bytes, see [testing.T.Attr]: the most that was live of one of its Proxies, and what was live at
// the end.
package alloctest

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// TestingT is what this package needs of a *testing.T, *testing.B or *testing.F.
type TestingT interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Stacks selects the blocks whose allocating calls are remembered.
type Stacks string

// The values of Stacks.
const (
	Full    Stacks = "full"    // the calls of every block: less than a microsecond each
	Sampled Stacks = "sampled" // those of one block in 64 KiB, on average
	Off     Stacks = "off"     // none: a report says only how many blocks of which sizes there are
)

const sampledRate = 64 << 10

var (
	stacksFlag = flag.String("alloctest.stacks", "", "take stacks of all blocks, of one in 64 KiB, or of none: `full`, sampled or off")
	skipFlag   = flag.String("alloctest.skip", "", "leave the calls of `packages` out of reports where they are the innermost: import paths, with /... for all below, separated by commas")
	debugFlag  = flag.String("alloctest.debug", "", "look for misuse of memory with guard pages too, or not at all: `guard` or off")
)

// An Option configures [New]. The order of options does not matter. A nil Option is left out.
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	inner  blockalloc.Allocator
	stacks Stacks
	skip   []string
	limit  int64          // in bytes; 0 is none
	debug  *debug.Options // nil unless set
	proxy  []alloctrace.Option
}

// WithAllocator sets the allocator that the Proxy takes its memory from. Without it that is a
// [blockalloc.Heap], whose memory the race detector sees, in a [debug.Allocator]. Around inner
// there is a debug.Allocator only with [WithDebug], because it would stand between the test and
// inner's own blocks and errors. WithAllocator panics if inner is nil.
func WithAllocator(inner blockalloc.Allocator) Option {
	if inner == nil {
		panic("alloctest: WithAllocator(nil): pass an allocator, or leave the option out")
	}
	return optionFunc(func(c *config) { c.inner = inner })
}

// WithStacks sets of which blocks stacks are taken. Without it they are taken of all, and in a
// benchmark of a sample.
func WithStacks(s Stacks) Option { return optionFunc(func(c *config) { c.stacks = s }) }

// WithSkip leaves the calls of packages out of reports where they are the innermost, so that a report
// begins with who called them: an adapter, for example, between the test and this library. Each is an
// import path, or one with "/..." after it for all packages below as well; see Skip of
// [heapprofile.Options]. Without it there are those of the flag -alloctest.skip alone.
func WithSkip(packages ...string) Option {
	return optionFunc(func(c *config) { c.skip = append(c.skip, packages...) })
}

// WithDebug sets what the [debug.Allocator] between the Proxy and its allocator looks for.
// Without it that is all but what needs guard pages. If the test relies on zeroed memory that
// it does not ask for, set Zeroed.
func WithDebug(o debug.Options) Option {
	return optionFunc(func(c *config) { c.debug = &o })
}

// WithProxy adds options of the Proxy, such as its name and hooks.
func WithProxy(opts ...alloctrace.Option) Option {
	return optionFunc(func(c *config) { c.proxy = append(c.proxy, opts...) })
}

// configure returns what the options and flags say for t, or an error if they make no
// sense. Benchmarks are there for their times: they have neither a debug.Allocator nor all
// stacks unless they say so.
func configure(t TestingT, opts []Option) (config, error) {
	_, benchmark := t.(interface{ Loop() bool })
	c := config{stacks: Full}
	if benchmark {
		c.stacks = Sampled
	}
	for _, o := range opts {
		if o != nil {
			o.apply(&c)
		}
	}
	if c.debug == nil && c.inner == nil && !benchmark {
		c.debug = new(debug.Options)
	}
	if c.inner == nil {
		c.inner = new(blockalloc.Heap)
	}
	source := fmt.Sprintf("WithStacks(%q)", c.stacks)
	if *stacksFlag != "" {
		c.stacks, source = Stacks(*stacksFlag), "-alloctest.stacks="+*stacksFlag
	}
	switch c.stacks {
	case Full, Sampled, Off:
	default:
		return c, fmt.Errorf("%s: use %s, %s or %s", source, Full, Sampled, Off)
	}
	if _, err := callers.NewSkip(c.skip); err != nil {
		return c, fmt.Errorf("With%w", err)
	}
	flagged, err := flaggedSkip()
	if err != nil {
		return c, err
	}
	c.skip = append(c.skip, flagged...)
	limit, err := flaggedLimit()
	if err != nil {
		return c, err
	}
	if limit > 0 && (c.limit == 0 || limit < c.limit) {
		c.limit = limit
	}
	mode, err := debugMode()
	switch {
	case mode == "guard" && c.debug != nil:
		c.debug = paranoid(*c.debug)
	case mode == "off":
		c.debug = nil
	}
	return c, err
}

// flaggedSkip returns the packages of the flag.
func flaggedSkip() ([]string, error) {
	if *skipFlag == "" {
		return nil, nil
	}
	packages := strings.Split(*skipFlag, ",")
	if _, err := callers.NewSkip(packages); err != nil {
		return nil, fmt.Errorf("-alloctest.skip=%s: %w", *skipFlag, err)
	}
	return packages, nil
}

const debugVariable = "ALLOCTEST_DEBUG"

// debugMode is what the flag says, else the environment: "guard", "off" or "".
func debugMode() (string, error) {
	mode, source := *debugFlag, "-alloctest.debug"
	if mode == "" {
		mode, source = os.Getenv(debugVariable), "the environment variable "+debugVariable
	}
	switch mode {
	case "", "guard", "off":
		return mode, nil
	}
	return "", fmt.Errorf("%s=%s: use guard or off", source, mode)
}

// paranoid returns o with all that can be looked for.
func paranoid(o debug.Options) *debug.Options {
	o.Guard, o.MaxGuarded = true, 0
	o.Canary, o.NoPoison, o.ZeroFree = 0, false, true
	o.Quarantine, o.QuarantineBlocks, o.Stack = 1<<30, 0, 64
	return &o
}

// New returns a Proxy for the test t. The test fails at its end if blocks of the Proxy are still
// live, or were freed through another Proxy or child than the one that allocated them; see
// [VerifyNone]. Cleanups that t registered after New have run by then.
//
// The test also fails for all that [debug.Allocator] finds, even if it ignores the error. If it
// frees or reallocates what is not a live block, it fails at once. If memory around a block or
// of a freed block was written to, it fails when the block is freed, or at its end.
//
// The Proxy's peak in [counter.Stats] is exact as long as it has no children; that of the attribute is exact with stacks of all blocks. The Proxy is closed
// at the end of the test.
func New(t TestingT, opts ...Option) *alloctrace.Proxy {
	t.Helper()
	c, err := configure(t, opts)
	if err != nil {
		t.Fatalf("alloctest: %v", err)
	}
	proxy := []alloctrace.Option{alloctrace.WithCounter(counter.Exact())}
	var k knowledge
	switch c.stacks {
	case Full:
		k.profile = heapprofile.New(heapprofile.Options{Rate: 1, Skip: c.skip, Peak: true})
	case Sampled:
		k.profile = heapprofile.New(heapprofile.Options{Rate: sampledRate, Skip: c.skip, Peak: c.limit > 0})
	}
	if k.profile != nil {
		proxy = append(proxy, alloctrace.WithHooks(k.profile))
	}
	inner := c.inner
	var findings findings
	if c.debug != nil {
		o := *c.debug
		o.Skip = append(slices.Clip(o.Skip), c.skip...)
		o.OnReport = findings.report(t, o.OnReport)
		k.debug = debug.New(inner, o)
		inner = k.debug
	}
	p := alloctrace.Wrap(inner, append(proxy, c.proxy...)...)
	known.Store(p, k)
	t.Cleanup(func() {
		t.Helper()
		defer known.Delete(p) // deferred, for a TestingT may end the goroutine in Errorf
		if k.debug != nil {
			defer findings.last(t, p, k.debug)
		}
		defer p.Close() // what is live is reported
		defer verifyLimit(t, p, c.limit)
		VerifyNone(t, p)
	})
	return p
}

// findings passes on what a debug.Allocator finds, as long as its test runs.
type findings struct {
	mu    sync.Mutex
	ended bool
}

// report returns a function that fails t, after it has called next.
func (f *findings) report(t TestingT, next func(*debug.Report)) func(*debug.Report) {
	return func(r *debug.Report) {
		if next != nil {
			next(r)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.ended && r.Kind != debug.Leak { // last reports leaks, or VerifyNone
			t.Errorf("alloctest: %v", r)
		}
	}
}

// last closes d, which is below p, and checks all of its memory by that. It reports to t what
// report and VerifyNone have not: leaks that p does not count, and the errors of d's allocator.
func (f *findings) last(t TestingT, p *alloctrace.Proxy, d *debug.Allocator) {
	t.Helper()
	counted, live := p.Stats(), d.Stats()
	reported := counted.LiveBlocks == int64(live.LiveBlocks) && counted.LiveBytes == live.LiveBytes
	err := d.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	var leaks, others []error
	for _, e := range parts(err) {
		if errors.Is(e, blockalloc.ErrLive) {
			leaks = append(leaks, e)
		} else if _, found := e.(*debug.Report); !found {
			others = append(others, e)
		}
	}
	if len(leaks) > 0 && !reported {
		t.Errorf("alloctest: %v does not count all of this, which went past it, by Unwrap or a child with a counter of its own: %v", p, errors.Join(leaks...))
	}
	if len(others) > 0 {
		t.Errorf("alloctest: %v", errors.Join(others...))
	}
}

// parts returns the errors that were joined, or err alone, or none.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

// knowledge is what New has put around a Proxy.
type knowledge struct {
	profile *heapprofile.Profile // nil if no stacks are taken
	debug   *debug.Allocator     // nil if there is none
}

// known has the knowledge of each Proxy that New has made, until its test ends.
var known sync.Map

func knowledgeOf(p *alloctrace.Proxy) knowledge {
	k, _ := known.Load(p)
	of, _ := k.(knowledge)
	return of
}

// Profile returns the hook that knows p's live blocks. It returns nil if New has not made p, if
// its test takes no stacks, and if the test has ended.
func Profile(p *alloctrace.Proxy) *heapprofile.Profile { return knowledgeOf(p).profile }

// Debug returns the debug.Allocator between p and its allocator, for its Catch and Check. It
// returns nil if New has not made p, if there is no debug.Allocator, and if the test has ended.
// The test fails for what it finds.
func Debug(p *alloctrace.Proxy) *debug.Allocator { return knowledgeOf(p).debug }

// VerifyNone fails the test if blocks of p are live. If [New] has made p, the failure lists the
// places that allocated them, the most bytes first. If the test keeps artifacts, as with
// go test -artifacts, files there have the report with all stacks, as text and as JSON. If stacks are
// taken of every block, the test fails likewise if blocks were freed through another Proxy or child
// than the one that allocated them, see [heapprofile.Profile.ForeignFrees].
func VerifyNone(t interface {
	Helper()
	Errorf(format string, args ...any)
}, p *alloctrace.Proxy) {
	t.Helper()
	collectDropped(func() bool { return p.Stats().LiveBlocks > 0 })
	s, profile := p.Stats(), Profile(p)
	var report heapprofile.Report
	if profile != nil {
		report = profile.Report()
	}
	var text string
	switch {
	case s.LiveBlocks > 0:
		text = fmt.Sprintf("alloctest: %v has leaked %s in %s\n", p, counter.FormatBytes(s.LiveBytes), blocks(s.LiveBlocks))
	case report.ForeignFrees > 0:
		text = fmt.Sprintf("alloctest: %v or a child has freed what is not its own\n", p)
	default:
		return
	}
	if profile == nil || report.Blocks == 0 && report.ForeignFrees == 0 { // there are no stacks, or no block was sampled
		text += sizes(s)
	} else {
		text += report.String()
	}
	text += freedPast(s.LiveBlocks, Debug(p))
	if a, ok := t.(interface{ ArtifactDir() string }); ok && profile != nil {
		// A folder that Go does not keep may be gone by now.
		if err := writeArtifacts(a.ArtifactDir(), text, report); err != nil && !errors.Is(err, fs.ErrNotExist) {
			text += fmt.Sprintf("the whole report could not be written: %v\n", err)
		}
	}
	t.Errorf("%s", text)
}

// collectDropped has what was dropped freed by the backstops of the program, if blocks are live: it was not
// leaked. It gives up if somebody's cleanup does not end.
func collectDropped(live func() bool) {
	if !live() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = backstop.Collect(ctx) // what is still live then is reported
}

// freedPast returns what to say of the live blocks of a Proxy around d, for they may have been freed
// past it.
func freedPast(live int64, d *debug.Allocator) string {
	const by = "freed without this Proxy, such as through another one"
	switch {
	case live == 0:
		return ""
	case d == nil:
		return "leaked, or " + by + "\n"
	}
	if past := live - int64(d.Stats().LiveBlocks); past > 0 {
		return fmt.Sprintf("%s of them: %s\n", blocks(past), by)
	}
	return ""
}

func blocks(n int64) string {
	if n == 1 {
		return "1 block"
	}
	return fmt.Sprintf("%d blocks", n)
}

// sizes returns a line for each size class that has live blocks.
func sizes(s counter.Stats) string {
	var text strings.Builder
	for i, c := range s.Classes {
		if live := c.Live(); live > 0 {
			fmt.Fprintf(&text, "  %s of up to %s\n", blocks(live), counter.FormatBytes(1<<i))
		}
	}
	return text.String()
}

// writeArtifacts writes the report into new files of dir.
func writeArtifacts(dir, text string, report heapprofile.Report) error {
	asJSON, err := json.MarshalIndent(report, "", "\t")
	if err != nil {
		return err
	}
	var listing strings.Builder
	if err := report.WriteListing(&listing); err != nil {
		return err
	}
	for pattern, content := range map[string]string{"leaks-*.txt": text + "\n" + listing.String(), "leaks-*.json": string(asJSON) + "\n"} {
		f, err := os.CreateTemp(dir, pattern)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, content)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(f.Name()), err)
		}
	}
	return nil
}
