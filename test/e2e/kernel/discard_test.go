package kernel

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestDiscard has a guest's kernel give space back, by file system and by
// device, and write zeros, and finds it so in the target's file; and it shows
// that a read-only LUN is one to the kernel.
func TestDiscard(t *testing.T) {
	l := newPlainLab(t)
	g := boot(t, l, 1, lab.GuestConfig{})[0]
	d := newIetd(t, l, image{size: 128 * mebibyte, options: ",IOMode=wb"}, image{size: mebibyte, options: ",IOMode=ro"})
	shell(t, d.machine, "echo read me | dd of="+d.image(1)+" conv=notrunc status=none")
	d.login(t, g)
	t.Run("fstrim", func(t *testing.T) { testTrim(t, d, g) })
	t.Run("blkdiscard", func(t *testing.T) { testBlkdiscard(t, d, g) })
	t.Run("read-only", func(t *testing.T) { testReadOnly(t, d, g) })
	d.logout(t, g)
}

// allocated is how much of its disk a LUN's file has, in bytes.
func (d *ietd) allocated(t *testing.T, lun int) int64 {
	t.Helper()
	info, err := os.Stat(d.image(lun))
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// testTrim: the file shrinks by what was removed from the file system.
func testTrim(t *testing.T, d *ietd, g *lab.Guest) {
	const data = 48 * mebibyte
	shell(t, g.Machine, fmt.Sprintf(`
		mkfs.ext4 -q %s
		mkdir -p /tmp/trim
		mount %[1]s /tmp/trim
		dd if=/dev/urandom of=/tmp/trim/data bs=1M count=%d status=none
		sync`, d.disk(0), data/mebibyte))
	full := d.allocated(t, 0)
	if full < data {
		t.Fatalf("%d bytes are allocated with %d written", full, data)
	}
	shell(t, g.Machine, "rm /tmp/trim/data; sync; fstrim /tmp/trim; umount /tmp/trim")
	if now := d.allocated(t, 0); now > full-data {
		t.Errorf("%d bytes are allocated after fstrim, of %d with the data", now, full)
	}
}

// testBlkdiscard: a discarded device is a hole, and zeros are zeros, with what
// lies around them kept.
func testBlkdiscard(t *testing.T, d *ietd, g *lab.Guest) {
	const blocks = mebibyte / 512
	shell(t, g.Machine, "blkdiscard "+d.disk(0))
	checkExtents(t, d, extent{0, 128 * blocks, 0, true})
	if now := d.allocated(t, 0); now > 64<<10 { // a file system may need some for the file itself
		t.Errorf("%d bytes are allocated of a discarded disk", now)
	}

	shell(t, g.Machine, `head -c 8M /dev/zero | tr '\0' '\245' >/tmp/pattern
		dd if=/tmp/pattern of=`+d.disk(0)+` bs=1M oflag=direct status=none
		blkdiscard --offset 1M --length 2M `+d.disk(0)+`
		blkdiscard --zeroout --offset 4M --length 2M `+d.disk(0))
	checkExtents(t, d, extent{0, blocks, pattern, false}, extent{blocks, 2 * blocks, 0, true},
		extent{3 * blocks, blocks, pattern, false}, extent{4 * blocks, 2 * blocks, 0, false}, extent{6 * blocks, 2 * blocks, pattern, false})
	// The kernel would write pages of zeros, too, where it had to.
	if n := queueLimit(t, d, g, "write_zeroes_max_bytes"); n == 0 {
		t.Error("the kernel does not use WRITE SAME")
	}
	if n := queueLimit(t, d, g, "discard_granularity"); n != 4096 {
		t.Errorf("discards have a granularity of %d bytes, want the file system's 4096", n)
	}
}

func checkExtents(t *testing.T, d *ietd, extents ...extent) {
	t.Helper()
	for _, e := range extents {
		if err := e.check(d.image(0)); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// queueLimit is what the guest's kernel made of the LUN's limits.
func queueLimit(t *testing.T, d *ietd, g *lab.Guest, name string) int {
	t.Helper()
	out := shell(t, g.Machine, "cat /sys/block/$(basename $(readlink -f "+d.disk(0)+"))/queue/"+name)
	n, err := strconv.Atoi(out)
	must(t, err)
	return n
}

// testReadOnly: the kernel reads the LUN and refuses to write to it.
func testReadOnly(t *testing.T, d *ietd, g *lab.Guest) {
	if out := shell(t, g.Machine, "blockdev --getro "+d.disk(1)+"; head -n 1 "+d.disk(1)); out != "1\nread me" {
		t.Errorf("blockdev --getro and the first line: %q", out)
	}
	_, err := g.Shell(t.Context(), "dd if=/dev/zero of="+d.disk(1)+" bs=512 count=1 oflag=direct")
	if err == nil || !strings.Contains(err.Error(), "Read-only file system") {
		t.Errorf("a write: %v", err)
	}
}
