package kernel

import (
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

const (
	mebibyte = 1 << 20
	podA     = "aaaaaaaa-0000-4000-8000-000000000001"
	podB     = "bbbbbbbb-0000-4000-8000-000000000002"
)

// TestVolume takes volumes through their lives on two nodes.
func TestVolume(t *testing.T) {
	c := newCluster(t, patient, patient)
	for _, claim := range []lab.Claim{
		{FSType: "ext4", Size: 256 * mebibyte},
		{FSType: "xfs", Size: 512 * mebibyte},
		{Block: true, Size: 256 * mebibyte},
	} {
		name := claim.FSType + map[bool]string{true: "block"}[claim.Block]
		t.Run(name, func(t *testing.T) { testLife(t, c, claim) })
	}
	t.Run("two-on-one-node", func(t *testing.T) { testTwoVolumes(t, c) })
	t.Run("node-killed-between-calls", func(t *testing.T) { testNodeKilledBetweenCalls(t, c) })
	t.Run("node-killed-while-staging", func(t *testing.T) { testNodeKilledWhileStaging(t, c) })
	t.Run("unstage-without-target", func(t *testing.T) { testUnstageWithoutTarget(t, c) })
}

// file is where a test's data goes: a file in a file system, or the device.
func file(v *lab.Volume, path string) string {
	if v.Claim.Block {
		return path
	}
	return path + "/data"
}

// write fills the first MiB of a volume with random bytes, flushed, and
// returns their checksum.
func write(t *testing.T, v *lab.Volume, n *lab.Node, path string) string {
	t.Helper()
	return shell(t, n.Guest.Machine, fmt.Sprintf(`
		dd if=/dev/urandom of=/tmp/random bs=1M count=16 status=none
		dd if=/tmp/random of=%s bs=1M conv=notrunc,fsync status=none
		sha256sum </tmp/random`, file(v, path)))
}

// read returns the checksum of what write wrote, past every cache of the node.
func read(t *testing.T, v *lab.Volume, n *lab.Node, path string) string {
	t.Helper()
	return shell(t, n.Guest.Machine, fmt.Sprintf(
		"echo 3 >/proc/sys/vm/drop_caches; head -c %d %s | sha256sum", 16*mebibyte, file(v, path)))
}

// size is what the node's kernel says of the device, or of the whole file system.
func size(t *testing.T, v *lab.Volume, n *lab.Node, path string) int64 {
	t.Helper()
	command := "blockdev --getsize64 " + path
	if !v.Claim.Block {
		command = "stat -f -c '%b %S' " + path + " | { read n size; echo $((n * size)); }"
	}
	var bytes int64
	out := shell(t, n.Guest.Machine, command)
	if _, err := fmt.Sscan(out, &bytes); err != nil {
		t.Fatalf("%s: %q", command, out)
	}
	return bytes
}

func testLife(t *testing.T, c *cluster, claim lab.Claim) {
	v := c.create(t, claim)
	first, second := c.nodes[0], c.nodes[1]
	path := attach(t, v, first, podA)
	sum := write(t, v, first, path)
	must(t, v.Detach(t.Context(), first, podA))
	checkClean(t, first)

	path = attach(t, v, second, podB)
	if got := read(t, v, second, path); got != sum {
		t.Errorf("wrote %s, read %s on the other node", sum, got)
	}
	before := size(t, v, second, path)
	must(t, v.Expand(t.Context(), 2*claim.Size, map[*lab.Node]string{second: podB}))
	if after := size(t, v, second, path); after < before+claim.Size*8/10 {
		t.Errorf("grew from %d to %d bytes, want about twice as many", before, after)
	}
	if got := read(t, v, second, path); got != sum {
		t.Errorf("wrote %s, read %s after it grew", sum, got)
	}
	checkUsage(t, v, second)
	must(t, v.Detach(t.Context(), second, podB))
	checkClean(t, second)
	must(t, v.Delete(t.Context()))
	must(t, v.Delete(t.Context()))
}

func checkUsage(t *testing.T, v *lab.Volume, n *lab.Node) {
	t.Helper()
	usage, err := v.Stats(t.Context(), n, podB)
	must(t, err)
	if len(usage) == 0 || usage[0].Total < v.Size*8/10 || usage[0].Total > v.Size {
		t.Errorf("usage of a volume of %d bytes: %v", v.Size, usage)
	}
}

// testTwoVolumes writes to two volumes on one node and detaches the first
// under the second: each has its own bytes, and its own session.
func testTwoVolumes(t *testing.T, c *cluster) {
	n := c.nodes[0]
	var volumes []*lab.Volume
	var paths, sums []string
	for i := range 2 {
		claim := lab.Claim{Size: 128 * mebibyte, FSType: "ext4"}
		t.Run(fmt.Sprint(i), func(t *testing.T) { volumes = append(volumes, c.create(t, claim)) })
		paths = append(paths, attach(t, volumes[i], n, podA))
		sums = append(sums, write(t, volumes[i], n, paths[i]))
	}
	if sums[0] == sums[1] {
		t.Fatal("the two volumes got the same data")
	}
	for i, v := range volumes {
		if got := read(t, v, n, paths[i]); got != sums[i] {
			t.Errorf("volume %d: wrote %s, read %s", i, sums[i], got)
		}
	}
	must(t, volumes[0].Detach(t.Context(), n, podA))
	if got := read(t, volumes[1], n, paths[1]); got != sums[1] {
		t.Errorf("the second volume after the first has gone: wrote %s, read %s", sums[1], got)
	}
	must(t, volumes[1].Detach(t.Context(), n, podA))
	checkClean(t, n)
	for _, v := range volumes {
		must(t, v.Delete(t.Context()))
	}
}

// testNodeKilledBetweenCalls kills the node plugin before each call.
func testNodeKilledBetweenCalls(t *testing.T, c *cluster) {
	v, n := c.create(t, lab.Claim{Size: 128 * mebibyte, FSType: "ext4"}), c.nodes[0]
	id := n.ID
	reborn := func() {
		t.Helper()
		must(t, n.Restart(t.Context()))
		must(t, n.Register(t.Context()))
		if n.ID != id {
			t.Fatalf("node_id was %s, is %s after a restart", id, n.ID)
		}
	}
	must(t, v.Publish(t.Context(), n))
	reborn()
	must(t, v.Stage(t.Context(), n))
	reborn()
	must(t, v.Stage(t.Context(), n))
	path, err := v.Mount(t.Context(), n, podA)
	must(t, err)
	reborn()
	sum := write(t, v, n, path)
	must(t, v.Expand(t.Context(), 256*mebibyte, map[*lab.Node]string{n: podA}))
	reborn()
	if got := read(t, v, n, path); got != sum {
		t.Errorf("wrote %s, read %s", sum, got)
	}
	must(t, v.Unmount(t.Context(), n, podA))
	reborn()
	must(t, v.Unstage(t.Context(), n))
	checkClean(t, n)
	reborn()
	must(t, v.Unstage(t.Context(), n))
	must(t, v.Unpublish(t.Context(), n))
	must(t, v.Delete(t.Context()))
}

// testNodeKilledWhileStaging kills the plugin in the middle of NodeStageVolume
// and lets kubelet's retry finish it.
func testNodeKilledWhileStaging(t *testing.T, c *cluster) {
	v, n := c.create(t, lab.Claim{Size: 128 * mebibyte, FSType: "ext4"}), c.nodes[0]
	must(t, v.Publish(t.Context(), n))
	staged := make(chan error, 1)
	go func() { staged <- v.Stage(t.Context(), n) }()
	// A session in sysfs says that the call is half-way.
	shell(t, n.Guest.Machine, "for i in $(seq 300); do [ -z \"$(ls /sys/class/iscsi_session)\" ] || exit 0; sleep 0.05; done; exit 1")
	must(t, n.Restart(t.Context()))
	if err := <-staged; err == nil {
		t.Log("the call had ended before the kill")
	}
	must(t, v.Stage(t.Context(), n))
	path, err := v.Mount(t.Context(), n, podA)
	must(t, err)
	sum := write(t, v, n, path)
	if got := read(t, v, n, path); got != sum {
		t.Errorf("wrote %s, read %s", sum, got)
	}
	must(t, v.Detach(t.Context(), n, podA))
	checkClean(t, n)
	must(t, v.Delete(t.Context()))
}

// testUnstageWithoutTarget stops the target under a staged volume that has more
// to write.
func testUnstageWithoutTarget(t *testing.T, c *cluster) {
	v, n := c.create(t, lab.Claim{Size: 128 * mebibyte, FSType: "ext4"}), c.nodes[0]
	path := attach(t, v, n, podA)
	write(t, v, n, path)
	shell(t, n.Guest.Machine, "echo never written >"+path+"/dirty")
	must(t, v.Unmount(t.Context(), n, podA))
	exit, err := c.controller.Stop(t.Context())
	must(t, err)
	if !exit.Success() {
		t.Errorf("the controller ended with %v after SIGTERM", exit)
	}
	must(t, v.Unstage(t.Context(), n))
	checkClean(t, n)
	must(t, c.controller.Start(t.Context()))
	must(t, v.Unpublish(t.Context(), n))
	must(t, v.Delete(t.Context()))
}
