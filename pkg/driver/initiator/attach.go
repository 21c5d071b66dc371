package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

const (
	// portalProbeTimeout bounds the TCP connection that tells a portal that
	// answers from one that does not; iscsid would take far longer.
	portalProbeTimeout = 3 * time.Second
	// diskTimeout is how long a disk may take to appear after login.
	diskTimeout = 30 * time.Second
)

// Attach logs in and returns the volume's disk, proven to be the promised one:
// on every portal that answers where multipathd can make one disk of them, else
// on one. It goes on from wherever an earlier Attach of
// the same stage was interrupted. Sessions of another stage must be gone: call
// Detach first.
func (i *Initiator) Attach(ctx context.Context, l Login) (Disk, error) {
	h, err := i.host(ctx)
	if err != nil {
		return Disk{}, err
	}
	if err := i.loadTransport(ctx, h); err != nil {
		return Disk{}, err
	}
	portals, err := i.reachable(ctx, h, l.Portals)
	if err != nil {
		return Disk{}, err
	}
	if err := i.settleLock(ctx, h); err != nil {
		return Disk{}, err
	}
	if err := i.ensureIface(ctx, h); err != nil {
		return Disk{}, err
	}
	if err := i.login(ctx, h, l, portals); err != nil {
		return Disk{}, err
	}
	disk, err := i.awaitDisk(ctx, l.Volume, len(portals))
	if err == nil {
		disk, err = i.settlePaths(ctx, h, l.Volume, disk)
	}
	if err != nil || disk.SizeBytes >= l.SizeBytes {
		return disk, err
	}
	// Grown since the kernel first looked.
	return i.Rescan(ctx, l.Volume, l.SizeBytes)
}

// reachable returns the portals that take a TCP connection. From another
// network namespace than iscsid's the question would prove nothing.
func (i *Initiator) reachable(ctx context.Context, h host, portals []string) ([]string, error) {
	if !h.ourNet {
		return portals, nil
	}
	errs := make([]error, len(portals))
	var group errgroup.Group
	for n, portal := range portals {
		group.Go(func() error { errs[n] = probePortal(ctx, portal); return nil })
	}
	_ = group.Wait()
	var answering []string
	for n, portal := range portals {
		if errs[n] == nil {
			answering = append(answering, portal)
		} else {
			i.log.Warn("portal does not answer", "portal", portal, "err", errs[n])
		}
	}
	if len(answering) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(errs...))
	}
	return answering, nil
}

func probePortal(ctx context.Context, portal string) error {
	ctx, cancel := context.WithTimeout(ctx, portalProbeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", portal)
	if err != nil {
		return err
	}
	return conn.Close()
}

// login makes the records and logs in on all portals at once; one success is
// enough. Without multipathd it stops at the first success.
func (i *Initiator) login(ctx context.Context, h host, l Login, portals []string) error {
	if len(portals) > 1 && !i.multipathRuns() {
		return i.loginFirst(ctx, h, l, portals)
	}
	errs := make([]error, len(portals))
	var group errgroup.Group
	for n, portal := range portals {
		group.Go(func() error { errs[n] = i.loginPortal(ctx, h, l, portal); return nil })
	}
	_ = group.Wait()
	for n, err := range errs {
		if err != nil {
			i.log.Warn("login failed", "target", l.TargetName, "portal", portals[n], "err", err)
		}
	}
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

// loginFirst logs in on one portal, the first that lets us.
func (i *Initiator) loginFirst(ctx context.Context, h host, l Login, portals []string) error {
	var errs []error
	for _, portal := range portals {
		err := i.loginPortal(ctx, h, l, portal)
		if err == nil {
			return nil
		}
		i.log.Warn("login failed", "target", l.TargetName, "portal", portal, "err", err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (i *Initiator) loginPortal(ctx context.Context, h host, l Login, portal string) error {
	if err := i.logins.Acquire(ctx, 1); err != nil {
		return err
	}
	defer i.logins.Release(1)
	if err := i.makeRecord(ctx, h, l, portal); err != nil {
		return err
	}
	return loginError(portal, h.iscsiadm(ctx,
		"-m", "node", "-T", l.TargetName, "-p", portal, "-I", ifaceName, "--login"))
}

// loginError gives iscsiadm's exit status its meaning.
func loginError(portal string, err error) error {
	code, ok := child.ExitCode(err)
	switch {
	case err == nil || ok && code == exitSessionExists:
		// A session that is there is looked at by Disk: it counts when it
		// is of this stage.
		return nil
	case ok && (code == exitAuth || code == exitLogin):
		return fmt.Errorf("%w at %s: %w", ErrRefused, portal, err)
	case ok && (code == exitTransport || code == exitTimeout):
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, portal, err)
	}
	return fmt.Errorf("login at %s: %w", portal, err)
}

// opens returns an error while the kernel does not let the disk be opened yet: for
// a moment sysfs and /dev have a disk that is ENXIO to whoever opens it. What else
// is wrong with it is found by those who use it.
func (i *Initiator) opens(ctx context.Context, d Disk) error {
	err := child.Do(ctx, "open "+d.Path, func() error { return i.cfg.Open(d.Path) })
	if errors.Is(err, unix.ENXIO) || ctx.Err() != nil {
		return err
	}
	return nil
}

func openDevice(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// awaitDisk waits for the disk until it can be opened, and with several paths and a running
// multipathd for the map over them.
func (i *Initiator) awaitDisk(ctx context.Context, v Volume, paths int) (Disk, error) {
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	wantMap, start := paths > 1 && i.multipathRuns(), time.Now()
	var disk Disk
	var last, refused error
	err := poll(ctx, func() (bool, error) {
		disk, last = i.Disk(v)
		switch {
		case errors.Is(last, ErrNotAttached):
			return false, nil
		case last != nil:
			return false, last
		case wantMap && disk.multipath == "" && time.Since(start) < i.mapTimeout:
			return false, nil
		case disk.SizeBytes == 0:
			return false, nil
		}
		// An open that the end of ctx cut short says nothing of the disk: what was
		// wrong with it before then does.
		err := i.opens(ctx, disk)
		if err == nil {
			return true, nil
		}
		if ctx.Err() == nil {
			refused = err
		}
		last = refused
		return false, nil
	})
	if err != nil && last != nil {
		return Disk{}, fmt.Errorf("wait for the disk of %s: %w", v.TargetName, last)
	}
	return disk, err
}
