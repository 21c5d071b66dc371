package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Capacity reads the figures of the file system and of every volume. Total is
// what the file system can hold without root's reserve, whoever uses it now.
func (p *Pool) Capacity(ctx context.Context) (blockdev.Capacity, error) {
	if err := p.enter(ctx); err != nil {
		return blockdev.Capacity{}, err
	}
	defer p.life.RUnlock()
	c, err := p.disk.space()
	if err != nil {
		return blockdev.Capacity{}, fmt.Errorf("pool %s: capacity: %w", p.dir, err)
	}
	for id, promised := range p.promises() {
		size, allocated, err := p.disk.usage(id)
		if promised == 0 && err != nil || errors.Is(err, fs.ErrNotExist) {
			continue // a refused volume without a file, or deleted in between
		}
		if err != nil {
			return blockdev.Capacity{}, fmt.Errorf("volume %s: capacity: %w", id, err)
		}
		c.Allocated += allocated
		// A refused volume still has the space that its file may take.
		c.Promised += max(promised, size)
	}
	return c, nil
}

// promises returns the size of every volume, 0 for a refused one.
func (p *Pool) promises() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	sizes := map[string]int64{}
	for id, v := range p.volumes {
		if v.state == whole || v.state == corrupt {
			sizes[id] = v.record.Size
		}
	}
	return sizes
}

func (d *disk) space() (blockdev.Capacity, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return blockdev.Capacity{}, err
	}
	defer f.Close() // read only
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return blockdev.Capacity{}, err
		}
		return capacityOf(&st), nil
	}
}

func capacityOf(st *unix.Statfs_t) blockdev.Capacity {
	unit := int64(st.Frsize) //nolint:unconvert // 32 bits on some machines
	if unit == 0 {
		unit = int64(st.Bsize) //nolint:unconvert // 32 bits on some machines
	}
	reserve := int64(st.Bfree) - int64(st.Bavail)
	return blockdev.Capacity{
		Total: (int64(st.Blocks) - reserve) * unit,
		Free:  int64(st.Bavail) * unit,
	}
}

// usage returns the length of a volume's file and the bytes it occupies.
func (d *disk) usage(id string) (size, allocated int64, err error) {
	if info, err := d.root.Lstat(volumePath(id)); err != nil || !info.IsDir() {
		return 0, 0, errors.Join(err, fs.ErrNotExist) // a link would count another's
	}
	info, err := d.root.Lstat(dataPath(id))
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), blocksOf(info) * 512, nil
}
