package kernel

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestMemoryPressure has initiator and target in one guest that has too little
// memory for what is written: to write back its dirty pages the kernel must get
// them through our own process, and that must not wait for memory which only
// the writing back would free. The kernel's limits for dirty pages are its
// defaults: docs/one-machine.md has what is known beyond them.
func TestMemoryPressure(t *testing.T) {
	const (
		memory  = 384 * mebibyte
		written = 3 * memory / 2
		hogged  = memory / 4
		limit   = 10 * time.Minute
	)
	l := newLab(t)
	g, err := l.Boot(t.Context(), lab.GuestConfig{Name: "both", Memory: memory, State: 4 << 30})
	must(t, err)
	c := &cluster{lab: l}
	c.controller, err = l.StartController(t.Context(), g.Machine)
	must(t, err)
	n, err := l.StartNode(t.Context(), g)
	must(t, err)
	v := c.create(t, lab.Claim{Size: 2 << 30, FSType: "ext4"})
	path := attach(t, v, n, podA)

	// Part of the memory is taken for good, since there is no swap; another
	// part comes and goes.
	shell(t, g.Machine, fmt.Sprintf("dd if=/dev/zero of=/dev/shm/hog bs=1M count=%d status=none", hogged/mebibyte))
	start := time.Now()
	job := background(t, g, fmt.Sprintf(`fio --name=w --directory=%s --size=%d --numjobs=2 --rw=write --bs=256k \
		--ioengine=sync --fallocate=none --end_fsync=1 --verify=crc32c --do_verify=1 --verify_fatal=1 2>&1`, path, written/2))
	hog := background(t, g, "while :; do head -c "+fmt.Sprint(hogged/2)+" /dev/zero | tail >/dev/null || :; done")
	select {
	case <-job.done:
	case <-time.After(limit):
		explainStuck(t, g)
		t.Fatalf("not done after %v: initiator and target wait for each other", limit)
	}
	hog.stop()
	t.Logf("wrote and verified %d MiB in %v with %d MiB of memory", written/mebibyte, time.Since(start).Round(time.Second), memory/mebibyte)
	if job.err != nil || !job.exit.Success() {
		t.Errorf("fio: %v %v\n%s", job.exit, job.err, job.out.String())
	}
	stalls := shell(t, g.Machine, "awk '/^allocstall/ { n += $2 } END { print n }' /proc/vmstat")
	if t.Logf("%s allocations waited for memory", stalls); stalls == "0" {
		t.Error("memory was never short: the test proves nothing")
	}
	checkKernel(t, g)
	must(t, v.Detach(t.Context(), n, podA))
	checkClean(t, n)
	must(t, v.Delete(t.Context()))
}

// checkKernel fails the test if the guest's kernel tells of I/O that failed.
func checkKernel(t *testing.T, g *lab.Guest) {
	t.Helper()
	if bad := shell(t, g.Machine, "dmesg | grep -iE 'I/O error|EXT4-fs (error|warning)|remount|blocked for more' || true"); bad != "" {
		t.Errorf("%s's kernel says:\n%s", g.Name, bad)
	}
}

// explainStuck puts where everybody waits into the logs that are kept: the
// kernel's tasks onto the console, the product's goroutines into its logs.
func explainStuck(t *testing.T, g *lab.Guest) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := g.Shell(ctx, `
		for key in w t m; do echo $key >/proc/sysrq-trigger; done
		pkill -QUIT -x csi-ietd
		free -m; cat /proc/vmstat | grep -E 'dirty|writeback'`)
	t.Logf("%s: %v\n%s", g.Name, err, out)
}
