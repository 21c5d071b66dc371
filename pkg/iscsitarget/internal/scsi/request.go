package scsi

// request is a CDB on the way to being a Command.
type request struct {
	nexus *Nexus
	itl   *itl // nil: no such logical unit
	op    *operation
	cdb   [16]byte
}

// layout says where a CDB of one length has its common fields (SPC-4 section
// 4.2.2).
type layout struct {
	lba, lbaBytes     int
	count, countBytes int
	control           int
}

// layouts are by group code, the top three bits of the opcode. Groups without
// a layout hold no command that is in the command set.
var layouts = [8]layout{
	0: {lba: 1, lbaBytes: 3, count: 4, countBytes: 1, control: 5},
	1: {lba: 2, lbaBytes: 4, count: 7, countBytes: 2, control: 9},
	2: {lba: 2, lbaBytes: 4, count: 7, countBytes: 2, control: 9},
	4: {lba: 2, lbaBytes: 8, count: 10, countBytes: 4, control: 15},
	5: {lba: 2, lbaBytes: 4, count: 6, countBytes: 4, control: 11},
}

// Decode reads a CDB, of 16 bytes or more, that arrived for a LUN with a task
// attribute. It never blocks and does no I/O. It takes the unit attention that it
// reports.
func (n *Nexus) Decode(lun [8]byte, a Attribute, cdb []byte) Command {
	r := request{nexus: n, itl: n.lookup(lun)}
	copy(r.cdb[:], cdb)
	r.op = findOperation(&r.cdb)
	if r.guarded(a) {
		return r.commandGuarded(a)
	}
	c := r.command()
	c.attribute = a
	return c
}

// command is what a request comes to.
func (r request) command() Command {
	c := r.decode()
	c.itl, c.op, c.cdb = r.itl, r.op, r.cdb
	if r.itl != nil {
		c.descriptor = r.itl.unit.settings.Load().DescriptorSense
	}
	c.Status = c.inFormat(c.Status)
	return c
}

func (r request) decode() Command {
	if st := r.admit(); st.code != Good {
		return r.fail(st)
	}
	return r.op.decode(r)
}

// admit asks what is asked of every command, in the order that the standards
// give: logical unit, unit attention, command set, reservations, state of the
// unit.
func (r request) admit() Status {
	if r.itl == nil {
		return r.admitAnyLUN()
	}
	if !r.op.passes {
		if a, pending := r.itl.attentions.take(); pending {
			return r.itl.unit.attentionStatus(a)
		}
	}
	if !r.op.in(r.itl.unit) {
		return r.op.absent()
	}
	if r.itl.unit.reservations.Load().conflict(r.itl, r.op, &r.cdb) {
		return StatusReservationConflict
	}
	if st := r.admitAccessState(); st.code != Good {
		return st
	}
	if !r.op.passes && !r.op.passesChore {
		if st := r.itl.unit.admitChore(); st.code != Good {
			return st
		}
	}
	return r.itl.admit(r.op.access)
}

func (r request) admitAnyLUN() Status {
	if !r.op.anyLUN {
		return check(illegalRequest, ascLogicalUnitNotSupported)
	}
	return StatusGood
}

// admit asks whether the nexus may have the access now.
func (l *itl) admit(a access) Status {
	switch {
	case a >= needsReady && l.unit.power.Load() == powerStopped:
		return check(notReady, ascInitializingRequired)
	case a >= readsMedium && l.lost.Load():
		return SenseInternalTargetFailure
	case a >= writesMedium && l.readOnly():
		return check(dataProtect, ascWriteProtected)
	}
	if a >= readsMedium {
		l.unit.wake()
	}
	return StatusGood
}

func (r request) layout() *layout { return &layouts[r.cdb[0]>>5] }

// extent is the CDB's LOGICAL BLOCK ADDRESS and its number of blocks.
func (r request) extent() (lba, blocks uint64) {
	l := r.layout()
	lba = bigEndian(r.cdb[l.lba : l.lba+l.lbaBytes])
	if l.lbaBytes == 3 {
		lba &= 0x1FFFFF // READ(6) and WRITE(6): 21 bits
	}
	return lba, bigEndian(r.cdb[l.count : l.count+l.countBytes])
}

// bigEndian reads an unsigned number of at most eight bytes.
func bigEndian(b []byte) uint64 {
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// fail is a command that ends with a status and no data.
func (r request) fail(st Status) Command { return Command{Kind: Done, Status: st} }

// data is a command that ends with GOOD and data, cut to the allocation length.
func (r request) data(b []byte, allocation uint64) Command {
	if uint64(len(b)) > allocation {
		b = b[:allocation]
	}
	return Command{Kind: Done, Dir: DataIn, Length: int64(len(b)), Data: b}
}
