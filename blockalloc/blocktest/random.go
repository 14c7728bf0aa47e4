package blocktest

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// replayVariable is the environment variable with a script that the clauses Model and
// ParentFailures play instead of their own.
const replayVariable = "ALLOCTRACE_OPERATIONS"

// longRun says that tests leave nothing out.
var longRun = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// A script is operations and how to do them.
type script struct {
	ops     []operation
	over    bool // over a parent
	fail    int  // the number, from 1, of the parent's call that fails; 0 is none
	onwards bool // not only that call fails, but all allocations and reallocations from there on
	lifo    bool // blocks are freed and reallocated newest first
}

// scriptHeader is how many bytes precede the operations.
const scriptHeader = 2

// readScript makes a script of any data.
func (s suite) readScript(data []byte) (c script) {
	if len(data) < scriptHeader {
		return c
	}
	c.ops = decode(data[scriptHeader:])
	c.lifo = data[0]&4 != 0
	if c.over = data[0]&1 != 0 && s.NewOver != nil; c.over {
		c.onwards, c.fail = data[0]&2 != 0, int(data[1])
	}
	return c
}

func (c script) bytes() []byte {
	var mode byte
	if c.over {
		mode |= 1
	}
	if c.onwards {
		mode |= 2
	}
	if c.lifo {
		mode |= 4
	}
	return append([]byte{mode, byte(c.fail)}, encode(c.ops)...)
}

// outcome is the result of a script.
type outcome struct {
	err   error
	steps int    // operations done, the one that failed included
	calls int    // of the parent, of the kinds that could fail
	log   string // a line for each operation
}

// replay plays c on a fresh allocator.
func (s suite) replay(t testing.TB, c script, verbose bool) (r outcome) {
	m := &model{suite: s, lifo: c.lifo}
	if verbose {
		m.log = new(strings.Builder)
	}
	r.err = try(t, func(t testing.TB) error {
		m.make = func() (blockalloc.Allocator, error) { return s.New(t), nil }
		if c.over {
			m.parent = newParent(s.Zeroed)
			if c.onwards {
				m.parent.counted = callAllocate | callReallocate
			}
			m.parent.fail, m.parent.onwards = c.fail, c.onwards
			m.make = func() (blockalloc.Allocator, error) { return s.NewOver(t, m.parent) }
		}
		err := m.start()
		for i := 0; err == nil && !m.ended && i < len(c.ops); i++ {
			err = m.step(c.ops[i])
		}
		if err != nil || m.ended {
			return err
		}
		return m.finish()
	})
	r.steps = m.steps
	if m.parent != nil {
		r.calls = m.parent.calls
	}
	if verbose {
		r.log = m.log.String()
	}
	return r
}

// model does 20,000 random operations. With -short it does 2,000, or 10,000 if there
// are Steps and blocks are small. With ALLOCTRACE_REQUIRE_ALL=1 it does up to two
// million. It stops after a second, or three. With a NewOver, half of them are done
// over a parent.
func (s suite) model(t *testing.T) {
	if s.playGiven(t) {
		return
	}
	rounds, length, limit := 20, 1000, time.Second
	switch {
	case longRun:
		rounds, length, limit = 400, 5000, 3*time.Second // four long rounds took minutes where pages are dear
	case testing.Short():
		rounds, length = 10, 200
		if len(s.Steps) > 0 && s.MaxSize <= 4<<10 { // blocks that are small cost little
			length = 1000
		}
	}
	for start, seed := time.Now(), 0; seed < rounds; seed++ {
		if seed >= 4 && time.Since(start) > limit {
			t.Logf("slow machine: %d rounds of %d", seed, rounds)
			return
		}
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s.play(t, script{
				ops:  randomOperations(seed, length),
				over: seed%2 == 1 && s.NewOver != nil,
				lifo: seed%4 >= 2 && s.Arena,
			})
		}) {
			return // one failure is enough
		}
	}
}

// playGiven plays the script in the environment, if there is one.
func (s suite) playGiven(t *testing.T) bool {
	t.Helper()
	text := os.Getenv(replayVariable)
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatalf("%s=%s: %v", replayVariable, text, err)
	}
	c := s.readScript(data)
	if r := s.replay(t, c, false); r.err != nil {
		s.report(t, c, r)
	}
	return text != ""
}

