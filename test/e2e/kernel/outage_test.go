package kernel

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestOutage takes the target, a node or the wire away under I/O.
func TestOutage(t *testing.T) {
	c := newCluster(t, impatient, patient)
	t.Run("controller-killed-under-fio", func(t *testing.T) { testControllerKilled(t, c) })
	t.Run("partitioned-node-is-fenced", func(t *testing.T) { testFence(t, c) })
	t.Run("node-power-cut", func(t *testing.T) { testNodePowerCut(t, c) })
}

// job is a command in a guest that runs beside the test.
type job struct {
	out  strings.Builder
	done chan struct{}
	stop context.CancelFunc // kills it; where the kernel holds it, it ends later
	exit agent.Exit
	err  error
}

// background runs a script in a guest until it ends, or the test does.
func background(t *testing.T, g *lab.Guest, script string) *job {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	j := &job{done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(j.done)
		j.exit, j.err = g.Run(ctx, agent.Command{Args: []string{"sh", "-e"}},
			agent.Streams{Stdin: strings.NewReader(script), Stdout: &j.out, Stderr: &j.out})
	}()
	t.Cleanup(func() { cancel(); <-j.done })
	return j
}

// waitFor polls a condition on a machine, a script's success, until the limit.
func waitFor(t *testing.T, m *lab.Machine, limit time.Duration, what, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := m.Shell(ctx, script)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s: %v", limit, what, err)
		}
	}
}

// testControllerKilled kills the target twice, the second time for longer than
// a NOP takes, under fio that reads back and verifies what it wrote.
func testControllerKilled(t *testing.T, c *cluster) {
	v, n := c.create(t, lab.Claim{Size: 256 * mebibyte, FSType: "ext4"}), c.nodes[1]
	path := attach(t, v, n, podA)
	shell(t, n.Guest.Machine, "dmesg -C")
	fio := background(t, n.Guest, fmt.Sprintf(`fio --name=verify --directory=%s --size=64M --rw=randwrite --bs=16k \
		--ioengine=libaio --iodepth=8 --direct=1 --rate=6M --verify=crc32c --verify_fatal=1 --do_verify=1 2>&1`, path))
	waitFor(t, n.Guest.Machine, 2*time.Minute, "fio to write", "grep -q ' sda ' /proc/diskstats && pgrep -x fio >/dev/null && [ -s "+path+"/verify.0.0 ]")
	for _, pause := range []time.Duration{0, 4 * time.Second} {
		must(t, c.controller.Kill(t.Context()))
		<-time.After(pause) // the outage's length is what is tested
		must(t, c.controller.Start(t.Context()))
		select {
		case <-fio.done:
			t.Fatalf("fio ended too early: %v %v\n%s", fio.exit, fio.err, fio.out.String())
		default:
		}
		waitFor(t, n.Guest.Machine, 2*time.Minute, "the session to come back", "grep -q LOGGED_IN /sys/class/iscsi_session/*/state")
	}
	<-fio.done
	if fio.err != nil || !fio.exit.Success() {
		t.Errorf("fio: %v %v\n%s", fio.exit, fio.err, fio.out.String())
	}
	if bad := shell(t, n.Guest.Machine, "dmesg | grep -iE 'I/O error|EXT4-fs error|remount' || true"); bad != "" {
		t.Errorf("the node's kernel says:\n%s", bad)
	}
	must(t, v.Detach(t.Context(), n, podA))
	checkClean(t, n)
	must(t, v.Delete(t.Context()))
}

// poolSum is a checksum over all the volumes' bytes, as the target has them.
func poolSum(t *testing.T, c *cluster) string {
	t.Helper()
	return shell(t, c.lab.Outside, "find "+c.controller.Pool+" -type f -size +4M | sort | xargs sha256sum")
}

func checkUnchanged(t *testing.T, c *cluster, before string) {
	t.Helper()
	if now := poolSum(t, c); now != before {
		t.Errorf("the pool has changed after the fence:\n%s\n%s", before, now)
	}
}

