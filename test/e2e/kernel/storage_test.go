package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// storageCluster is a controller in a guest, with its pool on that guest's
// disk, and a node in another.
type storageCluster struct {
	*cluster
	storage *lab.Guest
	node    *lab.Node
}

// newStorageCluster makes one whose storage node writes nothing back unless it
// is told to: what was not flushed is lost for certain with its power.
func newStorageCluster(t *testing.T) *storageCluster {
	t.Helper()
	l := newLab(t)
	guests, err := l.BootAll(t.Context(),
		lab.GuestConfig{Name: "storage", State: 2 << 30}, lab.GuestConfig{Name: "node-1", State: 256 << 20})
	must(t, err)
	c := &storageCluster{cluster: &cluster{lab: l}, storage: guests[0]}
	c.postponeWriteback(t)
	c.controller, err = l.StartController(t.Context(), c.storage.Machine)
	must(t, err)
	c.node, err = l.StartNode(t.Context(), guests[1], "--replacement-timeout=120s", "--detach-grace=3s")
	must(t, err)
	return c
}

func (c *storageCluster) postponeWriteback(t *testing.T) {
	t.Helper()
	shell(t, c.storage.Machine, `cd /proc/sys/vm
		echo 0 >dirty_writeback_centisecs
		echo 8640000 >dirty_expire_centisecs
		echo 90 >dirty_ratio
		echo 80 >dirty_background_ratio`)
}

// held is a volume with a file, or the device itself, that stays open.
type held struct {
	name   string
	volume *lab.Volume
	writer *lab.Writer
}

// hold attaches a new volume and opens it: a file through the page cache of
// the node, a device past it.
func (c *storageCluster) hold(t *testing.T, name string, block bool) *held {
	t.Helper()
	claim := lab.Claim{Name: "-" + name, Size: 192 * mebibyte, Block: block}
	if !block {
		claim.FSType = "ext4"
	}
	h := &held{name: name, volume: c.create(t, claim)}
	must(t, h.volume.Publish(t.Context(), c.node))
	h.stage(t, c)
	return h
}

// stage stages, mounts and opens a published volume.
func (h *held) stage(t *testing.T, c *storageCluster) {
	t.Helper()
	must(t, h.volume.Stage(t.Context(), c.node))
	path, err := h.volume.Mount(t.Context(), c.node, podA)
	must(t, err)
	if !h.volume.Claim.Block {
		// A commit of the journal would flush what is to stay volatile.
		shell(t, c.node.Guest.Machine, "mount -o remount,commit=600 "+path)
	}
	h.writer, err = c.node.Guest.OpenWriter(t.Context(), file(h.volume, path), h.volume.Claim.Block)
	must(t, err)
	t.Cleanup(h.writer.Close)
}

// release undoes stage.
func (h *held) release(t *testing.T, c *storageCluster) {
	t.Helper()
	h.writer.Close()
	if err := h.volume.Unmount(t.Context(), c.node, podA); err != nil {
		t.Fatalf("%s: NodeUnpublishVolume: %v", h.name, err)
	}
	if err := h.volume.Unstage(t.Context(), c.node); err != nil {
		t.Fatalf("%s: NodeUnstageVolume: %v", h.name, err)
	}
}

// writeVolatile writes blocks that the target has acknowledged and that nobody
// has flushed.
func (h *held) writeVolatile(t *testing.T, first, count, seed int) {
	t.Helper()
	must(t, h.writer.Write(t.Context(), first, count, seed))
	must(t, h.writer.Writeout(t.Context()))
}

// ledger writes to a volume block after block, and flushes each, until an
// error ends it. It remembers how many were flushed.
type ledger struct {
	*held
	flushed int
	err     error
	enough  chan struct{} // closed when the ledger has a few hundred entries
	done    chan struct{}
}

const (
	ledgerSeed = 0x1ed6e5
	// ledgerSize is how many entries a volume of 192 MiB has room for, beside
	// a file system's own blocks; it lasts for more than a minute.
	ledgerSize = 160 * mebibyte / lab.BlockSize
)

// keep runs the ledger beside the test.
func keep(t *testing.T, h *held) *ledger {
	t.Helper()
	l := &ledger{held: h, enough: make(chan struct{}), done: make(chan struct{})}
	ctx, w := t.Context(), h.writer
	go func() { // ends with the writer, which the cleanup closes
		defer close(l.done)
		for l.err == nil {
			l.err = l.enter(ctx, w)
		}
	}()
	t.Cleanup(func() { w.Close(); <-l.done })
	return l
}

