package initiator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// Disk is an attached volume.
type Disk struct {
	// Path is the device node: a SCSI disk's, or the multipath map's.
	Path string
	// Number is "major:minor", as mountinfo has it.
	Number    string
	SizeBytes int64
	// Live: a session to it is logged in.
	Live bool
	// multipath is the map's name in sysfs, such as dm-0; empty for a
	// single path.
	multipath string
	paths     []scsiDevice
}

// Disk finds the disk of a volume that is attached: from live sessions of this
// node and stage, never from a name. It fails with ErrNotAttached, which is
// ErrRecovering too while I/O waits for a lost session, or ErrWrongDevice.
func (i *Initiator) Disk(v Volume) (Disk, error) {
	sessions, err := i.sysfs.sessions(v.TargetName)
	if err != nil {
		return Disk{}, err
	}
	var paths []scsiDevice
	recovering := false
	for _, s := range sessions {
		if s.initiator != i.cfg.InitiatorName || s.username != v.Username {
			return Disk{}, fmt.Errorf("%w: session %s is of another stage or node", ErrWrongDevice, s.id)
		}
		if s.state != loggedIn {
			recovering = recovering || s.state == recovers
			continue
		}
		d, err := i.unitOf(s, v)
		if err != nil {
			return Disk{}, err
		}
		paths = append(paths, d)
	}
	if len(paths) == 0 && recovering {
		return Disk{}, fmt.Errorf("%w: %w: %s", ErrNotAttached, ErrRecovering, v.TargetName)
	}
	if len(paths) == 0 {
		return Disk{}, fmt.Errorf("%w: no live session to %s", ErrNotAttached, v.TargetName)
	}
	return i.assemble(paths)
}

// Disks returns what disks the sessions to a target have now, whoever made the
// sessions and whatever state they are in.
func (i *Initiator) Disks(target string) ([]Disk, error) {
	sessions, err := i.sysfs.sessions(target)
	if err != nil {
		return nil, err
	}
	var disks []Disk
	for _, s := range sessions {
		devices, err := i.sysfs.devices(s)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			if d.disk == "" {
				continue
			}
			over, err := i.sysfs.mapOver(d.disk)
			if err != nil {
				return nil, err
			}
			disk := Disk{Path: filepath.Join(i.cfg.Dev, or(over, d.disk)), Live: s.state == loggedIn, multipath: over, paths: []scsiDevice{d}}
			disk.Number, disk.SizeBytes, err = i.sysfs.blockDevice(or(over, d.disk))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it went while we looked
			}
			if err != nil {
				return nil, err
			}
			disks = append(disks, disk)
		}
	}
	return disks, nil
}

// unitOf returns the volume's logical unit of one session, proven to be the
// promised one.
func (i *Initiator) unitOf(s session, v Volume) (scsiDevice, error) {
	devices, err := i.sysfs.devices(s)
	if err != nil {
		return scsiDevice{}, err
	}
	for _, d := range devices {
		if d.lun != uint64(v.LUN) || d.disk == "" {
			continue
		}
		naa, err := naaOf(d)
		if err != nil {
			return scsiDevice{}, fmt.Errorf("%w: %s: %w", ErrWrongDevice, d.disk, err)
		}
		if naa != v.NAA {
			return scsiDevice{}, fmt.Errorf("%w: %s is NAA %s, not %s", ErrWrongDevice, d.disk, naa, v.NAA)
		}
		return d, nil
	}
	return scsiDevice{}, fmt.Errorf("%w: LUN %d of session %s has no disk yet", ErrNotAttached, v.LUN, s.id)
}

// assemble makes one Disk of its paths. Where a multipath map holds one of
// them, it must hold all: a map lacks a path for a moment after login.
func (i *Initiator) assemble(paths []scsiDevice) (Disk, error) {
	disk := Disk{paths: paths, Live: true}
	for n, p := range paths {
		over, err := i.sysfs.mapOver(p.disk)
		if err != nil {
			return Disk{}, err
		}
		if n > 0 && over != disk.multipath {
			return Disk{}, fmt.Errorf("%w: multipath has not taken every path yet", ErrNotAttached)
		}
		disk.multipath = over
	}
	name := or(disk.multipath, paths[0].disk)
	var err error
	if disk.Number, disk.SizeBytes, err = i.sysfs.blockDevice(name); err != nil {
		return Disk{}, fmt.Errorf("%w: %w", ErrNotAttached, err)
	}
	disk.Path = filepath.Join(i.cfg.Dev, name)
	return disk, i.checkNode(disk)
}

// checkNode makes sure that the device node in our /dev is the disk: a node
// that an earlier disk left behind, or that a container lacks, is not.
func (i *Initiator) checkNode(d Disk) error {
	number, err := DeviceNumber(d.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAttached, err)
	}
	if number != d.Number {
		return fmt.Errorf("%w: %s is device %s, the disk is %s", ErrWrongDevice, d.Path, number, d.Number)
	}
	return nil
}

// DeviceNumber returns the "major:minor" of a block device node.
func DeviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is not a block device", path)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// Rescan makes the kernel read the capacity of the volume's own disks anew. It
// fails with ErrTooSmall unless each of them, and their multipath map, has size
// bytes then.
func (i *Initiator) Rescan(ctx context.Context, v Volume, size int64) (Disk, error) {
	disk, err := i.Disk(v)
	if err != nil {
		return Disk{}, err
	}
	for _, p := range disk.paths {
		if err := i.writeAttribute(ctx, filepath.Join(p.dir, "rescan"), "1"); err != nil {
			return Disk{}, fmt.Errorf("rescan %s: %w", p.disk, err)
		}
	}
	for _, p := range disk.paths {
		if _, have, err := i.sysfs.blockDevice(p.disk); err != nil || have < size {
			return disk, errors.Join(err, fmt.Errorf("%w: %s has %d bytes of %d", ErrTooSmall, p.disk, have, size))
		}
	}
	if disk.multipath != "" && disk.SizeBytes < size {
		if err := i.resizeMap(ctx, disk.multipath); err != nil {
			return Disk{}, err
		}
	}
	if disk, err = i.Disk(v); err == nil && disk.SizeBytes < size {
		err = fmt.Errorf("%w: %s has %d bytes of %d", ErrTooSmall, disk.Path, disk.SizeBytes, size)
	}
	return disk, err
}

func (i *Initiator) writeAttribute(ctx context.Context, path, value string) error {
	return child.Do(ctx, "write "+path, func() error { return write(path, value) })
}
