package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Where and how much the tests below write atomically.
const (
	atomicAt   = 1000
	atomicSize = 9 << 10
)

func atomicOf(d blockdev.Device) blockdev.AtomicWriter { return d.(blockdev.AtomicWriter) }

// oldContent is what the volume of openFilled holds.
func oldContent() []byte { return bytes.Repeat([]byte("old "), 16<<10) }

func newContent() []byte {
	b := oldContent()
	copy(b[atomicAt:], bytes.Repeat([]byte("NEW!"), atomicSize/4))
	return b
}

// openFilled makes a pool with a volume that holds oldContent, stable.
func openFilled(t *testing.T, p *place) (*Pool, blockdev.Device) {
	t.Helper()
	pool, err := p.open()
	ok(t, err)
	size := int64(len(oldContent()))
	ok(t, pool.Create(t.Context(), blockdev.Record{ID: testID, Size: size, BlockSize: 512}))
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	_, err = d.WriteAt(oldContent(), 0)
	ok(t, err)
	ok(t, d.Sync())
	return pool, d
}

// contentOf is what the volume shows after a restart on a directory.
func contentOf(t *testing.T, dir string) []byte {
	t.Helper()
	pool, err := placeAt(dir).open()
	ok(t, err)
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	got := make([]byte, d.Size())
	_, err = d.ReadAt(got, 0)
	ok(t, errors.Join(err, d.Close(), pool.Close()))
	return got
}

// TestAtomicProcessDeath copies the pool's directory as a process that dies
// before each step would leave it: without anything being finished, the next
// process finds all of the write or nothing.
func TestAtomicProcessDeath(t *testing.T) {
	p := newPlace(t)
	pool, d := openFilled(t, p)
	copies := t.TempDir()
	n := 0
	p.onStep = func() {
		ok(t, os.CopyFS(fmt.Sprintf("%s/%d", copies, n), os.DirFS(p.dir)))
		n++
	}
	ok(t, atomicOf(d).WriteAtomic(newContent()[atomicAt:atomicAt+atomicSize], atomicAt))
	p.onStep()
	p.onStep = nil
	ok(t, errors.Join(d.Close(), pool.Close()))
	saw := map[string]bool{}
	for i := range n {
		got := contentOf(t, fmt.Sprintf("%s/%d", copies, i))
		switch {
		case bytes.Equal(got, oldContent()):
			saw["old"] = true
		case bytes.Equal(got, newContent()):
			saw["new"] = true
		default:
			t.Errorf("step %d: a mix", i)
		}
	}
	if n < 10 || !saw["old"] || !saw["new"] {
		t.Errorf("%d steps, %v", n, saw)
	}
}

// TestAtomicTornInPlace: whatever a power cut lets through of the write in place,
// sector by sector, the entry mends it; and the mending may be cut in its turn.
func TestAtomicTornInPlace(t *testing.T) {
	for torn := 0; torn <= atomicSize+512; torn += 1536 {
		p := newPlace(t)
		pool, d := openFilled(t, p)
		p.onStep = func() {
			if p.lastStep == "fsync "+dataPath(testID) {
				p.armed, p.left, p.err, p.cut = true, 0, unix.EIO, true
			}
		}
		wantError(t, "WriteAtomic", atomicOf(d).WriteAtomic(newContent()[atomicAt:atomicAt+atomicSize], atomicAt), unix.EIO)
		p.onStep = nil
		ok(t, errors.Join(d.Close(), pool.Close()))
		mix := oldContent()
		copy(mix[atomicAt:], newContent()[atomicAt:atomicAt+min(torn, atomicSize)])
		ok(t, os.WriteFile(p.path(dataPath(testID)), mix, 0o600))
		for cut := 0; ; cut++ {
			p.Fail(cut, unix.EIO, true)
			pool, err := p.open()
			if err == nil {
				var d blockdev.Device
				if d, err = pool.Open(t.Context(), testID); err == nil {
					ok(t, d.Close())
				}
				ok(t, pool.Close())
			}
			if !p.Reached() {
				ok(t, err)
				break
			}
		}
		if got := contentOf(t, p.dir); !bytes.Equal(got, newContent()) {
			t.Errorf("torn after %d bytes: not mended", torn)
		}
		if got := contentOf(t, p.dir); !bytes.Equal(got, newContent()) {
			t.Errorf("torn after %d bytes: not mended at the second look", torn)
		}
	}
}

// TestAtomicReplaysOnce: what was written over an atomic write stays, also when
// the machine dies right after it.
func TestAtomicReplaysOnce(t *testing.T) {
	p := newPlace(t)
	pool, d := openFilled(t, p)
	ok(t, atomicOf(d).WriteAtomic(newContent()[atomicAt:atomicAt+atomicSize], atomicAt))
	ok(t, d.(blockdev.SyncWriter).WriteAtSync(oldContent()[:32<<10], 0))
	dead := t.TempDir() + "/pool"
	ok(t, os.CopyFS(dead, os.DirFS(p.dir)))
	if got := contentOf(t, dead); !bytes.Equal(got, oldContent()) {
		t.Error("an entry that was done with was replayed")
	}
	ok(t, errors.Join(d.Close(), pool.Close()))
}

// TestAtomicOnFullDisk: whichever step up to the write in place finds the disk
// full, the old data is whole, nothing half-made is left, and the volume goes on.
func TestAtomicOnFullDisk(t *testing.T) {
	data := newContent()[atomicAt : atomicAt+atomicSize]
	const inPlace = 8 // the ninth step, see TestOrderOfEvents
	for n := range inPlace + 2 {
		p := newPlace(t)
		full := n == inPlace+1 // in place of a step: no blocks for the range
		p.calls.Fallocate = func(fd int, mode uint32, off, n int64) error {
			if full && mode == unix.FALLOC_FL_KEEP_SIZE {
				return unix.ENOSPC
			}
			return unix.Fallocate(fd, mode, off, n)
		}
		pool, d := openFilled(t, p)
		if !full {
			p.Fail(n, unix.ENOSPC, false)
		}
		wantError(t, "WriteAtomic", atomicOf(d).WriteAtomic(data, atomicAt), blockdev.ErrNoSpace)
		if full != !p.Reached() {
			t.Fatalf("step %d was not reached", n)
		}
		got := make([]byte, d.Size())
		if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, oldContent()) {
			t.Errorf("step %d: the old data is not whole (%v)", n, err)
		}
		if _, err := os.Stat(p.path(journalPath(testID) + temporarySuffix)); err == nil {
			t.Errorf("step %d: half a journal is left", n)
		}
		ok(t, d.Sync())
		full = false
		ok(t, atomicOf(d).WriteAtomic(data, atomicAt))
		ok(t, errors.Join(d.Close(), pool.Close()))
		if got := contentOf(t, p.dir); !bytes.Equal(got, newContent()) {
			t.Errorf("step %d: tried again, and not written", n)
		}
	}
}
