package typed_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// BenchmarkRatios measures each container beside its model on the Go heap, one
// right after the other, and reports how many times as long it takes.
func BenchmarkRatios(b *testing.B) {
	const n = 4096
	mem := new(blockalloc.Heap)
	vec := newVec[uint64](b, mem)
	must(b, vec.Resize(n))
	plain := make([]uint64, n)
	buf := typed.NewBuffer(mem)
	var std bytes.Buffer
	p, q := make([]byte, 64), make([]byte, n*8)
	block := make([]uint64, 64)
	sum := uint64(0)
	for _, r := range []struct {
		name         string
		ours, theirs func()
	}{
		{"Vec/At", func() {
			for i := range vec.Len() {
				sum += vec.At(i)
			}
		}, func() {
			for i := range plain {
				sum += plain[i]
			}
		}},
		{"Vec/Set", func() {
			for i := range vec.Len() {
				vec.Set(i, 1)
			}
		}, func() {
			for i := range plain {
				plain[i] = 1
			}
		}},
		{"Vec/All", func() {
			for i, x := range vec.All() {
				sum += uint64(i) ^ x
			}
		}, func() {
			for i, x := range slices.All(plain) {
				sum += uint64(i) ^ x
			}
		}},
		{"Vec/Slice", func() {
			for i, x := range vec.Slice() {
				sum += uint64(i) ^ x
			}
		}, func() {
			for i, x := range plain {
				sum += uint64(i) ^ x
			}
		}},
		{"Vec/Append", func() {
			vec.Clear()
			for i := range uint64(n) {
				if vec.Append(i) != nil {
					b.Fatal("no room")
				}
			}
		}, func() {
			plain = plain[:0]
			for i := range uint64(n) {
				plain = append(plain, i)
			}
		}},
		{"Vec/Append64", func() {
			vec.Clear()
			for range n / 64 {
				if vec.Append(block...) != nil {
					b.Fatal("no room")
				}
			}
		}, func() {
			plain = plain[:0]
			for range n / 64 {
				plain = append(plain, block...)
			}
		}},
		{"Vec/Grow", func() {
			v := typed.NewVec[uint64](mem)
			for i := range uint64(n) {
				if v.Append(i) != nil {
					b.Fatal("no memory")
				}
			}
			must(b, v.Free())
		}, func() {
			var s []uint64
			for i := range uint64(n) {
				s = append(s, i)
			}
			sum += s[n-1]
		}},
		{"Buffer/Write", func() {
			buf.Reset()
			for range n {
				buf.Write(p)
			}
		}, func() {
			std.Reset()
			for range n {
				std.Write(p)
			}
		}},
		{"Buffer/WriteByte", func() {
			buf.Reset()
			for range n {
				buf.WriteByte('x')
			}
		}, func() {
			std.Reset()
			for range n {
				std.WriteByte('x')
			}
		}},
		{"Buffer/ReadByte", func() {
			buf.Reset()
			buf.Write(q)
			for {
				if _, err := buf.ReadByte(); err != nil {
					break
				}
			}
		}, func() {
			std.Reset()
			std.Write(q)
			for {
				if _, err := std.ReadByte(); err != nil {
					break
				}
			}
		}},
		{"Buffer/Queue", func() {
			for range n {
				buf.Write(p)
				buf.Read(p)
			}
		}, func() {
			for range n {
				std.Write(p)
				std.Read(p)
			}
		}},
		{"Buffer/Copy", func() {
			buf.ReadFrom(bytes.NewReader(q))
			buf.WriteTo(io.Discard)
		}, func() {
			std.ReadFrom(bytes.NewReader(q))
			std.WriteTo(io.Discard)
		}},
	} {
		b.Run(r.name, func(b *testing.B) {
			var ours, theirs []float64
			for b.Loop() {
				ours = append(ours, nanoseconds(r.ours))
				theirs = append(theirs, nanoseconds(r.theirs))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ours)/n, "ns/one")
			b.ReportMetric(median(ours)/median(theirs), "ratio")
		})
	}
	must(b, vec.Free())
	must(b, buf.Free())
	if sum == 1 {
		b.Log("the loops are not to be left out")
	}
}

// BenchmarkVecResize measures zero elements that come as zeroed memory beside those that Resize clears: of a Vec that has
// its block already. One in 64 pages of them is written to.
func BenchmarkVecResize(b *testing.B) {
	for name, mem := range map[string]blockalloc.Allocator{"System": new(blockalloc.System), "Pool": &blockalloc.Pool{}} {
		for _, n := range []int{8 << 10, 1 << 20, 64 << 20} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				resize := func(reserve int) func() {
					return func() {
						v := typed.NewVec[byte](mem)
						must(b, v.Reserve(reserve))
						must(b, v.Resize(n))
						for i := 0; i < n; i += 256 << 10 {
							v.Set(i, 1)
						}
						must(b, v.Free())
					}
				}
				ratio(b, "resize", n, resize(0), resize(n))
			})
		}
	}
}

func nanoseconds(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start))
}

func median(times []float64) float64 {
	slices.Sort(times)
	return times[len(times)/2]
}
