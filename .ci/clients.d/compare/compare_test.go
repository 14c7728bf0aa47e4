package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const beforeLog = `{"Action":"start","Package":"m.org/m/p"}
{"Action":"run","Package":"m.org/m/p","Test":"TestA"}
a line of a program
{"Action":"run","Package":"m.org/m/p","Test":"TestA/sub"}
{"Action":"pass","Package":"m.org/m/p","Test":"TestA/sub"}
{"Action":"pass","Package":"m.org/m/p","Test":"TestA"}
{"Action":"run","Package":"m.org/m/p","Test":"TestB"}
{"Action":"skip","Package":"m.org/m/p","Test":"TestB"}
{"Action":"pass","Package":"m.org/m/p"}
`

const afterLog = `{"Action":"start","Package":"m.org/m/p"}
{"Action":"run","Package":"m.org/m/p","Test":"TestA"}
{"Action":"run","Package":"m.org/m/p","Test":"TestA/sub"}
{"Action":"fail","Package":"m.org/m/p","Test":"TestA/sub"}
{"Action":"fail","Package":"m.org/m/p","Test":"TestA"}
{"Action":"run","Package":"m.org/m/p","Test":"TestB"}
{"Action":"fail","Package":"m.org/m/p"}
`

func TestDifferences(t *testing.T) {
	before, after := results0(t, beforeLog), results0(t, afterLog)
	if got, want := before.String()+","+after.String(), "      2    0    1,      0    3    0"; got != want {
		t.Errorf("counts %q, want %q", got, want)
	}
	if got := before.packages(); got != 1 {
		t.Errorf("%d packages, want 1", got)
	}
	want := []difference{{"p", "TestA/sub", "pass", "fail"}, {"p", "TestB", "skip", "unfinished"}}
	if got, _ := before.differences(after); !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v", got, want)
	}
	if got, byChance := before.differences(before); len(got) > 0 || byChance > 0 {
		t.Errorf("a run differs from itself: %v", got)
	}
}

func TestNamesByChance(t *testing.T) {
	before := results0(t, beforeLog)
	after := results0(t, strings.ReplaceAll(beforeLog, "TestA/sub", "TestA/seed=7"))
	if got, byChance := before.differences(after); len(got) > 0 || byChance != 2 {
		t.Errorf("differences %v, by chance %d, want none and 2", got, byChance)
	}
	after[name{"p", "TestA/seed=7"}] = "fail"
	want := []difference{{"p", "TestA/seed=7", "absent", "fail"}}
	if got, byChance := before.differences(after); !slices.Equal(got, want) || byChance != 1 {
		t.Errorf("differences %v, by chance %d, want %v and 1", got, byChance, want)
	}
	delete(after, name{"p", "TestB"})
	want = append(want, difference{"p", "TestB", "skip", "absent"})
	if got, _ := before.differences(after); !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v: a test is not by chance", got, want)
	}
}

func TestPackageThatDoesNotBuild(t *testing.T) {
	after := results0(t, `{"Action":"start","Package":"m.org/m/p"}
{"Action":"fail","Package":"m.org/m/p"}
`)
	want := []difference{
		{"p", "TestA/sub", "pass", "absent"},
		{"p", "TestB", "skip", "absent"},
	}
	if got, _ := results0(t, beforeLog).differences(after); !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v", got, want)
	}
}

func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "known")
	text := "# a comment\n\nm p TestA always it is so\nm p TestB* sometimes so too\nm p TestC sometimes rare\nother p TestD always none of ours\n"
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	list, err := readKnown(file, "m")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := results0(t, beforeLog).differences(results0(t, afterLog))
	var out strings.Builder
	if !report(&out, all, list) {
		t.Errorf("known differences are no success:\n%s", &out)
	}
	want := "  p TestA/sub: pass, then fail: it is so\n  p TestB: skip, then unfinished: so too\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	list, _ = readKnown(file, "m")
	all = append(all[1:], difference{"p", "TestE", "pass", "fail"})
	if report(&out, all, list) {
		t.Error("an unknown difference is a success")
	}
	want = "  p TestB: skip, then unfinished: so too\n  p TestE: pass, then fail: UNKNOWN\n  p TestA: no longer differs: take it from the list\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if err := os.WriteFile(file, []byte("m p TestA never\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readKnown(file, "m"); err == nil || !strings.Contains(err.Error(), ":1: want client") {
		t.Errorf("a bad line: %v", err)
	}
}

func results0(t *testing.T, log string) results {
	t.Helper()
	r, err := readResults(strings.NewReader(log), "m.org/m")
	if err != nil {
		t.Fatal(err)
	}
	return r
}
