package initiator

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// multipathReplacement is the replacement_timeout under multipath: a lost path
// must fail quickly, for the other one to take over.
const multipathReplacement = 5 * time.Second

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
