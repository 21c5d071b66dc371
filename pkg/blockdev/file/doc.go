// Package file is a [blockdev.Pool] in a directory: a volume is a sparse file
// with its record beside it. It needs no privileges.
//
//	pool.json                  the pool's id, minted when it is first opened
//	lock                       flock(2) for as long as the pool is open
//	volumes/<uuid>/data        the sparse file
//	volumes/<uuid>/record.json
//	volumes/<uuid>/volatile.json  the VolatileMark; absent when it is zero
//	volumes/<uuid>/unit.json   the logical unit's state; absent when it has none
//	volumes/<uuid>/atomic.journal  the atomic write under way; absent until the
//	                           first one
//	volumes/<uuid>/*.spare     blocks for those three on a full file system
//	staging/<uuid>/            a volume being made
//	trash/<uuid>/              a volume being deleted
//
// # Order of events
//
// Every change is made so that a power cut between any two of its steps
// leaves the volume as it was or as it was to be. Renames within one file
// system are atomic; a name is stable after an fsync of its directory.
//
//   - Create: build under staging/; fsync data, record and their directory;
//     rename into volumes/ (the volume exists from here on); fsync volumes/
//     and staging/.
//   - Delete: rename into trash/ (the volume is gone from here on); fsync
//     trash/ and volumes/; remove.
//   - A JSON file: write a temporary file beside it, fsync it, rename it over
//     the old one, fsync the directory. On a full file system: fsync the
//     directory, write over the spare, fsync it, exchange the two names, fsync
//     the directory.
//   - WriteAtomic: as package journal has it. The journal is made with all its
//     blocks, fsynced, and its directory after it, before it is first used.
//   - Resize: grow the file and fsync it, then replace the record, then tell
//     the open device. The file is therefore never shorter than its record
//     says. Where the record cannot be replaced, and the one on the disk is the
//     old one, the file is cut back: nothing was written to what it grew by.
//     After a power cut in between the file stays longer; the record counts,
//     and nothing is cut. A shorter file has lost bytes and is refused with
//     ErrCorrupt.
//
// Opening a volume completes the atomic write that was interrupted.
//
// Open empties staging/ and trash/, then checks every record. A volume with a
// record that is unreadable, of an unknown version or not true to its file is
// refused by name with ErrCorrupt; nothing of it is changed, and the others
// are served. Delete does not destroy it either: it succeeds once the volume's
// directory was moved away by hand. A state of the logical unit that cannot be
// read is found when it is asked for: the data is none the worse for it.
//
// # Limits
//
// The directory must belong to whoever runs the process: names are resolved
// beneath it and no symbolic link is taken for a volume, but a hostile owner
// of the directory itself can still exchange files while they are in use.
// Two machines that share the directory over a network file system without
// flock(2) are not kept apart.
package file
