package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// results are how tests ended, by package and test. The test "" is the package itself.
type results map[name]string

type name struct{ pkg, test string }

// readResults reads what go test -json prints. A test that began and has no end, as in a crash, is "unfinished".
func readResults(r io.Reader, module string) (results, error) {
	found := make(results)
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		var e struct{ Action, Package, Test string }
		// What a test prints to the console itself may stand between the events.
		if len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Package != "" {
			n := name{short(e.Package, module), e.Test}
			switch e.Action {
			case "start", "run":
				found[n] = "unfinished"
			case "pass", "fail", "skip":
				found[n] = e.Action
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no result of a test")
	}
	return found, nil
}

// short returns the package's path in its module, "." for the module itself.
func short(pkg, module string) string {
	if pkg == module {
		return "."
	}
	return strings.TrimPrefix(pkg, module+"/")
}

// packages counts the packages that have tests.
func (r results) packages() int {
	with := make(map[string]bool)
	for n := range r {
		if n.test != "" {
			with[n.pkg] = true
		}
	}
	return len(with)
}

// String returns how many tests passed, failed and were skipped.
func (r results) String() string {
	var passed, failed, skipped int
	for n, result := range r {
		switch {
		case n.test == "":
		case result == "pass":
			passed++
		case result == "skip":
			skipped++
		default:
			failed++
		}
	}
	return fmt.Sprintf("%7d %4d %4d", passed, failed, skipped)
}

type difference struct{ pkg, test, before, after string }

// differences returns the tests that ended otherwise in after, in order. A test that differs only because
// a subtest does is left out, and so is a package because of its tests. Subtests that are in one only, did not
// fail there, and whose test ended alike in both, have names by chance: they are counted only.
func (r results) differences(after results) (list []difference, byChance int) {
	because := make(map[name]bool)
	for _, n := range union(r, after) { // subtests first
		was, is := or(r[n], "absent"), or(after[n], "absent")
		if was == is {
			continue
		}
		if p := (name{n.pkg, parent(n.test)}); p.test != "" && r[p] == after[p] && byName(was, is) {
			byChance++
			continue
		}
		if !because[n] {
			list = append(list, difference{n.pkg, or(n.test, "(package)"), was, is})
		}
		because[name{n.pkg, parent(n.test)}] = true
		because[name{n.pkg, ""}] = true
	}
	slices.Reverse(list)
	return list, byChance
}

// byName reports whether a test is in one run only, and did not fail there.
func byName(was, is string) bool {
	if was == "absent" {
		was, is = is, was
	}
	return is == "absent" && (was == "pass" || was == "skip")
}

// union returns the names of both, a test after its subtests.
func union(a, b results) []name {
	var all []name
	for n := range a {
		all = append(all, n)
	}
	for n := range b {
		if _, ok := a[n]; !ok {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(m, n name) int {
		return strings.Compare(n.pkg+" "+n.test, m.pkg+" "+m.test)
	})
	return all
}

func parent(test string) string {
	i := strings.LastIndexByte(test, '/')
	return test[:max(i, 0)]
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
