package initiator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// What the package fails with; test with errors.Is.
var (
	// ErrHost: the machine cannot attach iSCSI volumes now; the message
	// names what is missing and the way out.
	ErrHost = errors.New("this node cannot attach iSCSI volumes")
	// ErrUnreachable: no portal of the volume answers.
	ErrUnreachable = errors.New("no portal can be reached")
	// ErrRefused: the target does not let this node in.
	ErrRefused = errors.New("the target refused the login")
	// ErrNotAttached: there is no live session of ours, or no disk.
	ErrNotAttached = errors.New("volume is not attached")
	// ErrRecovering: the session is lost, and its I/O waits until the
	// target is back or the replacement timeout is over.
	ErrRecovering = errors.New("the session is lost and may come back")
	// ErrWrongDevice: the disk is not the one that was promised.
	ErrWrongDevice = errors.New("not the promised disk")
	// ErrTooSmall: the disk has not the size that was promised.
	ErrTooSmall = errors.New("the disk is smaller than promised")
	// ErrLeftOver: something of an attachment could not be removed.
	ErrLeftOver = errors.New("the volume is not fully detached")
)

// maxLogins bounds the logins at one time of the whole node: iscsid works on
// one after the other, and what waits for it counts against the deadline.
const maxLogins = 8

// Config is what an Initiator needs to know. The zero value of each path is
// the real one; tests give others.
type Config struct {
	// InitiatorName is the iSCSI name that this node logs in under.
	InitiatorName string
	// ReplacementTimeout is how long I/O waits for a lost session that has
	// no other path, before it fails; 0 means 600 s.
	ReplacementTimeout time.Duration
	Runner             child.Runner
	Logger             *slog.Logger

	Sysfs, Proc, Dev string
	// Flush writes back a block device's page cache; nil means the real one.
	Flush func(path string) error
	// Open opens a block device and closes it again; nil means the real one.
	Open func(path string) error
}

// Initiator attaches and detaches volumes. Its methods may be called
// concurrently; calls for one target must not overlap.
type Initiator struct {
	cfg    Config
	sysfs  sysfs
	run    child.Runner
	log    *slog.Logger
	logins *semaphore.Weighted
	// ifaceMu keeps two attachments from making the iface at one time.
	ifaceMu sync.Mutex
	// records is held with open-iscsi's lock.
	records *semaphore.Weighted
	// mapTimeout is how long multipathd may take over several paths before
	// the first of them is used without it.
	mapTimeout time.Duration
}

// New returns an Initiator.
func New(cfg Config) *Initiator {
	if cfg.ReplacementTimeout == 0 {
		cfg.ReplacementTimeout = 600 * time.Second
	}
	if cfg.Runner == nil {
		cfg.Runner = child.OS{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Flush == nil {
		cfg.Flush = flushDevice
	}
	if cfg.Open == nil {
		cfg.Open = openDevice
	}
	cfg.Sysfs, cfg.Proc, cfg.Dev = or(cfg.Sysfs, "/sys"), or(cfg.Proc, "/proc"), or(cfg.Dev, "/dev")
	return &Initiator{
		cfg: cfg, sysfs: sysfs{root: cfg.Sysfs, dev: cfg.Dev},
		run: cfg.Runner, log: cfg.Logger, logins: semaphore.NewWeighted(maxLogins),
		records: semaphore.NewWeighted(1), mapTimeout: 10 * time.Second,
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Volume is what tells a volume and its stage from all others.
type Volume struct {
	TargetName string
	LUN        uint16
	// NAA is the VPD 83h designator, 16 lower-case hexadecimal digits.
	NAA string
	// Username is the CHAP name with the stage's nonce; the kernel shows it
	// for each session, so that one of an earlier stage is known as such.
	Username string
	// SizeBytes is the least size that the disk may have.
	SizeBytes int64
}

// Login is what Attach needs on top.
type Login struct {
	Volume
	// Portals are "ip:port", IPv6 in brackets.
	Portals []string
	// Secret belongs to Username. MutualUser and MutualSecret are what the
	// target must prove; both empty: nothing.
	Secret, MutualUser, MutualSecret string
	// ReplacementTimeout is how long I/O of this volume waits for a lost
	// session that has no other path; 0 is the Config's.
	ReplacementTimeout time.Duration
}

// poll calls ok until it returns true or an error, or ctx ends.
func poll(ctx context.Context, ok func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// pollInterval is how often sysfs is looked at while the kernel or iscsid
// works; neither can be waited for otherwise.
const pollInterval = 20 * time.Millisecond
