package initiator

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// fakeHost is a machine for unit tests: a sysfs, /proc and /dev of plain files,
// and programs that change them as the real ones do. iscsid lives in a mount
// namespace of its own, as it does for a containerised plugin.
type fakeHost struct {
	t    *testing.T
	dir  string
	etc  string // iscsid's /etc/iscsi
	size int64  // of the disk, in bytes
	naa  string
	// fail answers for a program in place of the fake one.
	fail func(args []string) error
	// discovered is what a portal's discovery prints; one that is not here
	// refuses connections.
	discovered map[string]string
	// stayUp: logout changes nothing.
	stayUp  bool
	flushed []string
	// open answers who opens a disk.
	open func(path string) error
	// deleted are the SCSI devices that were deleted before their session.
	deleted []string

	mu    sync.Mutex
	calls [][]string
	next  int
}

const iscsidPID = 4711

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	f := &fakeHost{t: t, dir: t.TempDir(), size: 1 << 30, naa: "3123456789abcdef", open: func(string) error { return nil }}
	for _, d := range []string{"dev", "sys/class/iscsi_transport/tcp", "sys/class/iscsi_session", "sys/class/block"} {
		f.mkdir(d)
	}
	f.process("self", "us", "mnt:[1]", "net:[1]")
	f.process(strconv.Itoa(iscsidPID), "iscsid", "mnt:[2]", "net:[1]")
	f.etc = f.mkdir(fmt.Sprintf("proc/%d/root/etc/iscsi", iscsidPID))
	return f
}

