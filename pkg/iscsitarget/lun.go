package iscsitarget

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
)

// LUNConfig describes a logical unit to add to a target.
type LUNConfig struct {
	Device blockdev.Device
	// Vendor (8 characters at most), Product (16) and Revision (4) go into
	// standard INQUIRY data; Serial into VPD page 80h.
	Vendor, Product, Revision, Serial string
	// NAA is the designator of VPD page 83h, 0 for none.
	NAA uint64
	// T10ID follows the vendor in the T10 designator of VPD page 83h. With
	// T10Binary it is 16 bytes, whatever they are, and the vendor is filled up
	// with zeros, as the iSCSI Enterprise Target did.
	T10ID     string
	T10Binary bool
	// PhysicalBlockSize is the length in bytes that initiators are told to
	// align to; 0 is the logical block length.
	PhysicalBlockSize int
	// ReadOnly refuses writes with DATA PROTECT.
	ReadOnly bool
	// WriteCache makes writes volatile until SYNCHRONIZE CACHE or FUA;
	// without it every write is stable before it is acknowledged.
	WriteCache bool
}

// AddLUN adds a logical unit, 0 to 16383. Sessions learn of it by a unit
// attention.
func (t *Target) AddLUN(lun uint16, cfg LUNConfig) error {
	t.attaching.Lock()
	defer t.attaching.Unlock()
	if t.flushed || t.isRemoved() {
		return fmt.Errorf("%s: %w", t.name, ErrTargetRemoved)
	}
	u, err := scsi.NewUnit(scsi.UnitConfig{
		Device: cfg.Device, Vendor: cfg.Vendor, Product: cfg.Product, Revision: cfg.Revision, Serial: cfg.Serial,
		NAA: cfg.NAA, T10ID: cfg.T10ID, T10Binary: cfg.T10Binary, PhysicalBlockSize: cfg.PhysicalBlockSize, ReadOnly: cfg.ReadOnly, WriteCache: cfg.WriteCache,
		BootID: t.server.opts.BootID, Logger: t.server.log.With("target", t.name, "lun", lun),
	})
	if err != nil {
		return fmt.Errorf("%s LUN %d: %w", t.name, lun, err)
	}
	u.OnPreempt(func(ctx context.Context, ports []string) { t.abort(ctx, u, ports) })
	if err := t.units.Add(lun, u); err != nil {
		return errors.Join(fmt.Errorf("%s LUN %d: %w", t.name, lun, err), u.Close())
	}
	t.mu.Lock()
	t.luns[lun] = u
	t.mu.Unlock()
	return nil
}

// RemoveLUN takes a logical unit away: further commands find none at its number, those
// under way come to their end, then what was written is made stable. Sessions learn of
// it by a unit attention. The unit's Device is the caller's to close, once RemoveLUN
// has returned nil or an error other than ctx's; that error says that writes may be
// lost. When ctx ends first the work goes on, and RemoveLUN may be called again.
func (t *Target) RemoveLUN(ctx context.Context, lun uint16) error {
	key := fmt.Sprintf("removal of LUN %d", lun)
	t.mu.Lock()
	u, under := t.luns[lun], t.work[key]
	t.mu.Unlock()
	if u == nil && under == nil {
		return fmt.Errorf("%s LUN %d: %w", t.name, lun, ErrLUNNotFound)
	}
	_, err := t.join(ctx, key, func() {}, func() error { return t.removeLUN(lun) })
	return err
}

func (t *Target) removeLUN(lun uint16) error {
	t.attaching.Lock()
	u := t.units.Remove(lun)
	t.mu.Lock()
	delete(t.luns, lun)
	t.mu.Unlock()
	t.attaching.Unlock()
	if u == nil {
		return nil // it was closed with the target
	}
	session.AwaitTasks(t.Peers(), u)
	if err := u.Close(); err != nil {
		return fmt.Errorf("flush of %s LUN %d: %w", t.name, lun, err)
	}
	return nil
}

// CapacityChanged tells initiators that a unit's Device has grown.
func (t *Target) CapacityChanged(lun uint16) {
	t.mu.Lock()
	u := t.luns[lun]
	t.mu.Unlock()
	if u != nil {
		u.CapacityChanged()
	}
}

// LUNStatus is a logical unit as it is now.
type LUNStatus struct {
	LUN                  uint16
	Blocks               int64
	BlockSize            int // bytes
	ReadOnly, WriteCache bool
}

// LUNs are the target's logical units, by number.
func (t *Target) LUNs() []LUNStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]LUNStatus, 0, len(t.luns))
	for _, lun := range slices.Sorted(maps.Keys(t.luns)) {
		blocks, size, readOnly, cache := t.luns[lun].Medium()
		list = append(list, LUNStatus{lun, blocks, size, readOnly, cache})
	}
	return list
}

// Units implements session.Host.
func (t *Target) Units() []*scsi.Unit {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*scsi.Unit, 0, len(t.luns))
	for _, u := range t.luns {
		all = append(all, u)
	}
	return all
}

// flush closes the units: what was written is on stable storage, or the error
// says that it may not be. It does so once, and says the same ever after.
func (t *Target) flush() error {
	t.attaching.Lock()
	defer t.attaching.Unlock()
	if t.flushed {
		return t.flushErr
	}
	t.flushed = true
	t.mu.Lock()
	luns := t.luns
	t.luns = map[uint16]*scsi.Unit{}
	t.mu.Unlock()
	var errs []error
	for lun := range luns {
		if err := t.units.Remove(lun).Close(); err != nil {
			errs = append(errs, fmt.Errorf("flush of %s LUN %d: %w", t.name, lun, err))
		}
	}
	t.flushErr = errors.Join(errs...)
	return t.flushErr
}
