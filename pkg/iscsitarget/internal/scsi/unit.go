package scsi

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// UnitConfig describes a logical unit.
type UnitConfig struct {
	Device blockdev.Device
	// Vendor (8 characters), Product (16) and Revision (4) go into standard
	// INQUIRY data; longer ones are cut. Serial is VPD page 80h.
	Vendor, Product, Revision, Serial string
	// NAA is the designator of VPD page 83h, 0 for none.
	NAA uint64
	// T10ID follows the vendor in the T10 designator of VPD page 83h;
	// empty leaves that designator out. With T10Binary it is 16 bytes, whatever
	// they are, and the vendor is filled up with zeros, as the iSCSI Enterprise
	// Target did.
	T10ID     string
	T10Binary bool
	// PhysicalBlockSize is what READ CAPACITY(16) and VPD page B0h tell, in
	// bytes: 0 for the logical block length.
	PhysicalBlockSize int
	// ReadOnly refuses writes with DATA PROTECT.
	ReadOnly bool
	// WriteCache makes writes volatile until SYNCHRONIZE CACHE or FUA;
	// without it every write is stable before GOOD. It is the default of
	// the caching mode page's WCE bit.
	WriteCache bool
	// BootID is the machine boot that volatile writes are marked with.
	// Empty stands for an id that never comes again, so that every restart
	// counts as a power cut.
	BootID string
	// Logger gets what the backend did wrong; nil is silent.
	Logger *slog.Logger
}

// Unit is a logical unit over a [blockdev.Device]. All methods may be called
// concurrently.
type Unit struct {
	config       UnitConfig
	device       blockdev.Device
	unmapper     blockdev.Unmapper     // nil: not thin
	zeroer       blockdev.Zeroer       // nil: zeros are written
	nowait       blockdev.NowaitReader // nil: cannot tell
	background   blockdev.BackgroundReader
	cachesWrites bool                 // writes rarely wait for the medium
	syncWriter   blockdev.SyncWriter  // nil: write, then Sync
	mapper       blockdev.Mapper      // nil: cannot tell
	prefetcher   blockdev.Prefetcher  // nil: cannot
	spacer       blockdev.Spacer      // nil: cannot tell
	copier       blockdev.RangeCopier // nil: copies are read and written
	// atomicWriter: nil for a unit without atomic writes.
	atomicWriter blockdev.AtomicWriter
	atomics      atomics
	thresholds   *thresholds
	blockSize    int64
	blocks       atomic.Int64
	// power is the power condition that START STOP UNIT set.
	power atomic.Uint32
	// settings are the mode pages' current values: replaced, never changed,
	// under modeMu.
	settings   atomic.Pointer[settings]
	modeMu     sync.Mutex
	durability *durability
	guard      guard
	// accessState is the state of the target port group, and accessSet that
	// a command set it.
	accessState atomic.Uint32
	accessSet   atomic.Bool
	chores      chores
	tokens      tokens
	// clockAhead is how far SET TIMESTAMP put the unit's clock ahead of the
	// machine's, nil where it did not.
	clockAhead atomic.Pointer[time.Duration]

	keeper  blockdev.StateKeeper // nil: nothing outlives the process
	stateMu sync.Mutex
	state   unitState

	// reservations are read without a lock; they are replaced, never changed,
	// under reserveMu, which is held while they are made durable.
	reservations  atomic.Pointer[reservations]
	reserveMu     sync.Mutex
	reserveUnsure bool // what is kept may not be what the pointer says
	onPreempt     func(ctx context.Context, initiatorPorts []string)

	tasks taskSet

	mu   sync.Mutex
	itls map[*itl]struct{}
	// departed are the nexuses that have ended since the last power on or reset.
	departed map[nexusID]struct{}
}

// maxDeparted bounds them: a nexus that is forgotten is told of a power on, which
// covers its loss.
const maxDeparted = 1024

// NewUnit makes a unit. It may block: a volatile mark that an earlier boot left
// on the device becomes lost stages, durably. Close it when its commands ended.
func NewUnit(c UnitConfig) (*Unit, error) {
	size := int64(c.Device.BlockSize())
	if err := blockdev.CheckBlockSize(int(size)); err != nil {
		return nil, err
	}
	c.BootID = cmp.Or(c.BootID, rand.Text())
	c.PhysicalBlockSize = max(c.PhysicalBlockSize, int(size))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	u := &Unit{config: c, device: c.Device, blockSize: size, itls: map[*itl]struct{}{}, departed: map[nexusID]struct{}{}}
	u.unmapper, _ = c.Device.(blockdev.Unmapper)
	u.zeroer, _ = c.Device.(blockdev.Zeroer)
	u.nowait, _ = c.Device.(blockdev.NowaitReader)
	u.background, _ = c.Device.(blockdev.BackgroundReader)
	if cached, ok := c.Device.(blockdev.CachedWriter); ok {
		u.cachesWrites = cached.WritesToCache()
	}
	u.syncWriter, _ = c.Device.(blockdev.SyncWriter)
	u.mapper, _ = c.Device.(blockdev.Mapper)
	u.prefetcher, _ = c.Device.(blockdev.Prefetcher)
	u.spacer, _ = c.Device.(blockdev.Spacer)
	u.copier, _ = c.Device.(blockdev.RangeCopier)
	u.atomicWriter, _ = c.Device.(blockdev.AtomicWriter)
	u.blocks.Store(c.Device.Size() / size)
	if err := u.loadState(); err != nil {
		return nil, err
	}
	saved := u.savedSettings()
	u.settings.Store(&saved)
	u.thresholds = newThresholds(u)
	var err error
	if u.durability, err = newDurability(c.Device, c.BootID, c.Logger); err != nil {
		return nil, err
	}
	if err := u.resumeChore(); err != nil {
		return nil, err
	}
	u.thresholds.configure(saved)
	return u, nil
}

