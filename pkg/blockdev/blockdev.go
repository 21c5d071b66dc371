// Package blockdev is the storage under an exported volume: random-access
// devices of fixed-size blocks, and the pools that hold them.
//
// A [Device] is the standard io interfaces and a few methods; what only some
// backends can do is an optional interface ([Unmapper], [Zeroer],
// [NowaitReader], [BackgroundReader], [CachedWriter], [SyncWriter], [AtomicWriter], [Recoverer], [RangeCopier],
// [Mapper], [Spacer], [Prefetcher], [VolatileMarker], [StateKeeper]) that a caller
// finds by type assertion. A [Pool] makes, lists and deletes the volumes of one place and
// keeps a durable record beside each of them.
//
// Offsets and lengths are bytes everywhere. Backends live in the packages
// below this one; package blockdevtest holds the suite that all of them run.
package blockdev

import (
	"context"
	"encoding/json"
	"io"
)

// Device is a medium of Size bytes. All methods may be called concurrently;
// overlapping writes land in an unspecified order but never torn below one
// logical block. Offsets and lengths need not be aligned to BlockSize unless
// the backend says otherwise.
type Device interface {
	// ReadAt fills p or returns an error. Blocks that were never written,
	// or were unmapped, read as zeros. A read past the end fails with
	// ErrOutOfRange and touches nothing.
	io.ReaderAt
	// WriteAt writes all of p or returns an error; on an error the range
	// holds an unspecified mix of old and new blocks. What it wrote is
	// visible to every later ReadAt, and stable only after Sync. A full
	// medium is ErrNoSpace; a write past the end is ErrOutOfRange.
	io.WriterAt
	// Sync returns nil once every write that returned before the call is on
	// stable storage. After one failure the kernel may have dropped dirty
	// pages: the error is sticky, and this Device's later Syncs fail with
	// ErrLostWrites, until Recover where the Device is a Recoverer.
	Sync() error
	// Size is the medium's size in bytes, a multiple of BlockSize. It may
	// grow while the device is open.
	Size() int64
	// BlockSize is the logical block length in bytes; see CheckBlockSize.
	BlockSize() int
	// Close waits for the calls in flight and releases the device. It does
	// not sync. Afterwards every call, Close included, fails with
	// ErrClosed.
	Close() error
}

// Unmapper is a Device that can give blocks back to its pool.
type Unmapper interface {
	// Unmap deallocates [off, off+n); the range reads as zeros afterwards.
	// Parts smaller than the granularity are zeroed.
	Unmap(off, n int64) error
	// UnmapGranularity is the allocation unit in bytes.
	UnmapGranularity() int64
}

// Zeroer is a Device that zeroes a range without being sent the zeros.
type Zeroer interface {
	// WriteZeroes makes [off, off+n) read as zeros and keeps (or makes) it
	// allocated.
	WriteZeroes(off, n int64) error
}

// NowaitReader is a Device that can say when a read would block.
type NowaitReader interface {
	// ReadAtNowait reads like ReadAt, but only what needs no waiting: it
	// returns ErrWouldBlock, having read n < len(p) bytes, where the rest
	// is not in memory. Where that is ErrFetching the Device has begun to
	// read it, and the same call will find it there before long.
	ReadAtNowait(p []byte, off int64) (n int, err error)
}

// BackgroundReader is a Device that reads while its caller does something else, and has
// no thread wait for each read. Who begins reads looks after them by Reap, until it waits
// for something else: then it calls Leave.
type BackgroundReader interface {
	// BeginRead begins to read len(p) bytes, which belong to the Device until done is
	// told, and that may be before it returns. false says that the Device did not take
	// it, for whatever reason, of which ReadAt tells: done is told nothing.
	BeginRead(p []byte, off int64, done ReadDone) bool
	// Reap tells of reads that have ended, whoever began them; false says that there was
	// none. It waits for nothing.
	Reap() bool
	// Leave has the Device tell of what is under way by itself: as it ends, or within
	// milliseconds of that once somebody has called BeginRead again.
	Leave()
}

