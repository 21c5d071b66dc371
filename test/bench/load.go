package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// span is the size of every target's disk in bytes.
const span = 1 << 30

// workload is a case: what the initiator does.
type workload struct {
	name  string
	mode  string // of iscsiload
	block int    // bytes
	depth int    // commands under way in a session
	// sessions are connections too: iscsiload opens one in each.
	sessions int
	// digests has headers carry a CRC32C.
	digests bool
	// beside is what else goes on in the session: iscsiload's -x, on the second half of the
	// disk, with so many commands under way.
	beside      string
	besideDepth int
	// cold has the disk, or the half of it that is beside, in no memory when it begins. It
	// takes a second, so that most of it still is not when it ends.
	cold bool
}

// parts is how many there are of a run.
const parts = 3

// part is the one that a case belongs to: one of what is not in memory leaves that otherwise
// than it was, and UNMAP leaves holes.
func (w workload) part() int {
	switch {
	case w.beside == "unmap":
		return 2
	case w.cold:
		return 1
	}
	return 0
}

var workloads = []workload{
	{name: "4k randread qd32", mode: "randread", block: 4096, depth: 32, sessions: 1},
	{name: "4k randwrite qd32", mode: "randwrite", block: 4096, depth: 32, sessions: 1},
	{name: "4k randread qd1", mode: "randread", block: 4096, depth: 1, sessions: 1},
	{name: "4k randwrite qd1", mode: "randwrite", block: 4096, depth: 1, sessions: 1},
	{name: "4k randrw 8x16", mode: "randrw", block: 4096, depth: 16, sessions: 8},
	{name: "64k randread qd16", mode: "randread", block: 64 << 10, depth: 16, sessions: 1},
	{name: "1M read qd8", mode: "read", block: 1 << 20, depth: 8, sessions: 1},
	{name: "1M write qd8", mode: "write", block: 1 << 20, depth: 8, sessions: 1},
	{name: "64k hdrdigest qd16", mode: "randread", block: 64 << 10, depth: 16, sessions: 1, digests: true},
	{name: "1M hdrdigest qd8", mode: "read", block: 1 << 20, depth: 8, sessions: 1, digests: true},
	{name: "4k coldread qd32", mode: "randread", block: 4096, depth: 32, sessions: 1, cold: true},
	{name: "4k coldread 8x16", mode: "randread", block: 4096, depth: 16, sessions: 8, cold: true},
	{name: "64k coldread qd16", mode: "randread", block: 64 << 10, depth: 16, sessions: 1, cold: true},
	{name: "1M coldread qd8", mode: "read", block: 1 << 20, depth: 8, sessions: 1, cold: true},
	{name: "4k sessions 1x16", mode: "randread", block: 4096, depth: 16, sessions: 1},
	{name: "4k sessions 8x16", mode: "randread", block: 4096, depth: 16, sessions: 8},
	{name: "4k sessions 64x16", mode: "randread", block: 4096, depth: 16, sessions: 64},
	{name: "4k sessions 512x16", mode: "randread", block: 4096, depth: 16, sessions: 512},
	{name: "4k randread qd8", mode: "randread", block: 4096, depth: 8, sessions: 1},
	{name: "4k qd8 beside sync", mode: "randread", block: 4096, depth: 8, sessions: 1, beside: "sync", besideDepth: 1},
	{name: "4k qd8 beside cold", mode: "randread", block: 4096, depth: 8, sessions: 1, beside: "cold", besideDepth: 16, cold: true},
	{name: "4k qd8 beside unmap", mode: "randread", block: 4096, depth: 8, sessions: 1, beside: "unmap", besideDepth: 1},
}

// idleCase is the name of the case that is about memory.
const idleCase = "idle sessions"

// choose returns the cases that have one of the words in their names, and whether the idle
// sessions are among them. No words choose all.
func choose(words string) (chosen []workload, idle bool, err error) {
	wanted := func(name string) bool {
		for word := range strings.SplitSeq(words, ",") {
			if strings.Contains(name, word) {
				return true
			}
		}
		return false
	}
	names := []string{idleCase}
	for _, w := range workloads {
		names = append(names, w.name)
		if wanted(w.name) {
			chosen = append(chosen, w)
		}
	}
	idle = wanted(idleCase)
	if len(chosen) == 0 && !idle {
		return nil, false, fmt.Errorf("no case has any of %q in its name; there are %s", words, strings.Join(names, ", "))
	}
	return chosen, idle, nil
}

// arguments are iscsiload's for this case.
func (w workload) arguments(url string, secs int) []string {
	args := []string{
		"-u", url, "-m", w.mode, "-b", strconv.Itoa(w.block), "-q", strconv.Itoa(w.depth),
		"-s", strconv.Itoa(w.sessions), "-t", strconv.Itoa(secs), "-z", strconv.Itoa(span),
	}
	if w.digests {
		args = append(args, "-D")
	}
	if w.beside != "" {
		args = append(args, "-x", w.beside, "-y", strconv.Itoa(w.besideDepth))
	}
	return args
}

// sample is one target's share of a case in one round.
type sample struct {
	IOPS float64 `json:"iops"`
	MiBs float64 `json:"mib_s"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	// CPU is the target's time on a processor for each command, in microseconds.
	CPU float64 `json:"cpu_us_op"`
}

// parseLoad reads the line of iscsiload. ops are the commands that were answered.
func parseLoad(line []byte) (s sample, ops float64, err error) {
	said := struct {
		sample
		Ops    *float64 `json:"ops"`
		Errors *int     `json:"errors"`
	}{}
	switch err := json.Unmarshal(line, &said); {
	case err != nil:
		return sample{}, 0, fmt.Errorf("iscsiload said %q: %w", line, err)
	case said.Ops == nil || said.Errors == nil:
		return sample{}, 0, fmt.Errorf("iscsiload said %q, without ops and errors", line)
	case *said.Errors != 0:
		return sample{}, 0, fmt.Errorf("%d sessions failed", *said.Errors)
	case *said.Ops == 0:
		return sample{}, 0, errors.New("no command was answered")
	}
	return said.sample, *said.Ops, nil
}
