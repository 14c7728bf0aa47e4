// Package alloctest fails tests that leak memory of an allocator, free it twice, write
// past its end or use it after it was freed, and says who did:
//
//	mem := alloctest.New(t)
//	index, err := Build(mem, files)
//
// fails the test when it has ended and blocks of mem are still live, with a line for
// each place that allocated them, or if blocks were freed through another Proxy or child than the
// one that allocated them, and at once when it is misused, with who allocated and who freed the
// block. Each Proxy is on its own: tests that run in parallel do not
// disturb each other.
//
// Two flags are for a whole test binary and go before what its tests say.
// -alloctest.stacks=full, sampled or off: whether stacks are taken of all blocks, as by
// default, of one in 64 KiB, or of none. -alloctest.debug=guard or off: whether each
// [debug.Allocator] is at its most paranoid, with guard pages, so that the first access
// to a byte that is not the block's faults, or there is none. The environment variable
// ALLOCTEST_DEBUG does what the second does, for go test ./..., where not all packages
// know the flag.
package alloctest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// TestingT is what this package needs of a *testing.T, *testing.B or *testing.F.
type TestingT interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Stacks says of which blocks the calls that allocated them are remembered.
type Stacks string

// What can be remembered.
const (
	Full    Stacks = "full"    // the calls of every block: less than a microsecond each
	Sampled Stacks = "sampled" // those of one block in 64 KiB, on average
	Off     Stacks = "off"     // none: a report says only how many blocks of which sizes there are
)

const sampledRate = 64 << 10

var (
	stacksFlag = flag.String("alloctest.stacks", "", "take stacks of all blocks, of one in 64 KiB, or of none: `full`, sampled or off")
	debugFlag  = flag.String("alloctest.debug", "", "look for misuse of memory with guard pages too, or not at all: `guard` or off")
)

// An Option configures [New].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	inner  blockalloc.Allocator
	stacks Stacks
	debug  *debug.Options // nil for none
	proxy  []alloctrace.Option
}

// WithAllocator has the Proxy take its memory from inner: unless set, from a
// [blockalloc.Heap], whose memory the race detector sees, in a [debug.Allocator].
// Around inner there is a debug.Allocator only with WithDebug, which goes after this: it
// would stand between the test and inner's own blocks and errors.
func WithAllocator(inner blockalloc.Allocator) Option {
	return optionFunc(func(c *config) { c.inner, c.debug = inner, nil })
}

// WithStacks says of which blocks stacks are taken: of all, unless set here or by the
// flag.
func WithStacks(s Stacks) Option { return optionFunc(func(c *config) { c.stacks = s }) }

// WithDebug says what the [debug.Allocator] between the Proxy and its allocator looks
// for: all but what needs guard pages, unless set here or by the flag. Where the
// test relies on zeroed memory, set Zeroed.
func WithDebug(o debug.Options) Option {
	return optionFunc(func(c *config) { c.debug = &o })
}

// WithProxy adds options of the Proxy, such as its name and hooks.
func WithProxy(opts ...alloctrace.Option) Option {
	return optionFunc(func(c *config) { c.proxy = append(c.proxy, opts...) })
}

// configure returns what the options and flags say for t, or an error if they cannot
// be. Benchmarks are there for their times: they have neither a debug.Allocator nor all
// stacks unless they say so.
func configure(t TestingT, opts []Option) (config, error) {
	c := config{inner: new(blockalloc.Heap), stacks: Full, debug: new(debug.Options)}
	if _, benchmark := t.(interface{ Loop() bool }); benchmark {
		c.stacks, c.debug = Sampled, nil
	}
	for _, o := range opts {
		o.apply(&c)
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
	mode, err := debugMode()
	switch {
	case mode == "guard" && c.debug != nil:
		c.debug = paranoid(*c.debug)
	case mode == "off":
		c.debug = nil
	}
	return c, err
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

// New returns a Proxy for the test t, which fails at the end, after what t has cleaned
// up that was set up later, if blocks of the Proxy are still live, or were freed through another
// Proxy or child than the one that allocated them; see [VerifyNone].
// It fails at once if a free or reallocation is of no live block, and when a block is
// freed, or at the end, if memory around it or after its end of life was written to:
// all that [debug.Allocator] finds, also where the test passes over the error. The
// Proxy's peak is exact. It is closed at the end.
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
		k.profile = heapprofile.New(heapprofile.Options{Rate: 1})
	case Sampled:
		k.profile = heapprofile.New(heapprofile.Options{Rate: sampledRate})
	}
	if k.profile != nil {
		proxy = append(proxy, alloctrace.WithHooks(k.profile))
	}
	inner := c.inner
	var findings findings
	if c.debug != nil {
		o := *c.debug
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
		if !f.ended && r.Kind != debug.Leak { // last tells of leaks, or VerifyNone
			t.Errorf("alloctest: %v", r)
		}
	}
}

// last has d, which is below p, look at everything once more, and ends it. It tells t what
// report and VerifyNone have not: leaks that p does not count, and the errors of d's
// allocator.
func (f *findings) last(t TestingT, p *alloctrace.Proxy, d *debug.Allocator) {
	t.Helper()
	counted, live := p.Stats(), d.Stats()
	told := counted.LiveBlocks == int64(live.LiveBlocks) && counted.LiveBytes == live.LiveBytes
	err := d.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	var leaks, others []error
	for _, e := range parts(err) {
		if errors.Is(e, blockalloc.ErrLive) {
			leaks = append(leaks, e)
		} else if _, reported := e.(*debug.Report); !reported {
			others = append(others, e)
		}
	}
	if len(leaks) > 0 && !told {
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

// Profile returns the hook that knows p's live blocks, nil if New has not made p, or
// its test takes no stacks, or has ended.
func Profile(p *alloctrace.Proxy) *heapprofile.Profile { return knowledgeOf(p).profile }

// Debug returns the debug.Allocator between p and its allocator, for its Catch and Check,
// nil if New has not made p, or there is none, or the test has ended. What it finds fails the
// test by itself.
func Debug(p *alloctrace.Proxy) *debug.Allocator { return knowledgeOf(p).debug }

// VerifyNone fails the test if blocks of p are live. If p is of [New], the failure says
// who allocated them, the most bytes first, and where the test can keep artifacts, as
// with go test -artifacts, all of it is written there, with every stack, as text and
// JSON. If stacks are taken of every block, it fails likewise if blocks were freed through another
// Proxy or child than the one that allocated them, see [heapprofile.Profile.ForeignFrees].
func VerifyNone(t interface {
	Helper()
	Errorf(format string, args ...any)
}, p *alloctrace.Proxy) {
	t.Helper()
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
	if profile == nil {
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

// freedPast returns what to say of the live blocks of a Proxy around d, for they may have been freed
// past it.
func freedPast(live int64, d *debug.Allocator) string {
	const by = "freed past this Proxy, such as through another one"
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
