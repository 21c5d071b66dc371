package initiator

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sysfs reads what the kernel tells of iSCSI sessions and their disks.
type sysfs struct{ root, dev string }

// session is one of the kernel's iSCSI sessions. Fields that the kernel gave
// no value for are empty.
type session struct {
	// id is the number in its name, as iscsiadm -r wants it.
	id                                 string
	target, initiator, username, state string
	// dir is the session's directory under class/iscsi_session.
	dir string
}

// The states of a session: up; lost, with I/O that waits; lost for longer than
// its recovery_tmo, so that I/O fails.
const (
	loggedIn = "LOGGED_IN"
	recovers = "FAILED"
	free     = "FREE"
)

// maxAttribute bounds what is read of one attribute; a VPD page is the largest.
const maxAttribute = 64 << 10

// sessions returns the sessions to a target, whoever made them.
func (s sysfs) sessions(target string) ([]session, error) {
	return s.sessionsIf(func(name string) bool { return name == target })
}

// allSessions returns the sessions of this machine, whoever made them.
func (s sysfs) allSessions() ([]session, error) {
	return s.sessionsIf(func(name string) bool { return name != "" })
}

func (s sysfs) sessionsIf(wanted func(target string) bool) ([]session, error) {
	class := filepath.Join(s.root, "class/iscsi_session")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the module is not loaded
	}
	if err != nil {
		return nil, err
	}
	var found []session
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		// A session may end while we look: then it has no target any more.
		if name, err := attribute(dir, "targetname"); err == nil && wanted(name) {
			found = append(found, readSession(dir, name))
		}
	}
	return found, nil
}

func readSession(dir, target string) session {
	get := func(name string) string {
		v, err := attribute(dir, name)
		if err != nil || v == "(null)" || v == "<NULL>" {
			return ""
		}
		return v
	}
	return session{
		id: strings.TrimPrefix(filepath.Base(dir), "session"), dir: dir, target: target,
		initiator: get("initiatorname"), username: get("username"), state: get("state"),
	}
}

// attribute reads one attribute, without the newline at its end.
func attribute(dir, name string) (string, error) {
	b, err := rawAttribute(dir, name)
	return strings.TrimSpace(string(b)), err
}

func rawAttribute(dir, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxAttribute))
}

// write writes one attribute. It may block for as long as the kernel talks to
// the target: call it through child.Do.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// scsiDevice is a logical unit of a session.
type scsiDevice struct {
	// dir is its directory, with vpd_pg83, delete and rescan.
	dir string
	// disk is the name of its block device, such as sda; empty before the
	// disk driver has taken it.
	disk string
	lun  uint64
	// session is the id of the session that it belongs to.
	session string
}

// devices returns the logical units of a session.
func (s sysfs) devices(ses session) ([]scsiDevice, error) {
	// Directories are named host:channel:target:lun.
	dirs, err := filepath.Glob(filepath.Join(ses.dir, "device/target*/*:*:*:*"))
	if err != nil {
		return nil, err
	}
	var found []scsiDevice
	for _, dir := range dirs {
		name := filepath.Base(dir)
		lun, err := strconv.ParseUint(name[strings.LastIndexByte(name, ':')+1:], 10, 64)
		if err != nil {
			continue
		}
		d := scsiDevice{dir: dir, lun: lun, session: ses.id}
		if blocks, err := os.ReadDir(filepath.Join(dir, "block")); err == nil && len(blocks) == 1 {
			d.disk = blocks[0].Name()
		}
		found = append(found, d)
	}
	return found, nil
}

// naaOf returns the NAA designator of the logical unit in 16 or 32 lower-case
// hexadecimal digits (SPC-5 7.7.6.6).
func naaOf(d scsiDevice) (string, error) {
	page, err := rawAttribute(d.dir, "vpd_pg83")
	if err != nil {
		return "", fmt.Errorf("read VPD page 83h: %w", err)
	}
	if len(page) < 4 || page[1] != 0x83 {
		return "", errors.New("VPD page 83h is malformed")
	}
	page = page[4:]
	for len(page) >= 4 {
		n := int(page[3])
		if len(page) < 4+n {
			break
		}
		const naaType, ofLogicalUnit = 3, 0
		if page[1]&0x0f == naaType && page[1]>>4&3 == ofLogicalUnit {
			return fmt.Sprintf("%x", page[4:4+n]), nil
		}
		page = page[4+n:]
	}
	return "", errors.New("VPD page 83h has no NAA designator")
}

// blockDevice reads a block device's number and size in bytes.
func (s sysfs) blockDevice(name string) (number string, size int64, err error) {
	dir := filepath.Join(s.root, "class/block", name)
	if number, err = attribute(dir, "dev"); err != nil {
		return "", 0, err
	}
	sectors, err := attribute(dir, "size")
	if err != nil {
		return "", 0, err
	}
	// The attribute counts 512-byte sectors whatever the block size.
	n, err := strconv.ParseInt(sectors, 10, 64)
	return number, n * 512, err
}

// mapOver returns the multipath map that holds a disk, such as dm-0, or "".
// Any other holder is an error: the disk is not ours to use.
func (s sysfs) mapOver(disk string) (string, error) {
	holders, err := os.ReadDir(filepath.Join(s.root, "class/block", disk, "holders"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(holders) == 0 {
		return "", nil
	}
	name := holders[0].Name()
	uuid, _ := attribute(filepath.Join(s.root, "class/block", name), "dm/uuid")
	if len(holders) > 1 || !strings.HasPrefix(uuid, "mpath-") {
		return "", fmt.Errorf("%w: %s is held by %s, which is no multipath map", ErrWrongDevice, disk, name)
	}
	return name, nil
}