// testFence cuts a node that writes without pause off the network, fences it,
// attaches its volume elsewhere, and lets it come back: not one of its writes
// lands after the fence.
func testFence(t *testing.T, c *cluster) {
	v := c.create(t, lab.Claim{Size: 64 * mebibyte, Block: true})
	lost, other := c.nodes[0], c.nodes[1]
	path := attach(t, v, lost, podA)
	writer := background(t, lost.Guest, fmt.Sprintf(`fio --name=w --filename=%s --size=64M --rw=randwrite --bs=4k --ioengine=libaio \
		--iodepth=32 --direct=1 --time_based --runtime=600 --buffer_pattern=0xdead --continue_on_error=all 2>&1`, path))
	waitFor(t, c.lab.Outside, 2*time.Minute, "writes to land",
		"for f in $(find "+c.controller.Pool+" -type f -size +4M); do [ $(stat -c %b $f) -gt 2048 ]; done")
	must(t, lost.Guest.CutNetwork())
	start := time.Now()
	must(t, v.Unpublish(t.Context(), lost))
	t.Logf("the fence took %v", time.Since(start).Round(time.Millisecond))
	path = attach(t, v, other, podB)
	sum := write(t, v, other, path)
	fenced := poolSum(t, c)

	// The node comes back and tries: it is told so, and gets nothing through.
	must(t, lost.Guest.RestoreNetwork())
	waitFor(t, c.lab.Outside, 2*time.Minute, "the node to try again",
		"ss -Htn state established state time-wait state fin-wait-1 state fin-wait-2 src "+c.controller.Portal+" dst "+lost.Guest.Storage+" | grep -q .")
	checkUnchanged(t, c, fenced)
	select {
	case <-writer.done:
		t.Errorf("the writer has ended before it could try: %v", writer.err)
	default:
	}
	// The pod is killed; its process ends when the kernel gives its I/O up.
	writer.stop()
	waitFor(t, lost.Guest.Machine, 3*time.Minute, "the writer to end", "! pgrep -x fio >/dev/null")
	checkUnchanged(t, c, fenced)
	must(t, v.Unmount(t.Context(), lost, podA))
	must(t, v.Unstage(t.Context(), lost))
	checkClean(t, lost)
	checkUnchanged(t, c, fenced)
	if got := read(t, v, other, path); got != sum {
		t.Errorf("wrote %s, read %s after the lost node was cleaned up", sum, got)
	}
	must(t, v.Detach(t.Context(), other, podB))
	checkClean(t, other)
	must(t, v.Delete(t.Context()))
}

// testNodePowerCut cuts a node's power and attaches its volume elsewhere: all
// that was flushed is there. The node that comes back lets go of it.
func testNodePowerCut(t *testing.T, c *cluster) {
	v := c.create(t, lab.Claim{Size: 128 * mebibyte, FSType: "ext4"})
	dead, other := c.nodes[0], c.nodes[1]
	path := attach(t, v, dead, podA)
	sum := write(t, v, dead, path)
	shell(t, dead.Guest.Machine, "echo lost >"+path+"/not-flushed")
	dead.Guest.Kill()
	must(t, v.Unpublish(t.Context(), dead))
	path = attach(t, v, other, podB)
	if got := read(t, v, other, path); got != sum {
		t.Errorf("flushed %s, read %s on the other node", sum, got)
	}

	id := dead.ID
	must(t, dead.Guest.PowerOn(t.Context()))
	must(t, dead.Start(t.Context()))
	must(t, dead.Register(t.Context()))
	if dead.ID != id {
		t.Errorf("node_id was %s, is %s after a power cut", id, dead.ID)
	}
	// The volume is elsewhere: the plugin takes the record away by itself.
	waitFor(t, dead.Guest.Machine, time.Minute, "the record of the lost staging to go", "! ls /etc/iscsi/nodes | grep -q .")
	checkClean(t, dead)
	// kubelet finds its directories and cleans up.
	must(t, v.Unmount(t.Context(), dead, podA))
	must(t, v.Unstage(t.Context(), dead))
	checkClean(t, dead)
	must(t, v.Detach(t.Context(), other, podB))
	must(t, v.Delete(t.Context()))
}
