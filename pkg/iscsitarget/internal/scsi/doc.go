// Package scsi is the device server of a SCSI direct-access block device: it
// decodes CDBs, keeps unit attentions and answers with data, status and sense.
// It knows no transport; the layer above moves the bytes.
//
// An [Inventory] is a target device's logical units, a [Unit] is one of them
// over a [blockdev.Device], and a [Nexus] is an initiator port's view of the
// inventory. [Nexus.Decode] turns a CDB into a [Command] without waiting for
// anything; the command then says what remains to be done.
//
// The standards are SAM-5, SPC-4 and SBC-3. Known gaps: no reservations, no
// MODE SELECT (so no page is changeable and nothing is saved), no COMPARE AND
// WRITE, no third-party copy, no protection information, no NACA, and the IMMED
// bits of SYNCHRONIZE CACHE and START STOP UNIT are accepted but the command
// still answers when the work is done.
//
// What happens to acknowledged writes when the power fails is told in
// durability.go.
package scsi