func (f *fakeHost) mkdir(elements ...string) string {
	dir := filepath.Join(append([]string{f.dir}, elements...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Error(err)
	}
	return dir
}

func (f *fakeHost) write(path, value string) {
	if err := os.WriteFile(filepath.Join(f.dir, path), []byte(value), 0o600); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeHost) remove(path string) {
	if err := os.RemoveAll(filepath.Join(f.dir, path)); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeHost) process(pid, comm, mnt, netns string) {
	f.mkdir("proc", pid, "ns")
	f.write("proc/"+pid+"/comm", comm+"\n")
	for name, target := range map[string]string{"mnt": mnt, "net": netns} {
		if err := os.Symlink(target, filepath.Join(f.dir, "proc", pid, "ns", name)); err != nil {
			f.t.Error(err)
		}
	}
}

func (f *fakeHost) initiator() *Initiator {
	return New(Config{
		InitiatorName: testInitiator, Runner: f, Logger: slog.New(slog.DiscardHandler),
		Sysfs: filepath.Join(f.dir, "sys"), Proc: filepath.Join(f.dir, "proc"), Dev: filepath.Join(f.dir, "dev"),
		Flush: func(path string) error { f.flushed = append(f.flushed, path); return nil },
		Open:  func(path string) error { return f.open(path) },
	})
}

// Run implements child.Runner.
func (f *fakeHost) Run(ctx context.Context, name string, args ...string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	args = append([]string{name}, args...)
	f.calls = append(f.calls, args)
	if i := slices.Index(args, "--"); args[0] == "nsenter" && i > 0 {
		args = args[i+1:]
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if f.fail != nil {
		if err := f.fail(args); err != nil {
			return "", err
		}
	}
	if slices.Contains(args, "discovery") {
		return f.discover(args[slices.Index(args, "-p")+1])
	}
	return "", f.run(args)
}

func (f *fakeHost) discover(portal string) (string, error) {
	out, answers := f.discovered[portal]
	switch {
	case !answers:
		return "", exit(exitTransport)
	case out == "":
		return "", &child.ExitError{Name: "iscsiadm", Code: exitNoObjects, Stderr: "iscsiadm: No portals found\n"}
	}
	return out, nil
}

func (f *fakeHost) run(args []string) error {
	has := func(s string) bool { return slices.Contains(args, s) }
	after := func(s string) string {
		if i := slices.Index(args, s); i >= 0 {
			return args[i+1]
		}
		return ""
	}
	switch {
	case args[0] != "iscsiadm":
		return nil
	case has("iface"):
		return f.copy("testdata/iface-2.1.8", "ifaces", ifaceName)
	case has("new"):
		return f.copy("testdata/node-2.1.8", "nodes", after("-T"), strings.ReplaceAll(after("-p"), ":", ","))
	case has("--login"):
		return f.login(after("-T"), after("-p"))
	case has("--logout"):
		return f.logout(after("-T"), after("-r"))
	}
	return nil
}

func exit(code int) error { return &child.ExitError{Name: "iscsiadm", Code: code} }

func (f *fakeHost) copy(from string, to ...string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	path := filepath.Join(append([]string{f.etc}, to...)...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// login makes a session from what the record says.
func (f *fakeHost) login(target, portal string) error {
	record, err := os.ReadFile(filepath.Join(f.etc, "nodes", target, strings.ReplaceAll(portal, ":", ",")))
	if err != nil {
		return exit(exitNoObjects)
	}
	value := func(key string) string {
		_, rest, _ := strings.Cut(string(record), "\n"+key+" = ")
		v, _, _ := strings.Cut(rest, "\n")
		return v
	}
	f.addSession(target, value("iface.initiatorname"), value("node.session.auth.username"), loggedIn)
	return nil
}

// addSession adds a session with one disk at LUN 0.
func (f *fakeHost) addSession(target, initiator, username, state string) (id string) {
	n := f.next
	f.next++
	id = strconv.Itoa(n + 1)
	dir := "sys/class/iscsi_session/session" + id
	lun := fmt.Sprintf("%s/device/target%d:0:0/%d:0:0:0", dir, n, n)
	disk := "sd" + string(rune('a'+n))
	f.mkdir(lun, "block", disk)
	for name, v := range map[string]string{
		"targetname": target, "initiatorname": initiator, "username": username, "state": state, "recovery_tmo": "9", // one digit: a plain file is not truncated
	} {
		f.write(dir+"/"+name, v+"\n")
	}
	f.write(lun+"/vpd_pg83", string(vpd83(f.t, f.naa)))
	for _, name := range []string{"delete", "rescan"} {
		f.write(lun+"/"+name, "")
	}
	f.addBlock(disk, 8, uint32(16*n), f.size)
	return id
}

func (f *fakeHost) addBlock(name string, major, minor uint32, size int64) {
	f.mkdir("sys/class/block", name, "holders")
	f.write("sys/class/block/"+name+"/dev", fmt.Sprintf("%d:%d\n", major, minor))
	f.write("sys/class/block/"+name+"/size", fmt.Sprintf("%d\n", size/512))
	node := filepath.Join(f.dir, "dev", name)
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		f.t.Errorf("these tests make device nodes and run as root: %v", err)
	}
}

func (f *fakeHost) logout(target, id string) error {
	found := false
	sessions, err := sysfs{root: filepath.Join(f.dir, "sys")}.sessions(or(target, testTarget))
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if id != "" && s.id != id || f.stayUp {
			continue
		}
		found = true
		gone, _ := filepath.Glob(filepath.Join(s.dir, "device/target*/*/delete"))
		for _, path := range gone {
			if b, _ := os.ReadFile(path); len(b) > 0 {
				f.deleted = append(f.deleted, filepath.Base(filepath.Dir(path)))
			}
		}
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
	}
	if !found {
		return exit(exitNoObjects)
	}
	return nil
}

// vpd83 is a page with a T10 designator before the NAA one.
func vpd83(t *testing.T, naa string) []byte {
	t.Helper()
	var raw []byte
	if _, err := fmt.Sscanf(naa, "%x", &raw); err != nil {
		t.Error(err)
	}
	t10 := append([]byte{2, 1, 0, 12}, "CSI-IETDabcd"...)
	body := append(t10, append([]byte{1, 3, 0, byte(len(raw))}, raw...)...)
	return append([]byte{0, 0x83, 0, byte(len(body))}, body...)
}

// called returns the commands whose words include all of those given.
func (f *fakeHost) called(words ...string) [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found [][]string
	for _, call := range f.calls {
		if !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(call, w) }) {
			found = append(found, call)
		}
	}
	return found
}

func (f *fakeHost) attribute(path string) string {
	b, err := os.ReadFile(filepath.Join(f.dir, path))
	if err != nil {
		f.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// portal is a listener that takes TCP connections, as a target's does.
func portal(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// deadPortal is an address that refuses connections.
func deadPortal(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
