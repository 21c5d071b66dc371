package initiator

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// multipathReplacement is how long I/O waits for a lost path under a multipath
// map: it must fail quickly, for another one to take over.
const multipathReplacement = 5 * time.Second

// settlePaths ends with a disk that has a multipath map or one path. Several
// paths without a map are several disks with one content: which of them is
// found would change when a path is lost, under a file system that is mounted
// from another.
func (i *Initiator) settlePaths(ctx context.Context, h host, v Volume, disk Disk) (Disk, error) {
	sessions, err := i.sysfs.sessions(v.TargetName)
	if err != nil {
		return Disk{}, err
	}
	if disk.multipath != "" {
		i.shortenRecovery(ctx, sessions)
		return disk, nil
	}
	if len(sessions) < 2 {
		return disk, nil
	}
	i.log.Warn("no multipath map came over the paths: going on with one", "target", v.TargetName, "disk", disk.Path)
	for _, s := range sessions {
		if s.id == disk.paths[0].session {
			continue
		}
		if err := i.removeDisks(ctx, s); err != nil {
			return Disk{}, err
		}
		if err := i.logoutSession(ctx, h, s.id); err != nil {
			return Disk{}, err
		}
	}
	if err := i.awaitSessions(ctx, v.TargetName, 1); err != nil {
		return Disk{}, err
	}
	return i.Disk(v)
}

// shortenRecovery makes I/O of a lost path go to another one soon. The kernel
// keeps what is written here over iscsid's own setting, for the session's life;
// the record has the patience of a volume with one path, which is the safe
// side for one that never comes under a map.
func (i *Initiator) shortenRecovery(ctx context.Context, sessions []session) {
	for _, s := range sessions {
		if s.state != loggedIn {
			continue
		}
		err := i.writeAttribute(ctx, filepath.Join(s.dir, "recovery_tmo"), seconds(multipathReplacement))
		if err != nil {
			i.log.Warn("cannot shorten a session's recovery", "session", s.id, "err", err)
		}
	}
}

// multipathRuns tells whether multipathd may take our disks.
func (i *Initiator) multipathRuns() bool {
	_, err := i.pidOf("multipathd")
	return err == nil
}

// multipathHost is the host as multipathd sees it.
func (i *Initiator) multipathHost() (host, error) {
	pid, err := i.pidOf("multipathd")
	if err != nil {
		return host{}, fmt.Errorf("a multipath map is there, but multipathd is not running: systemctl start multipathd: %w", err)
	}
	return i.hostOf(pid)
}

func (i *Initiator) resizeMap(ctx context.Context, dm string) error {
	h, err := i.multipathHost()
	if err != nil {
		return err
	}
	if _, err := h.exec(ctx, "multipathd", "resize", "map", dm); err != nil {
		return fmt.Errorf("resize multipath map %s: %w", dm, err)
	}
	return nil
}

// removeMap removes a map that nobody holds open, before its paths go.
func (i *Initiator) removeMap(ctx context.Context, dm string) error {
	name, err := attribute(filepath.Join(i.cfg.Sysfs, "class/block", dm), "dm/name")
	if err != nil {
		return ignoreNotExist(err)
	}
	h, err := i.multipathHost()
	if err != nil {
		return err
	}
	if _, err := h.exec(ctx, "multipath", "-f", name); err != nil {
		return fmt.Errorf("remove multipath map %s: %w", name, err)
	}
	return nil
}
