package blockdevtest

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// model is a part of a device and what it must hold.
type model struct {
	d    blockdev.Device
	base int64
	want []byte
	ops  []func(*rand.Rand, int64, int64) error
}

func newModel(d blockdev.Device, base, size int64) *model {
	m := &model{d: d, base: base, want: make([]byte, size)}
	m.ops = []func(*rand.Rand, int64, int64) error{m.write, m.write, m.read, m.read, m.sync}
	if _, ok := d.(blockdev.Unmapper); ok {
		m.ops = append(m.ops, m.unmap)
	}
	if _, ok := d.(blockdev.Zeroer); ok {
		m.ops = append(m.ops, m.zero)
	}
	if _, ok := d.(blockdev.NowaitReader); ok {
		m.ops = append(m.ops, m.readNowait)
	}
	if _, ok := d.(blockdev.SyncWriter); ok {
		m.ops = append(m.ops, m.writeSync)
	}
	if _, ok := d.(blockdev.AtomicWriter); ok {
		m.ops = append(m.ops, m.writeAtomic)
	}
	return m
}

// step does one random thing to a random range.
func (m *model) step(r *rand.Rand) error {
	off := r.Int64N(int64(len(m.want)))
	n := r.Int64N(min(int64(len(m.want))-off, 200<<10) + 1)
	if r.IntN(2) == 0 { // as an initiator would
		off, n = off&^511, n&^511
	}
	if err := m.ops[r.IntN(len(m.ops))](r, off, n); err != nil {
		return fmt.Errorf("[%d, +%d): %w", m.base+off, n, err)
	}
	return nil
}

func (m *model) write(r *rand.Rand, off, n int64) error {
	copy(m.want[off:], pattern(r.IntN(1000), int(n)))
	_, err := m.d.WriteAt(m.want[off:off+n], m.base+off)
	return err
}

func (m *model) writeSync(r *rand.Rand, off, n int64) error {
	copy(m.want[off:], pattern(r.IntN(1000), int(n)))
	return m.d.(blockdev.SyncWriter).WriteAtSync(m.want[off:off+n], m.base+off)
}

func (m *model) writeAtomic(r *rand.Rand, off, n int64) error {
	copy(m.want[off:], pattern(r.IntN(1000), int(n)))
	return m.d.(blockdev.AtomicWriter).WriteAtomic(m.want[off:off+n], m.base+off)
}

func (m *model) read(_ *rand.Rand, off, n int64) error {
	got := make([]byte, n)
	if _, err := m.d.ReadAt(got, m.base+off); err != nil {
		return err
	}
	return m.compare(got, off)
}

func (m *model) readNowait(_ *rand.Rand, off, n int64) error {
	got := make([]byte, n)
	done, err := m.d.(blockdev.NowaitReader).ReadAtNowait(got, m.base+off)
	if err != nil && !errors.Is(err, blockdev.ErrWouldBlock) {
		return err
	}
	if (err == nil) != (done == len(got)) {
		return fmt.Errorf("ReadAtNowait read %d of %d bytes with error %w", done, n, err)
	}
	return m.compare(got[:done], off)
}

func (m *model) compare(got []byte, off int64) error {
	if i := difference(got, m.want[off:off+int64(len(got))]); i >= 0 {
		return fmt.Errorf("byte %d is %#02x, want %#02x", m.base+off+int64(i), got[i], m.want[off+int64(i)])
	}
	return nil
}

func (m *model) sync(*rand.Rand, int64, int64) error { return m.d.Sync() }

func (m *model) unmap(_ *rand.Rand, off, n int64) error {
	clear(m.want[off : off+n])
	return m.d.(blockdev.Unmapper).Unmap(m.base+off, n)
}

func (m *model) zero(_ *rand.Rand, off, n int64) error {
	clear(m.want[off : off+n])
	return m.d.(blockdev.Zeroer).WriteZeroes(m.base+off, n)
}
