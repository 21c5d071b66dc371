package ietd

import (
	"crypto/md5" //nolint:gosec // the old target's names are made of it, no secret is
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/null"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// medium is an open device and how many LUNs it is behind.
type medium struct {
	device   blockdev.Device
	how      opening
	luns     int
	number   int  // the old daemon's id of a device
	stateful bool // the logical unit above it keeps its state beside it
}

// opening is what LUNs that share a path must agree on.
type opening struct {
	path      string
	kind      ietconf.Type
	blockSize int // 0: the medium's own
	readOnly  bool
}

// defaultNullSize is the size of a nullio unit without Blocks, in bytes.
const defaultNullSize = 64 << 30

func openingOf(l ietconf.LUN) opening {
	return opening{l.Path, l.Type, l.BlockSize, l.IOMode == ietconf.ReadOnly}
}

// fits says whether a LUN can be behind the medium too, and why not.
func (m *medium) fits(l ietconf.LUN) error {
	switch {
	case m.how.kind != l.Type:
		return fmt.Errorf("%s is served as Type=%s by another Lun: %w", l.Path, m.how.kind, blockdev.ErrBusy)
	case l.BlockSize != 0 && l.BlockSize != m.device.BlockSize():
		return fmt.Errorf("%s is served with BlockSize=%d by another Lun: %w", l.Path, m.device.BlockSize(), blockdev.ErrBusy)
	case m.how.readOnly && l.IOMode != ietconf.ReadOnly:
		return fmt.Errorf("%s is open read-only, for another Lun: take that one away first: %w", l.Path, blockdev.ErrBusy)
	case m.stateful:
		return fmt.Errorf("%s is behind another Lun already, which keeps its reservations and mode pages: to serve it twice write both into the configuration and start again: %w", l.Path, blockdev.ErrBusy)
	}
	return nil
}

// take opens the medium of a LUN, or takes the one that is open. shared says that other
// LUNs are to have it too: logical units of their own, and one file cannot hold what
// each of them remembers, so they keep nothing. writable says that one of them writes.
func (d *Daemon) take(l ietconf.LUN, shared, writable bool) (*medium, error) {
	if l.Type == ietconf.NullIO {
		m, err := openNull(l)
		if err == nil {
			m.number = d.nextMedium()
		}
		return m, err
	}
	if m := d.media[l.Path]; m != nil {
		if err := m.fits(l); err != nil {
			return nil, err
		}
		m.luns++
		return m, nil
	}
	how := openingOf(l)
	how.readOnly = !writable
	m := &medium{how: how, luns: 1, number: d.nextMedium()}
	o := d.rawOptions(l, how.readOnly)
	if !shared && d.opts.StateDir != "" {
		o.StateFile, m.stateful = filepath.Join(d.opts.StateDir, stateFileName(l.Path)), true
	}
	var err error
	if m.device, err = raw.Open(l.Path, o); err != nil {
		return nil, err
	}
	d.media[l.Path] = m
	return m, nil
}

func (d *Daemon) rawOptions(l ietconf.LUN, readOnly bool) raw.Options {
	return raw.Options{Root: d.opts.LUNRoot, ReadOnly: readOnly, BlockSize: l.BlockSize, Direct: l.Type == ietconf.BlockIO}
}

func (d *Daemon) nextMedium() int {
	d.numbered++
	return d.numbered
}

func openNull(l ietconf.LUN) (*medium, error) {
	blockSize := l.BlockSize
	if blockSize == 0 {
		blockSize = 512
	}
	size := l.Blocks * int64(blockSize)
	if size == 0 {
		size = defaultNullSize
	}
	device, err := null.New(size, blockSize)
	if err != nil {
		return nil, err
	}
	return &medium{device: device, how: openingOf(l), luns: 1}, nil
}

// give closes a medium that no other LUN is in front of.
func (d *Daemon) give(m *medium) error {
	if m.luns--; m.luns > 0 {
		return nil
	}
	if d.media[m.how.path] == m {
		delete(d.media, m.how.path)
	}
	return m.device.Close()
}

// stateFileName is a pure function of the path: it must never change, or what
// the disks remember is forgotten.
func stateFileName(path string) string {
	hash := sha256.Sum256([]byte(path))
	return hex.EncodeToString(hash[:16]) + ".json"
}

// lunConfig is a LUN with the identity that an initiator knows it by: a pure
// function of the configuration, so that a restart changes nothing.
func lunConfig(target string, l ietconf.LUN, d blockdev.Device) iscsitarget.LUNConfig {
	c := iscsitarget.LUNConfig{
		Device: d,
		Vendor: "IET", Product: "VIRTUAL-DISK", Revision: "0",
		ReadOnly:   l.IOMode == ietconf.ReadOnly,
		WriteCache: l.IOMode == ietconf.WriteBack && l.Type != ietconf.BlockIO,
	}
	if l.Identity == ietconf.ModernIdentity {
		c.Serial, c.NAA, c.T10ID = modernIdentity(target, l)
		return c
	}
	id := deviceID(target, l)
	c.T10ID, c.T10Binary, c.Serial = string(id[:]), true, serialNumber(id, l.ScsiSN)
	return c
}

// deviceID is what follows the vendor in the old target's only designator: ScsiId, or
// the MD5 of the target's name and the LUN's number in four bytes, the least first.
func deviceID(target string, l ietconf.LUN) (id [16]byte) {
	if l.ScsiID != "" {
		copy(id[:], l.ScsiID)
		return id
	}
	return md5.Sum(binary.LittleEndian.AppendUint32([]byte(target), uint32(l.Number)))
}

// serialNumber is ScsiSN, or the device's id in hexadecimal: on the right of 16
// characters, or of 32 where it is longer.
func serialNumber(id [16]byte, scsiSN string) string {
	serial := scsiSN
	if serial == "" {
		serial = hex.EncodeToString(id[:])
	}
	width := 16
	if len(serial) > width {
		width = 32
	}
	return strings.Repeat(" ", max(0, width-len(serial))) + serial
}

// modernIdentity has an NAA designator, for hosts that go by nothing else.
func modernIdentity(target string, l ietconf.LUN) (serial string, naa uint64, t10 string) {
	hash := sha256.Sum256(binary.BigEndian.AppendUint16([]byte(strings.ToLower(target)+"\x00"), l.Number))
	derived := hex.EncodeToString(hash[:8])
	serial, t10 = l.ScsiSN, l.ScsiID
	if serial == "" {
		serial = derived
	}
	if t10 == "" {
		t10 = derived
	}
	return serial, 0x3<<60 | binary.BigEndian.Uint64(hash[:8])>>4, t10 // NAA 3h: locally assigned
}
