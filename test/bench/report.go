package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// report has what was measured.
type report struct {
	rounds int
	// cases and targets are in the order of the table; samples are by case, target and
	// round, nil where the case failed.
	cases, targets []string
	samples        map[string]map[string][]*sample
	peaks          map[string]float64 // MiB
	idleOf         []string
	idles          map[string]idle
	failed         []string
}

func newReport(rounds int) *report {
	return &report{rounds: rounds, samples: map[string]map[string][]*sample{}, peaks: map[string]float64{}, idles: map[string]idle{}}
}

func (r *report) add(w workload, target string, round int, s sample, err error) {
	if r.samples[w.name] == nil {
		r.samples[w.name] = map[string][]*sample{}
		r.cases = append(r.cases, w.name)
	}
	of := r.samples[w.name]
	if of[target] == nil {
		of[target] = make([]*sample, r.rounds)
	}
	if !slices.Contains(r.targets, target) {
		r.targets = append(r.targets, target)
	}
	if err != nil {
		r.fail(fmt.Errorf("%s, %s, round %d: %w", w.name, target, round+1, err))
		return
	}
	of[target][round] = &s
}

func (r *report) peak(target string, mib float64, err error) {
	if err != nil {
		r.fail(fmt.Errorf("peak memory, %s: %w", target, err))
		return
	}
	r.peaks[target] = mib
}

// fail notes what went wrong, so that the rest can be printed first.
func (r *report) fail(err error) {
	if err != nil {
		r.failed = append(r.failed, err.Error())
	}
}

// idle is what idle sessions cost a target, in MiB of resident memory.
type idle struct {
	Sessions int     `json:"sessions"`
	Before   float64 `json:"before_mib"`
	With     float64 `json:"with_mib"`
	Each     float64 `json:"kib_each"`
}

func newIdle(sessions int, before, with memory) idle {
	return idle{sessions, before.now, with.now, (with.now - before.now) * 1024 / float64(sessions)}
}

func (r *report) addIdle(target string, i idle, err error) {
	if err != nil {
		r.fail(fmt.Errorf("%s, %s: %w", idleCase, target, err))
		return
	}
	r.idleOf = append(r.idleOf, target)
	r.idles[target] = i
}

// median is the middle one, or what lies between the two in the middle. There is at least one.
func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// middle is the median of each figure for itself; ok is false where all rounds failed.
func middle(samples []*sample) (s sample, ok bool) {
	samples = slices.DeleteFunc(slices.Clone(samples), func(s *sample) bool { return s == nil })
	if len(samples) == 0 {
		return sample{}, false
	}
	of := func(figure func(*sample) float64) float64 {
		var all []float64
		for _, s := range samples {
			all = append(all, figure(s))
		}
		return median(all)
	}
	return sample{
		IOPS: of(func(s *sample) float64 { return s.IOPS }),
		MiBs: of(func(s *sample) float64 { return s.MiBs }),
		P50:  of(func(s *sample) float64 { return s.P50 }),
		P99:  of(func(s *sample) float64 { return s.P99 }),
		CPU:  of(func(s *sample) float64 { return s.CPU }),
	}, true
}

// ratio is ours by another's.
type ratio struct {
	IOPS float64 `json:"iops"`
	CPU  float64 `json:"cpu_us_op"`
	P99  float64 `json:"p99_us"`
}

// compare is the median of each round's ratios: what the machine did to a round it did to
// both. ok is false where no round has both.
func compare(mine, its []*sample) (x ratio, ok bool) {
	var iops, cpu, p99 []float64
	for round, m := range mine {
		if round >= len(its) || m == nil || its[round] == nil {
			continue
		}
		it := its[round]
		iops = append(iops, m.IOPS/max(it.IOPS, 1))
		cpu = append(cpu, m.CPU/max(it.CPU, 0.01)) // a short case may take less than a tick
		p99 = append(p99, m.P99/max(it.P99, 1))
	}
	if len(iops) == 0 {
		return ratio{}, false
	}
	return ratio{median(iops), median(cpu), median(p99)}, true
}

// String has a row for each target in each case; in those of the others ours is divided by
// theirs.
func (r *report) String() string {
	var rows strings.Builder
	row := func(format string, args ...any) { rows.WriteString(fmt.Sprintf(format, args...) + "\n") }
	if len(r.cases) > 0 {
		row("\n%-20s %-9s %9s %8s %8s %8s %8s   %s", "", "", "", "", "p50", "p99", "cpu", "ours by it")
		row("%-20s %-9s %9s %8s %8s %8s %8s   %6s %6s %6s", "case", "target", "iops", "MiB/s", "us", "us", "us/cmd", "iops", "cpu", "p99")
	}
	for _, c := range r.cases {
		for _, t := range r.targets {
			s, ok := middle(r.samples[c][t])
			if !ok {
				continue
			}
			beside := ""
			if x, ok := compare(r.samples[c][ours], r.samples[c][t]); ok && t != ours {
				beside = fmt.Sprintf("   %6.2f %6.2f %6.2f", x.IOPS, x.CPU, x.P99)
			}
			row("%-20s %-9s %9.0f %8.1f %8.0f %8.0f %8.2f%s", c, t, s.IOPS, s.MiBs, s.P50, s.P99, s.CPU, beside)
		}
	}
	for _, t := range r.targets {
		if peak, ok := r.peaks[t]; ok {
			row("%-20s %-9s %9.1f MiB", "peak memory", t, peak)
		}
	}
	for _, t := range r.idleOf {
		i := r.idles[t]
		row("%-20s %-9s %9.1f MiB with %d, %.1f with none: %.1f KiB each", idleCase, t, i.With, i.Sessions, i.Before, i.Each)
	}
	return rows.String()
}

// write has the figures in JSON: for each case each target's medians, and beside the cases
// what there is once in a run.
func (r *report) write(path string, m *machine) error {
	all := map[string]any{"machine": m}
	ratios := map[string]map[string]ratio{}
	for _, c := range r.cases {
		of := map[string]sample{}
		ratios[c] = map[string]ratio{}
		for _, t := range r.targets {
			if s, ok := middle(r.samples[c][t]); ok {
				of[t] = s
			}
			if x, ok := compare(r.samples[c][ours], r.samples[c][t]); ok && t != ours {
				ratios[c][t] = x
			}
		}
		all[c] = of
	}
	if len(r.cases) > 0 {
		all["ours by it"], all["peak MiB"] = ratios, r.peaks
	}
	if len(r.idleOf) > 0 {
		all[idleCase] = r.idles
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o666)
}
