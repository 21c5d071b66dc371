package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// fios has fio do a case of what is in no memory, on the disk of direct itself, with as many
// reads under way as all sessions have: through the page cache, as ours does, and past it,
// as direct does.
func (b *bench) fios(ctx context.Context, w workload, round int, r *report) {
	if !w.cold || w.beside != "" {
		return
	}
	for _, as := range []struct{ name, past string }{{"fio", "0"}, {"fiodirect", "1"}} {
		s, err := b.fio(ctx, w, as.past)
		r.add(w, as.name, round, s, err)
	}
}

func (b *bench) fio(ctx context.Context, w workload, past string) (sample, error) {
	path := b.disk(direct)
	if past == "0" {
		if err := forget(path, 0); err != nil {
			return sample{}, err
		}
	}
	cmd := exec.CommandContext(ctx, "fio", "--name=it", "--filename="+path, "--readonly", "--output-format=json", "--ioengine=io_uring",
		"--rw="+w.mode, "--bs="+strconv.Itoa(w.block), "--iodepth="+strconv.Itoa(w.depth*w.sessions), "--direct="+past,
		"--invalidate=0", "--time_based", "--runtime="+strconv.Itoa(coldSecs))
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return sample{}, fmt.Errorf("fio: %w", err)
	}
	return parseFio(out)
}

// parseFio reads fio's JSON.
func parseFio(out []byte) (sample, error) {
	var said struct {
		Jobs []struct {
			Read struct {
				IOs   float64 `json:"total_ios"`
				IOPS  float64 `json:"iops"`
				Bytes float64 `json:"bw_bytes"` // a second
				MS    float64 `json:"runtime"`
				Lat   struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"clat_ns"`
			} `json:"read"`
			User   float64 `json:"usr_cpu"` // percent
			System float64 `json:"sys_cpu"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return sample{}, fmt.Errorf("fio said %q: %w", out, err)
	}
	if len(said.Jobs) != 1 || said.Jobs[0].Read.IOs == 0 {
		return sample{}, fmt.Errorf("fio read nothing: %q", out)
	}
	job := said.Jobs[0]
	return sample{
		IOPS: job.Read.IOPS, MiBs: job.Read.Bytes / (1 << 20),
		P50: job.Read.Lat.Percentile["50.000000"] / 1e3, P99: job.Read.Lat.Percentile["99.000000"] / 1e3,
		CPU: (job.User + job.System) / 100 * job.Read.MS * 1e3 / job.Read.IOs,
	}, nil
}
