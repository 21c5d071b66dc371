// Package scsi is the device server of a SCSI direct-access block device: it
// decodes CDBs, keeps unit attentions and answers with data, status and sense.
// It knows no transport; the layer above moves the bytes.
//
// An [Inventory] is a target device's logical units, a [Unit] is one of them
// over a [blockdev.Device], and a [Nexus] is an initiator port's view of the
// inventory. [Nexus.Decode] turns a CDB into a [Command] without waiting for
// anything; the command then says what remains to be done.
//
// The life of a command: operation.go has its row in the command set; request.go
// admits it (unit attention, reservation, access state, a SANITIZE under way, the
// unit's state) and has the row decode its CDB; taskset.go says when its turn is, and
// aca.go who is let in while one that failed has the others wait (NACA); then the
// layer above calls what command.go offers, which ends in the command's own file.
// Whatever changes the medium goes through change in readwrite.go, which has the
// blocks guarded (guard.go), marked (durability.go) and taken from the tokens that
// stand for them (tokens.go), or has the blocks for itself as a chore does (chore.go).
// What must outlive the process is in state.go.
//
// Reservations are SPC-4's persistent ones, whole, and SPC-2's RESERVE and RELEASE
// with the exceptions that CRH announces. They are a value that is replaced, never
// changed (reservation.go), so that the question whether a command conflicts
// takes no lock; each row of the command set says how it is to be answered.
//
// Third-party copy is within the logical units that a nexus sees: EXTENDED COPY
// with block-to-block segments (no padding, no inline or held data) and ROD tokens
// of the type point in time copy - change vulnerable. Its sense data has no
// segment pointer and no sense data of the unit that failed.
//
// WRITE ATOMIC(16) and the soft thresholds are SBC-4's: atomics.go says why reads
// see all of the one or nothing, thresholds.go when the others are looked at. Of
// the thresholds only what this unit's own writes brought about is noticed at
// once, and of SITUA only zero is known.
//
// The standards are SAM-5, SPC-4 and SBC-3. Known gaps: no third-party
// reservations (RESERVE(10) with 3RDPTY), no protection information, and
// the IMMED bits of SYNCHRONIZE CACHE, START STOP UNIT and third-party copy are
// accepted but the command still answers when the work is done.
//
// What happens to acknowledged writes when the power fails is told in
// durability.go.
package scsi
