// Command compare says how a client's tests differ before and after it got this library's memory.
//
//	compare -client NAME -version V -known FILE -counts DIR BEFORE AFTER
//
// BEFORE and AFTER are what go test -json printed. It prints a row of the table, and below it a line for each
// test that ended otherwise. It fails if one of them is not in the file of known differences, or if
// the file has one that always is and was not seen, or if no block came from our memory.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("compare: ")
	client := flag.String("client", "", "the client's `name`, as in the file of known differences")
	module := flag.String("module", "", "the client's module `path`, which names of packages begin with")
	version := flag.String("version", "", "the client's `version`")
	knownFile := flag.String("known", "", "the `file` of known differences")
	countsDir := flag.String("counts", "", "the `folder` with the counts of the processes")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: compare FLAGS BEFORE AFTER")
	}
	before, err := readFile(flag.Arg(0), *module)
	if err != nil {
		log.Fatal(err)
	}
	after, err := readFile(flag.Arg(1), *module)
	if err != nil {
		log.Fatal(err)
	}
	known, err := readKnown(*knownFile, *client)
	if err != nil {
		log.Fatal(err)
	}
	counts, err := readCounts(*countsDir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%-10s %-8s %4d  %s  %s  %9d %9d %8d\n", *client, *version, before.packages(), before, after,
		counts.Allocations, counts.AllocatedBytes>>20, counts.LiveBlocks)
	differences, byChance := before.differences(after)
	if byChance > 0 {
		fmt.Printf("  %d subtests that passed have random names, in one run only\n", byChance)
	}
	if !report(os.Stdout, differences, known) {
		os.Exit(1)
	}
	if counts.Allocations == 0 {
		log.Fatalf("%s allocated no block of our memory: it was not put in", *client)
	}
	if counts.Refused > 0 {
		log.Fatalf("%s: %d frees or reallocations were refused", *client, counts.Refused)
	}
}

func readFile(name, module string) (results, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := readResults(f, module)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// A known difference is a line of the file: client package test when cause. The test may end in *,
// and stands for its subtests as well; when is always or sometimes.
type known struct {
	pkg, test, when, cause string
	seen                   bool
}

func readKnown(name, client string) ([]*known, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []*known
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[3] != "always" && fields[3] != "sometimes" {
			return nil, fmt.Errorf("%s:%d: want client package test always|sometimes cause", name, n)
		}
		if fields[0] == client {
			list = append(list, &known{pkg: fields[1], test: fields[2], when: fields[3], cause: strings.Join(fields[4:], " ")})
		}
	}
	return list, lines.Err()
}

func (k *known) matches(d difference) bool {
	if k.pkg != d.pkg {
		return false
	}
	if prefix, ok := strings.CutSuffix(k.test, "*"); ok {
		return strings.HasPrefix(d.test, prefix)
	}
	return d.test == k.test || strings.HasPrefix(d.test, k.test+"/")
}

// report prints differences with their causes, and reports whether all are known, and all that always are were seen.
func report(w io.Writer, differences []difference, list []*known) bool {
	ok := true
	for _, d := range differences {
		cause := "UNKNOWN"
		if i := slices.IndexFunc(list, func(k *known) bool { return k.matches(d) }); i >= 0 {
			list[i].seen = true
			cause = list[i].cause
		} else {
			ok = false
		}
		fmt.Fprintf(w, "  %s %s: %s, then %s: %s\n", d.pkg, d.test, d.before, d.after, cause)
	}
	for _, k := range list {
		if k.when == "always" && !k.seen {
			fmt.Fprintf(w, "  %s %s: no longer differs: take it from the list\n", k.pkg, k.test)
			ok = false
		}
	}
	return ok
}

// counts are what package memory leaves of each process.
type counts struct{ Allocations, AllocatedBytes, LiveBlocks, LiveBytes, Refused int64 }

func readCounts(dir string) (sum counts, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "counts-*"))
	if err != nil {
		return counts{}, err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return counts{}, err
		}
		var c counts
		err = binary.Read(f, binary.NativeEndian, &c)
		f.Close()
		if err != nil {
			return counts{}, fmt.Errorf("%s: %w", name, err)
		}
		sum.Allocations += c.Allocations
		sum.AllocatedBytes += c.AllocatedBytes
		sum.LiveBlocks += c.LiveBlocks
		sum.LiveBytes += c.LiveBytes
		sum.Refused += c.Refused
	}
	return sum, nil
}
