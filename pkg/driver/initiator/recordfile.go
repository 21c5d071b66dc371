package initiator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/durable"
)

// ifaceName is the open-iscsi iface that csi-ietd logs in through; it carries
// the node's own initiator name, so that hosts cloned with their
// /etc/iscsi/initiatorname.iscsi do no harm.
const ifaceName = "csi-ietd"

// databases are the directories that open-iscsi keeps its records in,
// depending on how the distribution built it.
var databases = []string{"/etc/iscsi", "/var/lib/iscsi"}

// iscsiadm's exit statuses (iscsiadm(8)).
const (
	exitSessionNotFound = 2
	exitTransport       = 4
	exitLogin           = 5
	exitTimeout         = 8
	exitSessionExists   = 15
	exitNoObjects       = 21
	exitAuth            = 24
)

// ensureIface makes our iface with this node's initiator name. A right one is
// left alone: making it anew would take its name away for a moment.
func (i *Initiator) ensureIface(ctx context.Context, h host) error {
	i.ifaceMu.Lock()
	defer i.ifaceMu.Unlock()
	want := setting{key: "iface.initiatorname", value: i.cfg.InitiatorName}
	if i.ifaceIsRight(h, want) {
		return nil
	}
	if err := h.iscsiadm(ctx, "-m", "iface", "-I", ifaceName, "-o", "new"); err != nil {
		return fmt.Errorf("make iface %s: %w", ifaceName, err)
	}
	path, err := i.ifaceFile(h)
	if err != nil {
		return err
	}
	return i.rewriteRecord(ctx, h, path, []setting{want})
}

func (i *Initiator) ifaceIsRight(h host, want setting) bool {
	path, err := i.ifaceFile(h)
	if err != nil {
		return false
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	return strings.Contains("\n"+string(old), "\n"+want.key+" = "+want.value+"\n") &&
		strings.Contains(string(old), "\niface.transport_name = tcp\n") &&
		strings.Contains(string(old), "\n"+recordEnd)
}

func (i *Initiator) ifaceFile(h host) (string, error) {
	for _, db := range databases {
		path := h.path(filepath.Join(db, "ifaces", ifaceName))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("open-iscsi's iface %s is in none of %v", ifaceName, databases)
}

// makeRecord makes the static node record of one portal and completes it.
func (i *Initiator) makeRecord(ctx context.Context, h host, l Login, portal string) error {
	err := h.iscsiadm(ctx, "-m", "node", "-T", l.TargetName, "-p", portal, "-I", ifaceName, "-o", "new")
	if err != nil {
		return fmt.Errorf("make the node record for %s: %w", portal, err)
	}
	path, err := i.recordFile(h, l.TargetName, portal)
	if err != nil {
		return err
	}
	// A path that comes under a multipath map gets another one later.
	return i.rewriteRecord(ctx, h, path, i.recordSettings(l, cmp.Or(l.ReplacementTimeout, i.cfg.ReplacementTimeout)))
}

// recordFile finds the record of a portal in either of its layouts.
func (i *Initiator) recordFile(h host, target, portal string) (string, error) {
	ap, err := netip.ParseAddrPort(portal)
	if err != nil {
		return "", fmt.Errorf("portal %q: %w", portal, err)
	}
	name := fmt.Sprintf("%s,%d", ap.Addr(), ap.Port())
	for _, dir := range recordDirs(h, target) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.Name() == name && e.Type().IsRegular() {
				return path, nil
			}
			if strings.HasPrefix(e.Name(), name+",") && e.IsDir() {
				return filepath.Join(path, ifaceName), nil
			}
		}
	}
	return "", fmt.Errorf("open-iscsi's record of %s at %s is in none of %v", target, portal, databases)
}

func recordDirs(h host, target string) []string {
	var dirs []string
	for _, db := range databases {
		dirs = append(dirs, h.path(filepath.Join(db, "nodes", target)))
	}
	return dirs
}

// rewriteRecord completes a record file, under open-iscsi's lock, durably, and
// with the half-made file where open-iscsi takes no file for a record.
func (i *Initiator) rewriteRecord(ctx context.Context, h host, path string, settings []setting) error {
	unlock, err := i.lockRecords(ctx, h)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	record, err := completeRecord(old, settings)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	db := databaseOf(path)
	if err := durable.Sweep(db); err != nil {
		return err
	}
	return durable.WriteFileVia(db, path, record)
}

// databaseOf returns the directory that nodes or ifaces is in.
func databaseOf(path string) string {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if base := filepath.Base(dir); base == "nodes" || base == "ifaces" {
			return filepath.Dir(dir)
		}
	}
	return filepath.Dir(path)
}

// deleteRecords removes a target's records, durably. iscsiadm would leave one
// that it cannot read, which then breaks every later call that lists records.
func (i *Initiator) deleteRecords(ctx context.Context, h host, target string) error {
	if !hasRecords(h, target) {
		return nil
	}
	unlock, err := i.lockRecords(ctx, h)
	if err != nil {
		return err
	}
	defer unlock()
	for _, dir := range recordDirs(h, target) {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

func hasRecords(h host, target string) bool {
	for _, dir := range recordDirs(h, target) {
		if _, err := os.Lstat(dir); err == nil {
			return true
		}
	}
	return false
}
