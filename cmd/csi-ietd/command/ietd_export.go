package command

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/durable"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// ietdExport is a configuration and the devices that it names.
type ietdExport struct {
	path     string
	conf     *ietconf.Config
	stateDir string                     // empty: nothing is kept
	devices  map[string]blockdev.Device // by path: LUNs may share one
}

// newIetdExport opens every device, and says what of the configuration is not
// served as written.
func newIetdExport(path string, conf *ietconf.Config, stateDir string, log klog.Logger) (*ietdExport, error) {
	e := &ietdExport{path: path, conf: conf, stateDir: stateDir, devices: map[string]blockdev.Device{}}
	for _, w := range conf.Warnings {
		log.Info("Configuration warning", "warning", w.Error())
	}
	if conf.ISNSServer != "" {
		log.Info("iSNSServer is not used yet", "config", path)
	}
	for _, t := range conf.Targets {
		if names := unapplied(t); len(names) > 0 {
			log.Info("These directives are not applied yet: the target negotiates its own values",
				"target", t.Name, "directives", strings.Join(names, ","))
		}
		for _, l := range t.LUNs {
			if err := e.open(l); err != nil {
				return nil, errors.Join(e.failed("Lun", l.Line, err), e.closeDevices())
			}
		}
	}
	return e, nil
}

// failed names the line of the configuration that an error comes from.
func (e *ietdExport) failed(directive string, line int, err error) error {
	return fmt.Errorf("%s:%d: %s: %w", e.path, line, directive, err)
}

// open opens a LUN's device where no other LUN has.
func (e *ietdExport) open(l ietconf.LUN) error {
	if l.Type != ietconf.FileIO {
		return fmt.Errorf("%d: Type=%s is not served yet; Type=fileio is", l.Number, l.Type)
	}
	if d := e.devices[l.Path]; d != nil {
		if l.BlockSize != 0 && l.BlockSize != d.BlockSize() {
			return fmt.Errorf("%d: %s is served with BlockSize=%d by another Lun", l.Number, l.Path, d.BlockSize())
		}
		return nil
	}
	d, err := raw.Open(l.Path, raw.Options{ReadOnly: !e.written(l.Path), BlockSize: l.BlockSize, StateFile: e.stateFile(l.Path)})
	if err != nil {
		return fmt.Errorf("%d: %w", l.Number, err)
	}
	e.devices[l.Path] = d
	return nil
}

// stateFile is where the LUN of a path keeps its state, empty for nowhere. LUNs
// that share a path are logical units of their own, and one file cannot hold
// what each of them remembers: they keep nothing.
func (e *ietdExport) stateFile(path string) string {
	if e.stateDir == "" || e.lunsOf(path) > 1 {
		return ""
	}
	return filepath.Join(e.stateDir, stateFileName(path))
}

// stateFileName is a pure function of the path: it must never change, or what
// the disks remember is forgotten.
func stateFileName(path string) string {
	hash := sha256.Sum256([]byte(path))
	return hex.EncodeToString(hash[:16]) + ".json"
}

func (e *ietdExport) lunsOf(path string) (n int) {
	for _, t := range e.conf.Targets {
		for _, l := range t.LUNs {
			if l.Path == path {
				n++
			}
		}
	}
	return n
}

// makeStateDir makes the directory for the state of LUNs; where it cannot be
// written to it says so once and returns none: an ordinary user's target serves
// its disks without.
func makeStateDir(dir string, log klog.Logger) string {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = unix.Access(dir, unix.W_OK|unix.X_OK)
	}
	if err == nil {
		err = syncParents(dir)
	}
	if err != nil {
		log.Info("Nothing is kept across a restart, neither reservations (APTPL) nor mode pages: the directory of --state-dir cannot be used", "dir", dir, "err", err)
		return ""
	}
	return dir
}

// syncParents makes the names of a directory and of those above it stable: one
// that a power cut takes away takes the state along.
func syncParents(dir string) error {
	dir, err := filepath.Abs(dir)
	for err == nil && dir != "/" {
		dir = filepath.Dir(dir)
		err = durable.SyncDir(dir)
	}
	return err
}

// written reports whether any LUN lets initiators write to path.
func (e *ietdExport) written(path string) bool {
	for _, t := range e.conf.Targets {
		for _, l := range t.LUNs {
			if l.Path == path && l.IOMode != ietconf.ReadOnly {
				return true
			}
		}
	}
	return false
}

