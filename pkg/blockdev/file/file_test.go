package file

import (
	"errors"
	"strconv"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/blockdevtest"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

const testID = "6a8e1c1e-70c5-4b8c-a5b5-0b8f0ce6a1d2"

func itoa(n int) string { return strconv.Itoa(n) }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", call, got, want)
	}
}

func TestPool(t *testing.T) {
	blockdevtest.PoolSuite{
		New:  func(t *testing.T) blockdevtest.Place { return newPlace(t) },
		Thin: true,
	}.Run(t)
}

// On a file system without hole punching a pool works and unmaps nothing.
func TestPoolWithoutHoles(t *testing.T) {
	blockdevtest.PoolSuite{New: func(t *testing.T) blockdevtest.Place {
		p := newPlace(t)
		p.calls.Fallocate = refuse
		return p
	}}.Run(t)
}

func refuse(int, uint32, int64, int64) error { return unix.EOPNOTSUPP }

func TestDevice(t *testing.T) {
	fail := false
	suite(fd.Calls{Fdatasync: func(n int) error {
		if fail {
			fail = false
			return unix.EIO
		}
		return unix.Fdatasync(n)
	}}, blockdevtest.All, &fail).Run(t)
}

// TestDeviceOfPoorFileSystem is hostfs: no holes, no RWF flags.
func TestDeviceOfPoorFileSystem(t *testing.T) {
	fail := false
	refuseIO := func(int, []byte, int64) (int, error) { return -1, unix.EOPNOTSUPP }
	suite(fd.Calls{
		Fallocate:   refuse,
		ReadNowait:  refuseIO,
		WriteStable: refuseIO,
		Fdatasync: func(n int) error {
			if fail {
				fail = false
				return unix.EIO
			}
			return unix.Fdatasync(n)
		},
	}, blockdevtest.All&^(blockdevtest.Unmaps|blockdevtest.Maps|blockdevtest.Spaces), &fail).Run(t)
}

// suite runs on volumes of a pool with these calls; setting fail makes the
// next fdatasync fail.
func suite(c fd.Calls, has blockdevtest.Capability, fail *bool) blockdevtest.DeviceSuite {
	return blockdevtest.DeviceSuite{
		Open: func(t *testing.T, size int64, blockSize int) blockdev.Device {
			place := newPlace(t)
			place.calls = c
			pool, err := place.open()
			ok(t, err)
			ok(t, pool.Create(t.Context(), blockdev.Record{ID: testID, Size: size, BlockSize: blockSize}))
			d, err := pool.Open(t.Context(), testID)
			ok(t, err)
			t.Cleanup(func() {
				_ = volumeOf(d).current().Close() // closed already, where the test did
				ok(t, pool.Close())
			})
			return d
		},
		Has: has,
		Grow: func(t *testing.T, d blockdev.Device, size int64) {
			ok(t, volumeOf(d).pool.Resize(t.Context(), testID, size))
		},
		FailSync: func(*testing.T, blockdev.Device) { *fail = true },
		Reopen: func(t *testing.T, d blockdev.Device) blockdev.Device {
			ok(t, d.Close())
			again, err := volumeOf(d).pool.Open(t.Context(), testID)
			ok(t, err)
			return again
		},
	}
}

func volumeOf(d blockdev.Device) *device {
	if thin, ok := d.(thinDevice); ok {
		return thin.device
	}
	return d.(*device)
}

// current is the volume's device that is open now, after a Reopen perhaps.
func (d *device) current() *device {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	if d.volume.device != nil {
		return d.volume.device
	}
	return d
}
