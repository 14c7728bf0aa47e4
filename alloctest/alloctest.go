// Package alloctest fails tests that leak memory from an allocator, and says who
// allocated it:
//
//	mem := alloctest.New(t)
//	index, err := Build(mem, files)
//
// fails the test when it has ended and blocks of mem are still live, with a line for
// each place that allocated them. Each Proxy is on its own: tests that run in parallel
// do not disturb each other.
//
// The flag -alloctest.stacks=full, sampled or off says for a whole test binary whether
// stacks are taken of all blocks, as by default, of one in 64 KiB, or of none.
package alloctest

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
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
	Full    Stacks = "full"    // the calls of every block: some microseconds each
	Sampled Stacks = "sampled" // those of one block in 64 KiB, on average
	Off     Stacks = "off"     // none: a report says only how many blocks of which sizes there are
)

const sampledRate = 64 << 10

var stacksFlag = flag.String("alloctest.stacks", "", "take stacks of all blocks, of one in 64 KiB, or of none: `full`, sampled or off")

// An Option configures [New].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	inner  blockalloc.Allocator
	stacks Stacks
	proxy  []alloctrace.Option
}

// WithAllocator has the Proxy take its memory from inner: unless set, from a
// [blockalloc.Heap], whose memory the race detector sees.
func WithAllocator(inner blockalloc.Allocator) Option {
	return optionFunc(func(c *config) { c.inner = inner })
}

// WithStacks says of which blocks stacks are taken: of all, unless set here or by the
// flag, which goes before this.
func WithStacks(s Stacks) Option { return optionFunc(func(c *config) { c.stacks = s }) }

// WithProxy adds options of the Proxy, such as its name and hooks.
func WithProxy(opts ...alloctrace.Option) Option {
	return optionFunc(func(c *config) { c.proxy = append(c.proxy, opts...) })
}

// New returns a Proxy for the test t, which fails at the end, after what t has cleaned
// up that was set up later, if blocks of the Proxy are still live; see [VerifyNone].
// The Proxy's peak is exact. It is closed then.
func New(t TestingT, opts ...Option) *alloctrace.Proxy {
	t.Helper()
	c := config{inner: new(blockalloc.Heap), stacks: Full}
	for _, o := range opts {
		o.apply(&c)
	}
	if *stacksFlag != "" {
		c.stacks = Stacks(*stacksFlag)
	}
	proxy := []alloctrace.Option{alloctrace.WithCounter(counter.Exact())}
	var leaks *hooks.Leaks
	switch c.stacks {
	case Full:
		leaks = hooks.NewLeaks(1)
	case Sampled:
		leaks = hooks.NewLeaks(sampledRate)
	case Off:
	default:
		t.Fatalf("alloctest: stacks %q: use %q, %q or %q", c.stacks, Full, Sampled, Off)
	}
	if leaks != nil {
		proxy = append(proxy, alloctrace.WithHooks(leaks))
	}
	p := alloctrace.Wrap(c.inner, append(proxy, c.proxy...)...)
	if leaks != nil {
		known.Store(p, leaks)
	}
	t.Cleanup(func() {
		t.Helper()
		VerifyNone(t, p)
		_ = p.Close() // what is live has been reported
		known.Delete(p)
	})
	return p
}

// known has the Leaks of each Proxy that New has made, until its test ends.
var known sync.Map

// Leaks returns the hook that knows p's live blocks, nil if New has not made p, or
// its test takes no stacks, or has ended.
func Leaks(p *alloctrace.Proxy) *hooks.Leaks {
	l, _ := known.Load(p)
	leaks, _ := l.(*hooks.Leaks)
	return leaks
}

// VerifyNone fails the test if blocks of p are live. If p is of [New], the failure says
// who allocated them, the most bytes first, and where the test can keep artifacts, as
// with go test -artifacts, all of it is written there, with every stack, as text and
// JSON.
func VerifyNone(t interface {
	Helper()
	Errorf(format string, args ...any)
}, p *alloctrace.Proxy) {
	t.Helper()
	s := p.Stats()
	if s.LiveBlocks == 0 {
		return
	}
	text := fmt.Sprintf("alloctest: %v has leaked %s in %s\n", p, counter.FormatBytes(s.LiveBytes), blocks(s.LiveBlocks))
	leaks := Leaks(p)
	if leaks == nil {
		t.Errorf("%s%s", text, sizes(s))
		return
	}
	report := leaks.Report()
	text += report.String()
	if a, ok := t.(interface{ ArtifactDir() string }); ok {
		if err := writeArtifacts(a.ArtifactDir(), text, report); err != nil {
			text += fmt.Sprintf("the whole report could not be written: %v\n", err)
		}
	}
	t.Errorf("%s", text)
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
func writeArtifacts(dir, text string, report hooks.LeakReport) error {
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