func (l *ledger) enter(ctx context.Context, w *lab.Writer) error {
	if l.flushed == ledgerSize {
		return errors.New("the ledger is full")
	}
	if err := w.Write(ctx, l.flushed, 1, ledgerSeed); err != nil {
		return err
	}
	if err := w.Sync(ctx); err != nil {
		return err
	}
	l.flushed++
	if l.flushed == 300 {
		close(l.enough)
	}
	return nil
}

// inventory is what the controller says of volumes and their attachments.
func (c *storageCluster) inventory(t *testing.T, volumes []*held) []string {
	t.Helper()
	list, err := c.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	must(t, err)
	var lines []string
	for _, e := range list.Entries {
		lines = append(lines, fmt.Sprintf("%s: %d bytes, on %q", e.Volume.VolumeId, e.Volume.CapacityBytes, e.Status.GetPublishedNodeIds()))
	}
	slices.Sort(lines)
	for _, h := range volumes {
		must(t, h.volume.Publish(t.Context(), c.node)) // again: the generation stays
		published := maps.Clone(h.volume.PublishContext(c.node))
		delete(published, "credentials") // sealed anew
		lines = append(lines, fmt.Sprintf("%s: %v", h.name, published))
	}
	return lines
}

func (c *storageCluster) dir(v *lab.Volume) string {
	_, uuid, _ := strings.Cut(v.ID, ".")
	return c.controller.Pool + "/volumes/" + uuid
}

// blocksInPool counts a seed's blocks among the bytes that the storage node has.
func (c *storageCluster) blocksInPool(t *testing.T, v *lab.Volume, seed int) int {
	t.Helper()
	n, err := c.lab.CountBlocks(t.Context(), c.storage.Machine, c.dir(v)+"/data", seed)
	must(t, err)
	return n
}

// TestStorage takes the storage node's process, and then its power, under
// volumes of which some have acknowledged writes that nobody has flushed.
func TestStorage(t *testing.T) {
	c := newStorageCluster(t)
	clean := c.hold(t, "clean", true)
	must(t, clean.writer.Write(t.Context(), 0, 64, 1))
	must(t, clean.writer.Sync(t.Context()))
	volatile := []*held{c.hold(t, "file", false), c.hold(t, "device", true)}
	ledgers := []*ledger{{held: c.hold(t, "ledger-file", false)}, {held: c.hold(t, "ledger-device", true)}}
	all := append([]*held{clean, ledgers[0].held, ledgers[1].held}, volatile...)

	t.Run("process-killed", func(t *testing.T) { testStorageProcessKilled(t, c, volatile) })
	for i, l := range ledgers {
		ledgers[i] = keep(t, l.held)
	}
	if !t.Run("power-cut", func(t *testing.T) { testStoragePowerCut(t, c, all, volatile, ledgers) }) {
		return // the storage node is off, or what follows would prove nothing
	}
	t.Run("lost-writes-are-errors", func(t *testing.T) { testLostWritesAreErrors(t, volatile, ledgers) })
	t.Run("clean-volume-goes-on", func(t *testing.T) { testCleanVolumeGoesOn(t, clean) })
	t.Run("staged-anew", func(t *testing.T) { testStagedAnew(t, c, volatile, ledgers) })

	for _, h := range all {
		h.release(t, c)
		must(t, h.volume.Unpublish(t.Context(), c.node))
		must(t, h.volume.Delete(t.Context()))
	}
	checkClean(t, c.node)
}

const (
	volatileBlocks = 256
	flushedSeed    = 0xf1
	lostSeed       = 0xdead
)

// testStorageProcessKilled: what a killed process had acknowledged is in the
// kernel's page cache; the fsync that follows succeeds, and is true.
func testStorageProcessKilled(t *testing.T, c *storageCluster, volatile []*held) {
	for _, h := range volatile {
		h.writeVolatile(t, 0, volatileBlocks, flushedSeed)
	}
	must(t, c.controller.Restart(t.Context()))
	for _, h := range volatile {
		if err := h.writer.Sync(t.Context()); err != nil {
			t.Errorf("%s: fsync after a crash of the process alone: %v", h.name, err)
		}
		must(t, h.writer.Check(t.Context(), 0, volatileBlocks, flushedSeed))
	}
}

