package file

import (
	"bytes"
	"errors"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

// probeBlocks is the size of the probe's file in file system blocks.
const probeBlocks = 4

// probe finds out, on a file of its own, whether this file system punches
// holes. Where it does not, devices do not offer to unmap: an initiator that
// trims would only write zeros.
func (p *Pool) probe() error {
	name := stagingDir + "/probe"
	err := p.disk.create(name, func(f *os.File) (err error) {
		p.punch, err = p.tryPunch(f)
		return err
	})
	if errors.Is(fd.Errno(err), blockdev.ErrNoSpace) {
		// A full pool must open all the same, and trimming would help
		// it: the lock is an empty file, in which a hole changes nothing.
		p.punch, err = p.punchAt(p.lock, 0)
	}
	return errors.Join(err, p.disk.remove(name))
}

// tryPunch punches the second block and looks whether that one alone became
// zeros.
func (p *Pool) tryPunch(f *os.File) (int64, error) {
	unit, err := allocationUnit(f)
	if unit == 0 {
		return 0, err
	}
	content := bytes.Repeat([]byte{0xff}, int(unit)*probeBlocks)
	if _, err := f.WriteAt(content, 0); err != nil {
		return 0, err
	}
	if unit, err := p.punchAt(f, unit); unit == 0 {
		return 0, err
	}
	clear(content[unit : 2*unit])
	got := make([]byte, len(content))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		return 0, err
	}
	return unit, nil
}

// punchAt punches one block and returns its size, 0 where that is refused.
func (p *Pool) punchAt(f *os.File, off int64) (int64, error) {
	unit, err := allocationUnit(f)
	if unit == 0 {
		return 0, err
	}
	punch := p.calls.Fallocate
	if punch == nil {
		punch = unix.Fallocate
	}
	refused := punch(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, unit)
	if refused != nil {
		return 0, nil //nolint:nilerr // that is the answer
	}
	return unit, nil
}

// allocationUnit is the file system's block in bytes, 0 for one that no
// initiator could be told of.
func allocationUnit(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	unit := int64(st.Blksize) //nolint:unconvert // 32 bits on arm64
	if unit < 512 || unit > 16<<20 || unit&(unit-1) != 0 {
		return 0, nil
	}
	return unit, nil
}