// play plays c. If that fails, it reports the shortest failing script that it finds.
func (s suite) play(t *testing.T, c script) {
	t.Helper()
	if r := s.replay(t, c, false); r.err != nil {
		c.ops = c.ops[:min(r.steps, len(c.ops))]
		c = s.shrink(t, c)
		s.report(t, c, r)
		s.offer(t, c)
	}
}

// report plays c once more and reports what happens. r is how it ended before.
func (s suite) report(t *testing.T, c script, r outcome) {
	t.Helper()
	again := s.replay(t, c, true)
	if again.err == nil {
		again.err = fmt.Errorf("%w\nIt went well when it was played again", r.err)
	}
	log := again.log
	if lines := strings.SplitAfter(log, "\n"); len(lines) > maxLogLines {
		log = fmt.Sprintf("… %d lines\n", len(lines)-maxLogLines) + strings.Join(lines[len(lines)-maxLogLines:], "")
	}
	how := ""
	if c.fail > 0 {
		how = fmt.Sprintf(", with call %d of the parent failing", c.fail)
		if c.onwards {
			how = fmt.Sprintf(", with all allocations of the parent failing from number %d on", c.fail)
		}
	}
	t.Errorf("%v\nThis is what comes of%s:\n%s", again.err, how, log)
}

// offer logs how to replay c, if it is short enough.
func (s suite) offer(t *testing.T, c script) {
	t.Helper()
	if data := c.bytes(); len(data) < maxReplayed && c.fail < 256 {
		t.Logf("to play only this: %s=%x go test -run '^%s$'", replayVariable, data, strings.ReplaceAll(t.Name(), "/", "$/^"))
	}
}

const (
	maxLogLines = 100  // lines
	maxReplayed = 8000 // bytes, of which an environment can hold twice as many in hexadecimal digits
)

// shrink leaves out operations of c as long as it still fails.
func (s suite) shrink(t *testing.T, c script) script {
	deadline := time.Now().Add(5 * time.Second)
	for part := len(c.ops) / 2; part > 0; part /= 2 {
		for at := 0; at+part <= len(c.ops) && time.Now().Before(deadline); {
			less := c
			less.ops = slices.Concat(c.ops[:at], c.ops[at+part:])
			if s.replay(t, less, false).err != nil {
				c = less
			} else {
				at += part
			}
		}
	}
	return c
}

// parentFailures plays one script again and again, with another call of the parent
// failing each time. No block may be lost or left at the parent, and the error must be
// the parent's.
func (s suite) parentFailures(t *testing.T) {
	if s.playGiven(t) {
		return
	}
	const most = 150 // of the calls, unless all are wanted
	for _, onwards := range []bool{false, true} {
		c := script{ops: randomOperations(1, 60), over: true, onwards: onwards}
		r := s.replay(t, c, false)
		if r.err != nil {
			s.report(t, c, r)
			return
		}
		stride := 1
		if !longRun {
			stride = max(1, r.calls/most)
		}
		for c.fail = 1; c.fail <= r.calls; c.fail += stride {
			if r := s.replay(t, c, false); r.err != nil {
				c = s.shrink(t, c)
				s.report(t, c, r)
				s.offer(t, c)
				return
			}
		}
	}
}

// Fuzz makes a fuzz target of the operations of the clause Model, on the implementation
// that c describes:
//
//	func FuzzMine(f *testing.F) { blocktest.Fuzz(f, config) }
//
// With a NewOver, the fuzzer also chooses which call of the parent fails.
func Fuzz(f *testing.F, c Config) {
	s := newSuite(c)
	for seed := range 4 {
		f.Add(script{ops: randomOperations(seed, 40), over: seed%2 == 1, fail: seed}.bytes())
	}
	var each []operation
	for i := range s.verbs {
		each = append(each, operation{0, 0, byte(7 * i), 128, 4}, operation{byte(i), byte(i), byte(i), 64, 3})
	}
	f.Add(script{ops: each}.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		c := s.readScript(data[:min(len(data), maxReplayed)])
		if r := s.replay(t, c, false); r.err != nil {
			s.report(t, c, r)
		}
	})
}
