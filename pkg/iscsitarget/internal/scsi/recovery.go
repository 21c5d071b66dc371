package scsi

import "github.com/csi-ietd/csi-ietd/pkg/blockdev"

// allLost says that no nexus is attached that still gets at the medium.
func (d *durability) allLost() bool {
	for l := range d.attached {
		if !l.lost.Load() {
			return false
		}
	}
	return true
}

// recover makes the device believable again where it can. Where it cannot, the
// next Sync fails, and whoever attaches after that tries again.
func (d *durability) recover() {
	r, ok := d.device.(blockdev.Recoverer)
	if !ok {
		return
	}
	d.era.Add(1) // before: who reads what is shown then finds the new era
	if err := r.Recover(); err != nil {
		d.logger.Error("The device fails as before", "err", err)
		return
	}
	d.suspect = false
	d.logger.Info("The device works again after a Sync that failed")
}
