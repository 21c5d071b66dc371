package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is what a figure is worth nothing without.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	// Files is the file system that the disks lie in.
	Files string `json:"files"`
	// Load is the load average of the last minute before the run.
	Load float64 `json:"load_average"`
	// Others and Steal are percent of all cores' time during the run: that of
	// processes that are none of ours, and what the machine under a virtual one took.
	Others float64 `json:"others_percent"`
	Steal  float64 `json:"steal_percent"`
}

const (
	// busyLoad is a load average worth a word: it may be of what built this program.
	busyLoad = 0.5
	// busyPercent taken by others make a run a trial and no measurement.
	busyPercent = 3
)

func lookAtMachine(dir string) (*machine, error) {
	m := &machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU()}
	cpuinfo, err1 := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(cpuinfo), "\nmodel name"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.TrimLeft(line, "\t :")
	}
	kernel, err2 := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	load, err3 := os.ReadFile("/proc/loadavg")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(load), " ")
	var err error
	if m.Load, err = strconv.ParseFloat(first, 64); err != nil {
		return nil, fmt.Errorf("load average: %w", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return nil, err
	}
	m.Files = fileSystem(int64(fs.Type)) //nolint:unconvert // of another type on 32 bits
	return m, nil
}

func fileSystem(magic int64) string {
	names := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlayfs"}
	if name := names[magic]; name != "" {
		return name
	}
	return fmt.Sprintf("file system %#x", magic)
}

func (m *machine) String() string {
	text := fmt.Sprintf("%s, %d cores, Linux %s, disks on %s, load average %.2f\n", m.CPU, m.Cores, m.Kernel, m.Files, m.Load)
	if m.Load > busyLoad {
		text += "the machine was busy in the last minute; the last line says whether it still is\n"
	}
	return text
}

// usage is time on processors since the machine began: that of processes that are none of
// ours, and what a hypervisor took.
type usage struct{ others, steal, wall time.Duration }

// during has what the machine did besides between two looks.
func (m *machine) during(before, after usage) {
	of := float64(after.wall-before.wall) * float64(m.Cores)
	percent := func(d time.Duration) float64 { return max(0, float64(d)/of*100) }
	m.Others = percent(after.others - before.others)
	m.Steal = percent(after.steal - before.steal)
}

func (m *machine) verdict() string {
	text := fmt.Sprintf("\nduring the run other processes had %.1f %% of the processors, a hypervisor %.1f %%\n", m.Others, m.Steal)
	if m.Others > busyPercent || m.Steal > busyPercent {
		text += "THE MACHINE WAS BUSY: keep no figures of this run\n"
	}
	return text
}

func look() (usage, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	steal, err := stolen(string(stat))
	if err != nil {
		return usage{}, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}, err
	}
	all := map[int]process{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, p, err := parseProcess(string(text))
		if err != nil {
			return usage{}, err
		}
		all[pid] = p
	}
	return usage{others: others(all, os.Getpid()), steal: steal, wall: time.Duration(time.Now().UnixNano())}, nil
}

// others is the time of all processes but one and its descendants. The totals of /proc/stat
// would not do: some kernels count interrupts there and for a process, others only once.
// Children that ended are in their parents' time, so that what ended meanwhile is in the
// difference of two sums too. The kernel's threads are left out: they work for whoever.
func others(all map[int]process, self int) time.Duration {
	const kthreadd = 2
	var sum time.Duration
	for pid, p := range all {
		ancestor := pid
		for ancestor > kthreadd && ancestor != self {
			ancestor = all[ancestor].parent
		}
		if ancestor != self && ancestor != kthreadd {
			sum += p.own + p.children
		}
	}
	return sum
}

// stolen reads /proc/stat.
func stolen(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	n, err := strconv.ParseInt(fields[8], 10, 64)
	return time.Duration(n) * tick, err
}
