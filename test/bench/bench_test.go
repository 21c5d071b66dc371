package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestParseLoad(t *testing.T) {
	const line = `{"mode":"read","bs":1048576,"depth":8,"sessions":1,"ops":2702,"iops":1351,"mib_s":1350.7,"p50_us":5120,"p99_us":17920,"p999_us":20000,"errors":0}` + "\n"
	s, ops, err := parseLoad([]byte(line))
	if err != nil || ops != 2702 || s != (sample{IOPS: 1351, MiBs: 1350.7, P50: 5120, P99: 17920}) {
		t.Errorf("%+v, %v commands, %v", s, ops, err)
	}
	for name, line := range map[string]string{
		"nothing":         "",
		"cut short":       line[:len(line)-10],
		"no ops":          strings.Replace(line, `"ops":2702,`, "", 1),
		"no errors":       strings.Replace(line, `,"errors":0`, "", 1),
		"a session fails": strings.Replace(line, `"errors":0`, `"errors":1`, 1),
		"none answered":   strings.Replace(line, `"ops":2702`, `"ops":0`, 1),
	} {
		if _, _, err := parseLoad([]byte(line)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The program prints what the test above reads.
func TestProgramPrints(t *testing.T) {
	source, err := programs.ReadFile("c/iscsiload.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ops", "iops", "mib_s", "p50_us", "p99_us", "errors"} {
		if !strings.Contains(string(source), `\"`+name+`\":%`) {
			t.Errorf("iscsiload does not print %q", name)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		of   []float64
		want float64
	}{{[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{30, 10, 20}, 20}, {[]float64{4, 1, 3, 2}, 2.5}} {
		given := slices.Clone(tt.of)
		if got := median(tt.of); got != tt.want {
			t.Errorf("%v: %v", tt.of, got)
		}
		if !slices.Equal(given, tt.of) {
			t.Errorf("%v is %v now", given, tt.of)
		}
	}
}

func TestCompare(t *testing.T) {
	mine := []*sample{{IOPS: 100, CPU: 8, P99: 50}, nil, {IOPS: 300, CPU: 9, P99: 80}, {IOPS: 50, CPU: 10, P99: 10}}
	its := []*sample{{IOPS: 50, CPU: 4, P99: 100}, {IOPS: 1, CPU: 1, P99: 1}, {IOPS: 100, CPU: 3, P99: 40}, nil}
	// Rounds that both have: iops 2 and 3, cpu 2 and 3, p99 0.5 and 2.
	if x, ok := compare(mine, its); !ok || x != (ratio{IOPS: 2.5, CPU: 2.5, P99: 1.25}) {
		t.Errorf("%+v, %v", x, ok)
	}
	for _, none := range [][]*sample{nil, {nil, its[0]}} {
		if x, ok := compare(mine, none); ok {
			t.Errorf("%+v of no common round", x)
		}
	}
	if x, ok := compare([]*sample{{IOPS: 1, CPU: 1, P99: 1}}, []*sample{{}}); !ok || math.IsInf(x.CPU, 0) || math.IsInf(x.IOPS, 0) || math.IsInf(x.P99, 0) {
		t.Errorf("%+v, %v", x, ok)
	}
}

func TestReport(t *testing.T) {
	r := newReport(3)
	w := workloads[0]
	for round, iops := range []float64{100, 400, 200} {
		r.add(w, tgt, round, sample{IOPS: iops, CPU: 4, P99: 20}, nil)
		r.add(w, ours, round, sample{IOPS: iops * 2, CPU: 1, P99: 10}, nil)
		r.add(w, "broken", round, sample{}, errors.New("no such thing"))
	}
	r.peak(ours, 12.5, nil)
	r.addIdle(ours, newIdle(1000, memory{now: 10}, memory{now: 20}), nil)
	out := r.String()
	for _, line := range []string{
		"4k randread qd32     tgt             200      0.0        0       20     4.00     2.00   0.25   0.50\n",
		"4k randread qd32     ours            400      0.0        0       10     1.00\n",
		"peak memory          ours           12.5 MiB\n",
		"idle sessions        ours           20.0 MiB with 1000, 10.0 with none: 10.2 KiB each\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
	if len(r.failed) != 3 || r.failed[2] != "4k randread qd32, broken, round 3: no such thing" {
		t.Errorf("failed: %q", r.failed)
	}
	path := filepath.Join(t.TempDir(), "figures.json")
	if err := r.write(path, &machine{Cores: 2}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var figures map[string]map[string]json.RawMessage
	if err := json.Unmarshal(text, &figures); err != nil {
		t.Fatal(err)
	}
	var s sample
	if err := json.Unmarshal(figures[w.name][ours], &s); err != nil || s != (sample{IOPS: 400, CPU: 1, P99: 10}) {
		t.Errorf("%+v, %v in %s", s, err, text)
	}
	if string(figures["peak MiB"][ours]) != "12.5" {
		t.Errorf("no peak in %s", text)
	}
}

func TestChoose(t *testing.T) {
	for words, want := range map[string]struct {
		cases int
		idle  bool
	}{
		"":               {len(workloads), true},
		"idle":           {0, true},
		"qd1,sessions 8": {len(named("qd1")) + 1, false},
		"1M":             {4, false},
	} {
		if chosen, idle, err := choose(words); err != nil || len(chosen) != want.cases || idle != want.idle {
			t.Errorf("%q: %v, %v, %v", words, chosen, idle, err)
		}
	}
	if _, _, err := choose("3k"); err == nil {
		t.Error("a word that is in no name chooses something")
	}
}

func named(word string) (all []workload) {
	for _, w := range workloads {
		if strings.Contains(w.name, word) {
			all = append(all, w)
		}
	}
	return all
}

func TestProc(t *testing.T) {
	pid, p, err := parseProcess("7 (a) S name) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 30 10 20 0 1 0")
	if err != nil || pid != 7 || p != (process{1, 3 * time.Second, 400 * time.Millisecond}) {
		t.Errorf("process %d: %+v, %v", pid, p, err)
	}
	m, err := processMemory("Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n")
	if err != nil || m != (memory{now: 2, peak: 4}) {
		t.Errorf("memory: %+v, %v", m, err)
	}
	steal, err := stolen("cpu  100 20 30 900 5 6 7 40 0 0\ncpu0 1 2\n")
	if err != nil || steal != 400*time.Millisecond {
		t.Errorf("stolen: %v, %v", steal, err)
	}
	_, _, nobody := parseProcess("")
	_, formless := processMemory("Name:\tx\n")
	_, none := stolen("intr 1\n")
	for name, err := range map[string]error{"stat of nobody": nobody, "status of nobody": formless, "no processors": none} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOthers(t *testing.T) {
	all := map[int]process{
		1:  {0, 1, 10},
		2:  {0, 1000, 0},
		3:  {2, 1000, 0},
		10: {1, 100, 0},
		20: {10, 10000, 10000}, // ours
		21: {20, 10000, 10000},
		22: {21, 10000, 10000},
		30: {29, 200, 0}, // its parent ended as we looked
	}
	if got := others(all, 20); got != 311 {
		t.Errorf("others had %d", got)
	}
}

func TestMachine(t *testing.T) {
	busy := &machine{Cores: 2}
	busy.during(usage{}, usage{wall: 10 * time.Second, others: time.Second, steal: 100 * time.Millisecond})
	if busy.Others != 5 || busy.Steal != 0.5 || !strings.Contains(busy.verdict(), "BUSY") {
		t.Errorf("%+v: %s", busy, busy.verdict())
	}
	quiet := &machine{Cores: 2}
	quiet.during(usage{others: time.Second}, usage{wall: 10 * time.Second, others: 900 * time.Millisecond})
	if strings.Contains(quiet.verdict()+quiet.String(), "busy") || strings.Contains(quiet.verdict(), "BUSY") {
		t.Error(quiet, quiet.verdict())
	}
	if m, err := lookAtMachine(t.TempDir()); err != nil || m.CPU == "" || m.Kernel == "" || m.Cores < 1 {
		t.Errorf("%+v, %v", m, err)
	}
	before, err := look()
	if err != nil {
		t.Fatal(err)
	}
	if after, err := look(); err != nil || after.wall <= before.wall {
		t.Errorf("%+v, then %+v, %v", before, after, err)
	}
}

func TestSpeedLines(t *testing.T) {
	document, err := os.ReadFile("../../docs/ietd.md")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := speedLines(string(document))
	if err != nil || !strings.Contains(lines, "InitialR2T No\n") || !strings.Contains(lines, "MaxBurstLength ") {
		t.Errorf("%q, %v", lines, err)
	}
	if lines, err := speedLines("# Other\n\n    InitialR2T No\n\n## Speed\n\nnothing\n"); err == nil {
		t.Errorf("%q from a document without any", lines)
	}
}

// What was forgotten is not in memory.
func TestForget(t *testing.T) {
	dir, err := os.MkdirTemp(".", "forget-") // the usual place may be memory itself
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "disk")
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, size / 2} {
		if err := forget(path, from); err != nil {
			t.Fatal(err)
		}
		for i, p := range inMemory(t, f, size) {
			before := int64(i*os.Getpagesize()) < from
			if there := p&1 != 0; there != before && st.Type != unix.TMPFS_MAGIC { // which is memory
				t.Fatalf("forgotten from %d on: page %d is in memory: %v", from, i, there)
			}
		}
	}
	if forget(path+"x", 0) == nil {
		t.Error("what is not there was found")
	}
}

// inMemory asks which pages of a file are, without bringing any there, as a read would.
func inMemory(t *testing.T, f *os.File, size int) []byte {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	pages := make([]byte, size/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0])))
	if err := unix.Munmap(m); err != nil || errno != 0 {
		t.Fatal(errno, err)
	}
	return pages
}

func TestParseFio(t *testing.T) {
	const said = `{"jobs":[{"read":{"total_ios":2000,"iops":1000.5,"bw_bytes":4194304,"runtime":2000,
"clat_ns":{"percentile":{"50.000000":1500,"99.000000":9000}}},"usr_cpu":10.0,"sys_cpu":30.0}]}`
	s, err := parseFio([]byte(said))
	if want := (sample{IOPS: 1000.5, MiBs: 4, P50: 1.5, P99: 9, CPU: 400}); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	for _, other := range []string{"", said[:60], `{"jobs":[]}`, strings.Replace(said, "2000", "0", 1)} {
		if _, err := parseFio([]byte(other)); err == nil {
			t.Errorf("%q: no error", other)
		}
	}
}

// Each case is for the targets that can do it, and what changes the disk for others is last.
func TestWhoHasWhat(t *testing.T) {
	kinds := (&bench{}).kinds()
	for name, want := range map[string][]string{
		"4k randread qd32":    {null, nullFile, tgt, ours},
		"1M hdrdigest qd8":    {tgt, ours},
		"4k coldread qd32":    {nullFile, tgt, ours, direct},
		"4k qd8 beside cold":  {nullFile, tgt, ours},
		"4k qd8 beside sync":  {tgt, ours},
		"4k qd8 beside unmap": {ours},
	} {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
		if i < 0 {
			t.Fatalf("no case %s", name)
		}
		var have []string
		for _, k := range kinds {
			if k.has(workloads[i]) {
				have = append(have, k.name)
			}
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s is for %q", name, have)
		}
	}
	for _, w := range workloads {
		if punches, p := w.beside == "unmap", w.part(); punches != (p == 2) || p == 0 && w.cold {
			t.Errorf("%s is in part %d", w.name, p)
		}
	}
}