// ReadDone is told of the end of a read. The calls come from somebody who has other reads
// to tell of: they wait for nothing.
type ReadDone interface {
	// ReadDone is called once. Only where ok is set p is full, of what ReadAt would have
	// found at some time since BeginRead; of what went wrong ReadAt tells.
	ReadDone(ok bool)
	// Flush follows when all that ended at the same time was told.
	Flush()
}

// CachedWriter is a Device that can say whether its writes wait for the medium.
type CachedWriter interface {
	// WritesToCache says that WriteAt copies to memory, and rarely waits.
	WritesToCache() bool
}

// SyncWriter is a Device with a write that is stable when it returns.
type SyncWriter interface {
	// WriteAtSync is WriteAt followed by a Sync of that range alone. After
	// a Sync has failed it fails with ErrLostWrites.
	WriteAtSync(p []byte, off int64) error
}

// AtomicWriter is a Device with a write that is all or nothing.
type AtomicWriter interface {
	// WriteAtomic writes all of p, stable when it returns. Whenever the
	// process or the machine dies, the Device that is opened next holds all
	// of p or nothing of it. On an error the range holds what it held
	// before, or all of p where the medium failed so that later Syncs are
	// ErrLostWrites; a full medium is ErrNoSpace and has changed nothing.
	// More than AtomicLimit bytes are ErrInvalid, a write past the end is
	// ErrOutOfRange. Calls are made one after the other. The caller keeps
	// other writes of the same range away meanwhile, and readers, who could
	// see a mix.
	WriteAtomic(p []byte, off int64) error
	// AtomicLimit is the longest such write in bytes.
	AtomicLimit() int
}

// Recoverer is a Device that can be believed again after a Sync that failed.
type Recoverer interface {
	// Recover ends the time in which Sync is ErrLostWrites. What memory
	// still shows of the writes that were lost it drops, so that reads say
	// what the medium holds. The caller has seen to it that nobody who
	// relied on those writes goes on as if nothing had happened. Where the
	// medium still fails, so does Recover, and nothing has changed.
	Recover() error
}

// StateKeeper is a Device that keeps what the logical unit above it must
// remember: reservations, saved mode pages.
type StateKeeper interface {
	// State returns what SetState stored last, nil for nothing. What is not
	// exactly what SetState stores is ErrCorrupt, and the error says where
	// it lies and what to do.
	State() (json.RawMessage, error)
	// SetState replaces it; it is on stable storage when the call returns.
	// Nothing (no bytes) removes it, which needs no space. What is not JSON,
	// or longer than MaxState, is ErrInvalid. When it fails, State says
	// whether the old or the new one is there.
	SetState(json.RawMessage) error
}

// StateLocator is a StateKeeper that can tell people where the state lies.
type StateLocator interface {
	// StateLocation is for messages alone, a path for example.
	StateLocation() string
}

// Mapper is a Device that knows which of its blocks are allocated.
type Mapper interface {
	// Mapped says whether the byte at off is allocated, and how many bytes
	// from there on, one at least and none behind the end, are the same.
	// What is not allocated reads as zeros.
	Mapped(off int64) (mapped bool, n int64, err error)
}

// Spacer is a Device that can tell what it occupies and what is left for it.
type Spacer interface {
	// Space reads the figures now.
	Space() (Space, error)
}

// Space is in bytes.
type Space struct {
	// Used is what the device occupies.
	Used int64
	// Available is what could be allocated still, by this device or others
	// of the same pool.
	Available int64
}

// Prefetcher is a Device that can be told what will be read.
type Prefetcher interface {
	// Prefetch begins to read [off, off+n) into memory and does not wait.
	Prefetch(off, n int64) error
}

// RangeCopier is a Device that can take over a range of another Device of the
// same backend, or of itself, without the bytes going through the caller.
type RangeCopier interface {
	// CopyFrom makes [dstOff, dstOff+n) of this Device read as [srcOff,
	// srcOff+n) of src does, like a ReadAt of src and a WriteAt of what it
	// gave: visible to every later ReadAt, stable only after Sync, and a mix
	// of old and new where it fails. Where the two media or the two ranges
	// (those of one medium that overlap, for example) do not allow it, it is
	// ErrCannotCopy, and the caller reads and writes itself. A full medium is
	// ErrNoSpace; a range past the end of either Device is ErrOutOfRange and
	// touches nothing, and either of them closed is ErrClosed.
	CopyFrom(src Device, srcOff, dstOff, n int64) error
}

