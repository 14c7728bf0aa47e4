package prometheus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// asked is a hook whose usage is known, and how often it was asked for.
type asked struct {
	usage hooks.Usage
	n     int
}

func (a *asked) Usage() hooks.Usage {
	a.n++
	return a.usage
}

// registeredHooks returns a registry with hooks of known usage: one that has all, and one that
// counts no events and whose time nobody measures.
func registeredHooks() (prometheus.Gatherer, *asked) {
	all := &asked{usage: hooks.Usage{Events: 4096, Sampled: 70, Dropped: 7, Bytes: 1 << 20, Time: 1500 * time.Millisecond, TimeError: time.Second}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewHookCollector(all, "all"), allocprom.NewHookCollector(&asked{usage: hooks.Usage{Sampled: 5, Bytes: 99}}, "some"))
	return r, all
}

var wantHooks = map[string]float64{
	"allocator_instrumentation_events_total all":         4096,
	"allocator_instrumentation_sampled_total all":        70,
	"allocator_instrumentation_dropped_total all":        7,
	"allocator_instrumentation_memory_bytes all":         1 << 20,
	"allocator_instrumentation_time_seconds_total all":   1.5,
	"allocator_instrumentation_read_failures_total all":  0,
	"allocator_instrumentation_read_failures_total some": 0,
	"allocator_instrumentation_sampled_total some":       5,
	"allocator_instrumentation_dropped_total some":       0,
	"allocator_instrumentation_memory_bytes some":        99,
}

func TestHooks(t *testing.T) {
	r, hook := registeredHooks()
	got := gather(t, r)
	for key, want := range wantHooks {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v, want %v", key, v, want)
		}
	}
	if len(got) != len(wantHooks) {
		t.Errorf("there are %d series, want %d: %v", len(got), len(wantHooks), got)
	}
	if hook.n != 1 {
		t.Errorf("a scrape has asked a hook %d times", hook.n)
	}
}

// What the package comment says of a hook is exported, and nothing else.
func TestHookTable(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, row := range regexp.MustCompile(`(?m)^//\t(counter|gauge) +(allocator_instrumentation_\w+) `).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, row[2]+" "+row[1])
	}
	r, _ := registeredHooks()
	for name, f := range families(t, r) {
		got = append(got, name+" "+strings.ToLower(f.GetType().String()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("exported are\n%s\nand the package comment says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPromtoolHooks(t *testing.T) {
	r, _ := registeredHooks()
	promtool(t, r)
}

func TestHookNames(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	first := allocprom.NewHookCollector(new(asked), "ring")
	if err := r.Register(first); err != nil {
		t.Fatal(err)
	}
	if err := r.Register(allocprom.NewHookCollector(new(asked), "ring")); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("a second one of a name: %v", err)
	}
	if err := r.Register(allocprom.NewHookCollector(new(asked), "other")); err != nil {
		t.Errorf("another name: %v", err)
	}
	if !r.Unregister(first) {
		t.Error("the first was not registered")
	}
	if _, ok := gather(t, r)["allocator_instrumentation_memory_bytes ring"]; ok {
		t.Error("what is unregistered is shown")
	}
	panics(t, "NewHookCollector", func() { allocprom.NewHookCollector(nil, "ring") })
	panics(t, "NewHookCollector", func() { allocprom.NewHookCollector(new(asked), "") })
}

// A Prometheus scrapes hooks that get the events of a Proxy, and answers with their numbers.
func TestPrometheusHooks(t *testing.T) {
	events, profile := ring.New(64, nil), heapprofile.New(heapprofile.Options{Rate: 1})
	meter := hooks.NewMeter(profile)
	drainer := ring.NewDrainer(events, alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {}), time.Hour)
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(events, meter))
	for range 50_000 { // of whose 100,000 events the Meter times some hundred
		free(t, mem, allocate(t, mem, 100))
	}
	if err := drainer.Close(); err != nil {
		t.Fatal(err)
	}
	sources := map[string]hooks.UsageSource{"ring": events, "meter": meter, "drainer": drainer, "profile": profile}
	r := prometheus.NewRegistry()
	for name, hook := range sources {
		r.MustRegister(allocprom.NewHookCollector(hook, name))
	}
	if u := drainer.Usage(); u.Events != 100_000 || u.Dropped == 0 || events.Usage().Sampled != 100_000 || profile.Usage().Sampled != 50_000 || meter.Usage().Events == 0 {
		t.Fatalf("the hooks have %+v, %+v, %+v, %+v", u, events.Usage(), profile.Usage(), meter.Usage())
	}
	s := serve(t, r)
	for _, job := range []string{"native", "classic"} {
		for name, hook := range sources {
			labels, u := fmt.Sprintf("{job=%q,hook=%q}", job, name), hook.Usage()
			const of = "allocator_instrumentation_"
			s.await(t, of+"sampled_total"+labels, float64(u.Sampled))
			s.check(t, of+"dropped_total"+labels, float64(u.Dropped))
			s.check(t, of+"memory_bytes"+labels, float64(u.Bytes))
			if u.Events != 0 {
				s.check(t, of+"events_total"+labels, float64(u.Events))
			}
			if u.Time != 0 {
				s.check(t, of+"time_seconds_total"+labels, u.Time.Seconds())
			}
		}
		s.check(t, fmt.Sprintf("count(allocator_instrumentation_events_total{job=%q})", job), 3) // not of the profile
	}
}