func (e *ietdExport) luns() (n int) {
	for _, t := range e.conf.Targets {
		n += len(t.LUNs)
	}
	return n
}

// unapplied are the directives of a target that change nothing.
func unapplied(t ietconf.Target) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(t.Parameters)), func(name string) bool {
		return name == "NOPInterval" || name == "NOPTimeout"
	})
}

// seconds is a parameter of a target; 0 is for ever.
func seconds(t ietconf.Target, name string) time.Duration {
	value, ok := t.Parameters[name]
	if !ok {
		value = ietconf.Default(name)
	}
	n, err := strconv.Atoi(value)
	if err != nil || n == 0 {
		return -1 // the parser has numbers alone
	}
	return time.Duration(n) * time.Second
}

func parametersOf(t ietconf.Target) *iscsitarget.SessionParameters {
	p := iscsitarget.DefaultSessionParameters()
	p.NopInterval, p.NopTimeout = seconds(t, "NOPInterval"), seconds(t, "NOPTimeout")
	return &p
}

// addTo adds every target with its LUNs, then its accounts.
func (e *ietdExport) addTo(server *iscsitarget.Server) error {
	for _, t := range e.conf.Targets {
		target, err := server.AddTarget(iscsitarget.TargetConfig{
			Name: t.Name, TargetSettings: iscsitarget.TargetSettings{Alias: t.Alias, MaxSessions: t.MaxSessions, Sessions: parametersOf(t)},
		})
		if err != nil {
			return e.failed("Target", t.Line, err)
		}
		for _, l := range t.LUNs {
			if err := target.AddLUN(l.Number, lunConfig(target.Name(), l, e.devices[l.Path])); err != nil {
				return e.failed("Lun", l.Line, err)
			}
		}
		for _, g := range grantsOf(t.Accounts) {
			if err := target.Permit(g); err != nil {
				return e.failed("Target", t.Line, err)
			}
		}
	}
	return nil
}

// lunConfig is a LUN with the identity that an initiator knows it by: a pure
// function of the configuration, so that a restart changes nothing.
func lunConfig(target string, l ietconf.LUN, d blockdev.Device) iscsitarget.LUNConfig {
	hash := sha256.Sum256(binary.BigEndian.AppendUint16([]byte(target+"\x00"), l.Number))
	derived := hex.EncodeToString(hash[:8])
	c := iscsitarget.LUNConfig{
		Device: d,
		Vendor: "IET", Product: "VIRTUAL-DISK", Revision: "0",
		Serial:     l.ScsiSN,
		NAA:        0x3<<60 | binary.BigEndian.Uint64(hash[:8])>>4, // NAA 3h: locally assigned
		T10ID:      l.ScsiID,
		ReadOnly:   l.IOMode == ietconf.ReadOnly,
		WriteCache: l.IOMode == ietconf.WriteBack,
	}
	if c.Serial == "" {
		c.Serial = derived
	}
	if c.T10ID == "" {
		c.T10ID = derived
	}
	return c
}

// chapOf returns what an initiator may prove; the outgoing account answers
// each of them.
func chapOf(a ietconf.Accounts) (list []iscsitarget.CHAP) {
	for _, in := range a.Incoming {
		c := iscsitarget.CHAP{User: in.User, Secret: in.Password}
		if a.Outgoing != nil {
			c.MutualUser, c.MutualSecret = a.Outgoing.User, a.Outgoing.Password
		}
		list = append(list, c)
	}
	return list
}

// grantsOf admits any initiator with one of the accounts, or without proof
// where there is none.
func grantsOf(a ietconf.Accounts) (grants []iscsitarget.Grant) {
	for _, c := range chapOf(a) {
		grants = append(grants, iscsitarget.Grant{CHAP: &c})
	}
	if len(grants) == 0 {
		return []iscsitarget.Grant{{}}
	}
	return grants
}

// close ends the sessions, then the devices. A device that still has a call
// under way after the time limit is left to the end of the process.
func (e *ietdExport) close(server *iscsitarget.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	return e.closeDevices()
}

func (e *ietdExport) closeDevices() error {
	var errs []error
	for _, d := range e.devices {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