// VolatileMarker is a Device that can remember across a power cut that writes
// which were acknowledged may not have reached stable storage.
type VolatileMarker interface {
	// VolatileMark returns the mark that the device carries; the zero value
	// means that nothing volatile was outstanding.
	VolatileMark() (VolatileMark, error)
	// SetVolatileMark replaces the mark; it is on stable storage when the
	// call returns. The zero value removes it.
	SetVolatileMark(VolatileMark) error
}

// VolatileMark says who may have seen writes that a power cut could undo.
type VolatileMark struct {
	// BootID is the machine boot under which the volatile writes were made.
	BootID string `json:"bootID,omitempty"`
	// Stages are the initiators' stages that may have written, or read,
	// volatile data under BootID.
	Stages []Stage `json:"stages,omitempty"`
	// Lost are the stages whose acknowledged writes are known to be lost,
	// or must be taken for lost: they get errors until they stage anew.
	Lost []Stage `json:"lost,omitempty"`
}

// Stage is one staging of a volume on a node: the initiator's name and the
// nonce that it repeats on every reconnect and renews when it stages anew.
type Stage struct {
	Initiator string `json:"initiator"`
	Nonce     string `json:"nonce"`
}

// Pool is a place that volumes are made in. All methods may be called
// concurrently; calls for the same volume are serialised by the pool.
type Pool interface {
	// ID is minted once, when the pool is first opened, and stored in it.
	ID() string
	// Create makes an empty volume, all zeros, with its record. It is
	// atomic: after a crash the volume is whole or does not exist. When it
	// returns, volume and record are on stable storage. A volume of that id
	// is ErrExists.
	Create(ctx context.Context, r Record) error
	// Delete removes a volume, its data and its record; an unknown id is
	// ErrNotFound and an open one ErrBusy. One that is ErrCorrupt stays, and
	// the error says what to do. After a crash the volume is whole or gone.
	Delete(ctx context.Context, id string) error
	// Get returns a volume's record; an unknown id is ErrNotFound.
	Get(ctx context.Context, id string) (Record, error)
	// List returns every volume's record, ordered by id. A volume that is
	// ErrCorrupt to every other call is left out.
	List(ctx context.Context) ([]Record, error)
	// SetMeta replaces a volume's Meta, atomically and durably. When it
	// fails the pool holds the old Meta or the new one; Get says which.
	SetMeta(ctx context.Context, id string, meta json.RawMessage) error
	// Resize grows a volume to size bytes, durably, under an open Device
	// too; the current size is no change, a smaller one ErrShrink.
	Resize(ctx context.Context, id string, size int64) error
	// Open opens a volume's device. One volume is open at most once
	// (ErrBusy).
	Open(ctx context.Context, id string) (Device, error)
	// Capacity reads the pool's figures now.
	Capacity(ctx context.Context) (Capacity, error)
	// Close waits for the calls in flight and releases the pool and its
	// lock on the place. While a Device is open it is ErrBusy and does
	// nothing.
	Close() error
}

// Record is what a pool remembers of a volume, beside the volume's data.
type Record struct {
	// ID is a canonical lower-case UUID.
	ID string `json:"id"`
	// Size is in bytes, a multiple of BlockSize.
	Size int64 `json:"size"`
	// BlockSize is the logical block length in bytes, 512 or 4096.
	BlockSize int `json:"blockSize"`
	// Meta belongs to the pool's user; the pool only stores it. It may hold
	// secrets: records are readable by their owner alone.
	Meta json.RawMessage `json:"meta,omitempty"`
}

// Capacity is a pool's state in bytes.
type Capacity struct {
	// Total is what the pool could ever hold.
	Total int64
	// Free is what can be allocated now.
	Free int64
	// Promised is the sum of the volumes' sizes.
	Promised int64
	// Allocated is what the volumes occupy now.
	Allocated int64
}