// testStoragePowerCut cuts the power under ledgers that are being written to
// and volumes with volatile writes, and brings the storage node back.
func testStoragePowerCut(t *testing.T, c *storageCluster, all, volatile []*held, ledgers []*ledger) {
	before := c.inventory(t, all)
	waitFor(t, c.storage.Machine, 2*time.Minute, "the mark of the clean volume to go",
		"! grep -q bootID "+c.dir(all[0].volume)+"/volatile.json")
	for _, l := range ledgers {
		<-l.enough
	}
	for _, h := range volatile {
		h.writeVolatile(t, 0, volatileBlocks/2, lostSeed)
		if got := c.blocksInPool(t, h.volume, lostSeed); got != volatileBlocks/2 {
			t.Fatalf("%s: %d blocks have reached the storage node, want %d", h.name, got, volatileBlocks/2)
		}
	}
	c.storage.Kill()
	for _, l := range ledgers {
		select {
		case <-l.done:
			t.Fatalf("%s: ended before the cut: %v", l.name, l.err)
		default:
		}
	}
	must(t, c.storage.PowerOn(t.Context()))
	c.postponeWriteback(t)
	for _, h := range volatile {
		if got := c.blocksInPool(t, h.volume, lostSeed); got != 0 {
			t.Fatalf("%s: %d blocks have survived: the test proves nothing", h.name, got)
		}
	}
	must(t, c.controller.Start(t.Context()))
	if diff := cmp.Diff(before, c.inventory(t, all)); diff != "" {
		t.Errorf("the controller's inventory after the power cut (-before +after):\n%s", diff)
	}
}

// ioError is what the kernel says of a device that answers with an error.
var ioError = regexp.MustCompile(`(?i)(input/output|remote i/o) error`)

// testLostWritesAreErrors: whoever had acknowledged writes that are gone hears
// of it, whatever it does on the session that it still has.
func testLostWritesAreErrors(t *testing.T, volatile []*held, ledgers []*ledger) {
	for _, h := range volatile {
		for _, step := range []struct {
			name string
			err  error
		}{
			{"fdatasync", h.writer.Datasync(t.Context())},
			{"fsync", h.writer.Sync(t.Context())},
			{"fsync again", h.writer.Sync(t.Context())},
			{"read", h.writer.Check(t.Context(), 0, volatileBlocks, flushedSeed)},
		} {
			if step.err == nil || !ioError.MatchString(step.err.Error()) {
				t.Errorf("%s: %s after acknowledged writes were lost: %v, want an I/O error", h.name, step.name, step.err)
			}
		}
	}
	for _, l := range ledgers {
		<-l.done
		t.Logf("%s: %d entries flushed, then: %v", l.name, l.flushed, l.err)
		if !ioError.MatchString(l.err.Error()) {
			t.Errorf("%s: ended with %v, want an I/O error", l.name, l.err)
		}
	}
}

// testCleanVolumeGoesOn: a volume that had lost nothing is spared.
func testCleanVolumeGoesOn(t *testing.T, clean *held) {
	must(t, clean.writer.Check(t.Context(), 0, 64, 1))
	must(t, clean.writer.Write(t.Context(), 64, 64, 2))
	must(t, clean.writer.Sync(t.Context()))
	must(t, clean.writer.Check(t.Context(), 64, 64, 2))
}

// testStagedAnew: a new staging ends the errors, and finds all that was flushed.
func testStagedAnew(t *testing.T, c *storageCluster, volatile []*held, ledgers []*ledger) {
	for _, l := range ledgers {
		l.release(t, c)
		l.stage(t, c)
		if err := l.writer.Check(t.Context(), 0, l.flushed, ledgerSeed); err != nil {
			t.Errorf("%s: of %d entries that were flushed: %v", l.name, l.flushed, err)
		}
	}
	for _, h := range volatile {
		h.release(t, c)
		h.stage(t, c)
		must(t, h.writer.Check(t.Context(), 0, volatileBlocks, flushedSeed))
		must(t, h.writer.Write(t.Context(), 0, volatileBlocks, flushedSeed+1))
		must(t, h.writer.Sync(t.Context()))
		must(t, h.writer.Check(t.Context(), 0, volatileBlocks, flushedSeed+1))
	}
}