// OnPreempt gives what PREEMPT AND ABORT calls to abort the commands that
// initiator ports have under way at the unit (SPC-4 section 5.13.11.2.5). It
// returns when they have ended, or when ctx does: the PERSISTENT RESERVE OUT
// command itself, whose Execute was given that ctx, goes on. To be called before
// the unit has its first nexus.
func (u *Unit) OnPreempt(abort func(ctx context.Context, initiatorPorts []string)) {
	u.onPreempt = abort
}

// Medium is what initiators see of the medium now: the number of logical blocks, their
// length in bytes, whether writes are refused and whether they are volatile.
func (u *Unit) Medium() (blocks int64, blockSize int, readOnly, writeCache bool) {
	return u.blocks.Load(), int(u.blockSize), u.config.ReadOnly || u.settings.Load().WriteProtect, u.writeCache()
}

// CapacityChanged takes over the device's size and establishes CAPACITY DATA
// HAS CHANGED for every nexus.
func (u *Unit) CapacityChanged() {
	u.blocks.Store(u.device.Size() / u.blockSize)
	u.establish(attentionCapacity)
}

// Reset is LOGICAL UNIT RESET (SAM-5 section 6.3.3): mode pages go back to
// their saved values, the unit starts, what RESERVE holds is released (persistent
// reservations are not), ACA conditions are cleared, every nexus gets a unit attention. The caller has ended
// the unit's commands.
func (u *Unit) Reset() {
	saved := u.savedSettings()
	u.modeMu.Lock()
	u.settings.Store(&saved)
	u.thresholds.configure(saved)
	u.modeMu.Unlock()
	u.thresholds.reset()
	u.power.Store(powerActive)
	u.dropReserver(nil)
	u.clearACA(func(*itl) bool { return true })
	u.forgetCopies()
	u.mu.Lock()
	clear(u.departed) // those who come back have more to be told of than that
	u.mu.Unlock()
	u.establish(attentionDeviceReset)
}

// PowerOn is a power on event, as far as the unit shows one to initiators: a
// Reset that persistent reservations without APTPL do not survive.
func (u *Unit) PowerOn() {
	u.losePower()
	u.Reset()
	u.establish(attentionPowerOn)
}

// Close makes everything stable and removes the volatile mark. It does not
// close the Device. Volatile writes fail afterwards. An error says that
// acknowledged writes may be lost; the stages concerned are remembered as lost.
//
// A SANITIZE or FORMAT UNIT that runs ends where it is; the next Unit of the
// device goes on with it where the device is a [blockdev.StateKeeper].
func (u *Unit) Close() error {
	u.chores.stop()
	u.thresholds.close()
	return u.durability.close()
}

// LostStages is how many stages get errors because acknowledged writes of
// theirs are lost. It does not wait: while that is being changed it is the
// number from before.
func (u *Unit) LostStages() int { return u.durability.lostStages() }

// attach makes the I_T_L nexus; it may block in making the stage durable.
func (u *Unit) attach(n *Nexus) (*itl, error) {
	l := &itl{nexus: n, unit: u}
	if err := u.durability.attach(l); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.itls[l] = struct{}{}
	l.attentions.establish(u.greeting(l.id()))
	return l, nil
}

// greeting is the unit attention of a nexus that begins: of its loss where it was
// there before, or that of a power on, which it has not been told of. u.mu is held.
func (u *Unit) greeting(id nexusID) attention {
	if _, known := u.departed[id]; known {
		delete(u.departed, id)
		return attentionNexusLoss
	}
	return attentionPowerOn
}

func (u *Unit) detach(l *itl) {
	u.durability.detach(l)
	u.dropReserver(l)
	u.mu.Lock()
	delete(u.itls, l)
	if len(u.departed) >= maxDeparted {
		clear(u.departed)
	}
	u.departed[l.id()] = struct{}{}
	ready := l.clearACA()
	u.mu.Unlock()
	enable(ready)
}

func detachAll(itls iter.Seq[*itl]) {
	for l := range itls {
		l.unit.detach(l)
	}
}

func (u *Unit) establish(a attention) { u.establishForOthers(nil, a) }

// establishForOthers leaves out the nexus that brought the condition about.
func (u *Unit) establishForOthers(but *itl, a attention) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.itls {
		if l != but {
			l.attentions.establish(a)
		}
	}
}

// writeCache says that writes are volatile until SYNCHRONIZE CACHE or FUA.
func (u *Unit) writeCache() bool { return u.settings.Load().WriteCache }
