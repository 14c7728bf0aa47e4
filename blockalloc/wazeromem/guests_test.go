package wazeromem_test

import (
	"context"
	"runtime"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
)

const page = 64 << 10

// A guest is a module to be. Its memory is exported as "memory", and has no maximum unless max is set.
type guest struct {
	min, max uint32
	shared   bool
	imported string // the module whose memory it has, "" if it has its own
	start    string // the function to call at its start, "" for none
	data     bool   // a segment of data that lies outside a memory of one page
}

const (
	fillPage = "\x41\x01\x41\x80\x80\x04\xfc\x0b\x00"             // memory.fill(the address on the stack, 1, 65536)
	again    = "\x20\x00\x41\x01\x6b\x22\x00\x0d\x00\x0b\x20\x00" // if --parameter != 0 continue; return 0
)

// guestFunctions are what each guest exports, in the order of their indices, after the function that is imported.
var guestFunctions = []struct {
	name      string
	signature byte // index into the section of types
	code      string
}{
	{"grow", 1, "\x20\x00\x40\x00"},              // by so many pages: the number there were, or -1
	{"size", 2, "\x3f\x00"},                      // in pages
	{"load", 1, "\x20\x00\x2d\x00\x00"},          // the byte at an address
	{"store", 3, "\x20\x00\x20\x01\x3a\x00\x00"}, // a byte at an address
	{"call", 0, "\x10\x00"},                      // the imported function
	{"trap", 0, "\x00"},
	{"spin", 0, "\x03\x40\x10\x00\x0c\x00\x0b"}, // calls the imported function for ever
	// fill grows by single pages until that is refused, writes to each, and returns how many there were
	{"fill", 2, "\x02\x40\x03\x40" +
		"\x41\x01\x40\x00\x22\x01\x41\x7f\x46\x0d\x01" + // grown = memory.grow(1); if grown == -1 break
		"\x20\x01\x41\x10\x74\x41\x01\x3a\x00\x00" + // store8(grown << 16, 1)
		"\x20\x00\x41\x01\x6a\x21\x00\x0c\x00" + // count++; continue
		"\x0b\x0b\x20\x00"},
	// fillGrowing grows by so many pages, one at a time, and fills each
	{"fillGrowing", 1, "\x03\x40\x41\x01\x40\x00\x41\x10\x74" + fillPage + again},
	// fillPages fills the first so many pages
	{"fillPages", 1, "\x03\x40\x20\x01\x41\x10\x74" + fillPage + "\x20\x01\x41\x01\x6a\x21\x01" + again},
	// storeCallLoad writes a byte, calls the imported function, and reads it
	{"storeCallLoad", 2, "\x41\x07\x41\x2a\x3a\x00\x00\x10\x00\x41\x07\x2d\x00\x00"},
}

func leb(n uint32) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func text(s string) []byte { return append(leb(uint32(len(s))), s...) }

func section(id byte, content ...[]byte) []byte {
	all := slices.Concat(content...)
	return slices.Concat([]byte{id}, leb(uint32(len(all))), all)
}

func (g guest) limits() []byte {
	switch {
	case g.shared:
		return slices.Concat([]byte{3}, leb(g.min), leb(g.max))
	case g.max > 0:
		return slices.Concat([]byte{1}, leb(g.min), leb(g.max))
	}
	return append([]byte{0}, leb(g.min)...)
}

// binary returns the module in WebAssembly's binary format.
func (g guest) binary() []byte {
	const i32 = "\x7f"
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, leb(4), []byte("\x60\x00\x00"+"\x60\x01"+i32+"\x01"+i32+"\x60\x00\x01"+i32+"\x60\x02"+i32+i32+"\x00"))...)
	imports := [][]byte{leb(1), text("host"), text("call"), {0, 0}}
	if g.imported != "" {
		imports[0] = leb(2)
		imports = append(imports, text(g.imported), text("memory"), []byte{2}, g.limits())
	}
	b = append(b, section(2, imports...)...)
	var signatures, exports, codes []byte
	start := uint32(0)
	for i, f := range guestFunctions {
		index := uint32(i + 1)
		signatures = append(signatures, f.signature)
		exports = slices.Concat(exports, text(f.name), []byte{0}, leb(index))
		code := "\x01\x02" + i32 + f.code + "\x0b" // two local variables
		codes = slices.Concat(codes, text(code))
		if f.name == g.start {
			start = index
		}
	}
	count := uint32(len(guestFunctions))
	b = append(b, section(3, leb(count), signatures)...)
	if g.imported == "" {
		b = append(b, section(5, leb(1), g.limits())...)
	}
	b = append(b, section(7, leb(count+1), exports, text("memory"), []byte{2, 0})...)
	if start > 0 {
		b = append(b, section(8, leb(start))...)
	}
	b = append(b, section(10, leb(count), codes)...)
	if g.data {
		b = append(b, section(11, []byte("\x01\x00\x41\xff\xff\x03\x0b"), text("over the end"))...) // from 65535 on
	}
	return b
}

// engines are wazero's ways to run a guest: compiled, where the platform allows that, and interpreted.
var engines = map[string]func() wazero.RuntimeConfig{
	"default":     wazero.NewRuntimeConfig,
	"interpreter": wazero.NewRuntimeConfigInterpreter,
}

// newRuntime returns a Runtime whose guests' imported function is call, or if that is nil lets others run.
func newRuntime(t testing.TB, config wazero.RuntimeConfig, call func()) wazero.Runtime {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), config.WithCoreFeatures(api.CoreFeaturesV2|experimental.CoreFeaturesThreads))
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if call == nil {
		call = runtime.Gosched // for a platform without preemption
	}
	if _, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(call).Export("call").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func compile(t testing.TB, r wazero.Runtime, g guest) wazero.CompiledModule {
	t.Helper()
	compiled, err := r.CompileModule(t.Context(), g.binary())
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// anonymous lets a module be instantiated many times.
func anonymous() wazero.ModuleConfig { return wazero.NewModuleConfig().WithName("") }

// instantiation returns what Instantiate needs.
func instantiation(r wazero.Runtime, compiled wazero.CompiledModule, config wazero.ModuleConfig) func(ctx context.Context) (api.Module, error) {
	return func(ctx context.Context) (api.Module, error) { return r.InstantiateModule(ctx, compiled, config) }
}

func instantiate(t testing.TB, guests *wazeromem.Allocator, name string, r wazero.Runtime, compiled wazero.CompiledModule) *wazeromem.Guest {
	t.Helper()
	g, err := guests.Instantiate(t.Context(), name, instantiation(r, compiled, anonymous()))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// call calls a function of the guest. Where there is no result it returns 0.
func call(t testing.TB, g *wazeromem.Guest, function string, params ...uint64) (result int32) {
	t.Helper()
	err := g.Do(t.Context(), func(module api.Module) error {
		results, err := module.ExportedFunction(function).Call(t.Context(), params...)
		if len(results) > 0 {
			result = int32(results[0])
		}
		return err
	})
	if err != nil {
		t.Errorf("%s%v: %v", function, params, err)
	}
	return result
}

func closeGuest(t testing.TB, g *wazeromem.Guest) {
	t.Helper()
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
