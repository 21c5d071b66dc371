package kernel

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// daemonRig is ietd as an administrator has it: in the background of a machine of its
// own, with its files in their places, and open-iscsi on another.
type daemonRig struct {
	storage, host *lab.Guest
	binary        string
}

// install puts ietd, and files for its disks, where it has had its power.
func (r *daemonRig) install(t *testing.T) {
	t.Helper()
	r.on(t, `
		for name in ietd ietadm; do ln -s `+r.binary+` /usr/local/sbin/$name; done
		mkdir -p /etc/iet /var/lib/csi-ietd
		ip addr add 10.77.0.111/24 dev $(ip -o addr show to `+r.storage.Storage+` | awk '{print $2; exit}')
		for name in a b c; do truncate -s 64M /var/lib/csi-ietd/$name.img; done`)
}

const (
	daemonDisk  = "iqn.2026-11.io.csi-ietd.lab:daemon"
	daemonOther = "iqn.2026-11.io.csi-ietd.lab:other"
	hostName    = "iqn.2026-11.io.csi-ietd.lab:host"
)

// TestIetd: an administrator's day. Each part leaves the configuration as it was.
func TestIetd(t *testing.T) {
	l := newPlainLab(t)
	guests, err := l.BootAll(t.Context(),
		lab.GuestConfig{Name: "storage", State: 1 << 30, Disks: []int64{128 << 20}}, lab.GuestConfig{Name: "host"})
	must(t, err)
	r := &daemonRig{storage: guests[0], host: guests[1]}
	r.binary, err = l.Binary(r.storage.Machine, lab.Driver)
	must(t, err)
	r.install(t)
	r.configure(t, "", daemonConf)
	r.on(t, "ietd")
	shell(t, r.host.Machine, `
		iscsiadm -m iface -I lab --op new >/dev/null
		iscsiadm -m iface -I lab --op update -n iface.initiatorname -v `+hostName+` >/dev/null`)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *daemonRig)
	}{
		{"start", testDaemonStart}, {"modes", testModes}, {"blockio", testBlockIO}, {"null", testNull}, {"names", testOldNames},
		{"access", testAccessFiles}, {"chap", testDaemonCHAP}, {"redirect", testRedirect}, {"maxsessions", testDaemonMaxSessions},
		{"hangup", testHangup}, {"admin", testIetadm}, {"status", testStatusFiles}, {"rights", testRights}, {"isns", testISNS},
		{"digests", testDaemonDigests}, {"isnsaccess", testISNSAccess}, {"document", testDocument}, {"power", testDaemonPower},
	} {
		t.Run(part.name, func(t *testing.T) {
			part.run(t, r)
			r.configure(t, "", daemonConf)
			r.reload(t)
		})
	}
	// The last word: it ends in order, and nothing is left.
	r.on(t, `kill $(cat /run/ietd.pid)`)
	waitFor(t, r.storage.Machine, lateness, "ietd's end", `! pgrep -x ietd`)
	r.on(t, `! test -e /run/ietd.pid && ! test -e /run/csi-ietd/ietadm.sock && ! ss -Hltn sport = :3260 | grep -q .`)
}

// lateness is how long what takes no time may take on a busy machine.
const lateness = 30 * time.Second

const daemonConf = `
Target ` + daemonDisk + `
	Lun 0 Path=/var/lib/csi-ietd/a.img,Type=fileio,IOMode=wt,ScsiId=disk-a,ScsiSN=SERIAL-A
Target ` + daemonOther + `
	Lun 0 Path=/var/lib/csi-ietd/b.img,IOMode=wb
`

// on runs a script on the storage machine.
func (r *daemonRig) on(t *testing.T, script string) string {
	t.Helper()
	return shell(t, r.storage.Machine, script)
}

// configure writes ietd.conf: global directives, and the stanzas.
func (r *daemonRig) configure(t *testing.T, global, stanzas string) {
	t.Helper()
	must(t, r.storage.WriteFile(t.Context(), "/etc/iet/ietd.conf", []byte(global+stanzas), 0o600))
}

// reload has ietd read its configuration, and returns when it has.
func (r *daemonRig) reload(t *testing.T) {
	t.Helper()
	r.on(t, `rm -f /etc/iet/*.allow /etc/iet/*.deny; kill -HUP $(cat /run/ietd.pid)`)
	waitFor(t, r.storage.Machine, lateness, "the configuration", `
		test "$(ietadm --op show | grep -c .)" = "$(ietd --check | grep -cE '^(Target|[[:space:]]+Lun) ')"`)
}

// node is iscsiadm on a record of a target.
func (r *daemonRig) node(target string) string {
	return "iscsiadm -m node -T " + target + " -p " + r.storage.Storage + " -I lab"
}

// discover is what SendTargets says, by the portal asked.
func (r *daemonRig) discover(t *testing.T, portal string, settings ...setting) (out string, err error) {
	t.Helper()
	script := "iscsiadm -m discoverydb -t st -p " + portal + " -I lab --op new >/dev/null\n"
	for _, s := range settings {
		script += fmt.Sprintf("iscsiadm -m discoverydb -t st -p %s -I lab --op update -n %s -v %s\n", portal, s.name, s.value)
	}
	return r.host.Shell(t.Context(), script+"iscsiadm -m discoverydb -t st -p "+portal+" -I lab --discover 2>&1 && s=0 || s=$?; iscsiadm -m discoverydb -t st -p "+portal+" --op delete >/dev/null 2>&1 || true; iscsiadm -m node --op delete >/dev/null 2>&1 || true; exit $s")
}

// login logs the host in and returns the disk's name.
func (r *daemonRig) login(t *testing.T, target string, settings ...setting) (disk string) {
	t.Helper()
	out, err := r.tryLogin(t, target, settings...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { // unless the test has
		_, _ = r.host.Shell(context.WithoutCancel(t.Context()), r.node(target)+" --logout; "+r.node(target)+" --op delete")
	})
	return "/dev/disk/by-path/ip-" + r.storage.Storage + ":3260-iscsi-" + target + "-lun-0"
}

func (r *daemonRig) tryLogin(t *testing.T, target string, settings ...setting) (string, error) {
	t.Helper()
	script := r.node(target) + " --op new >/dev/null\n"
	for _, s := range append([]setting{{"node.session.initial_login_retry_max", "1"}, {"node.session.timeo.replacement_timeout", "30"}}, settings...) {
		script += fmt.Sprintf("%s --op update -n %s -v %s\n", r.node(target), s.name, s.value)
	}
	return r.host.Shell(t.Context(), script+r.node(target)+" --login 2>&1 && udevadm settle || { "+r.node(target)+" --op delete; exit 1; }")
}

// refused wants the host's login to fail.
func (r *daemonRig) refused(t *testing.T, target string, settings ...setting) {
	t.Helper()
	if out, err := r.tryLogin(t, target, settings...); err == nil {
		r.logout(t, target)
		t.Errorf("%s took a login that it should not have: %s", target, out)
	}
}

func (r *daemonRig) logout(t *testing.T, target string) {
	t.Helper()
	shell(t, r.host.Machine, r.node(target)+" --logout >/dev/null; "+r.node(target)+" --op delete")
}

// testDaemonStart: what is wrong is said on the terminal, with the status of a start
// that failed, and harms no daemon that runs.
func testDaemonStart(t *testing.T, r *daemonRig) {
	r.on(t, "mkdir -p /tmp/dir; echo 'Target iqn.x' >/tmp/good.conf; echo 'Taget iqn.x' >/tmp/broken.conf")
	for name, tt := range map[string]struct {
		command string
		status  int
		words   []string
	}{
		"a second one":      {"ietd", 255, []string{"pid file", "another ietd runs"}},
		"a port in use":     {"ietd --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"unable to bind server socket", "address already in use"}},
		"a broken line":     {"ietd -c /tmp/broken.conf -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"/tmp/broken.conf:1", "Taget"}},
		"no file":           {"ietd -c /tmp/none.conf -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"/tmp/none.conf"}},
		"no such user":      {"ietd -c /tmp/good.conf -u nobody-at-all -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"no such user"}},
		"a user who cannot": {"ietd -u nobody -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"/etc/iet/ietd.conf", "permission denied"}},
		"a wrong option":    {"ietd --prot 1", 1, []string{"--prot"}},
		"a missing path":    {"echo 'Target iqn.x\n Lun 0 Path=/none' >/tmp/y.conf; ietd -c /tmp/y.conf -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"/tmp/y.conf:2", "/none"}},
		"a directory":       {"echo 'Target iqn.x\n Lun 0 Path=/tmp/dir' >/tmp/y.conf; ietd -c /tmp/y.conf -p 3261 --pid-file /tmp/x.pid --socket /tmp/x.sock", 255, []string{"/tmp/y.conf:2", "/tmp/dir"}},
	} {
		out := r.on(t, "("+tt.command+") 2>&1 && s=0 || s=$?; echo status $s")
		if !strings.HasSuffix(strings.TrimSpace(out), fmt.Sprint("status ", tt.status)) {
			t.Errorf("%s: %s, want status %d", name, out, tt.status)
		}
		for _, w := range tt.words {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q does not say %q", name, out, w)
			}
		}
	}
	r.on(t, `test "$(pgrep -xc ietd)" = 1 && test "$(cat /run/ietd.pid)" = "$(pgrep -x ietd)"`)
}

// testModes: ro refuses, wb and wt say whether there is a cache to flush.
func testModes(t *testing.T, r *daemonRig) {
	cache := func(disk string) string {
		return strings.TrimSpace(shell(t, r.host.Machine, "cat /sys/block/$(basename $(readlink -f "+disk+"))/device/scsi_disk/*/cache_type"))
	}
	if got := cache(r.login(t, daemonDisk)); got != "write through" {
		t.Errorf("IOMode=wt: %s", got)
	}
	if got := cache(r.login(t, daemonOther)); got != "write back" {
		t.Errorf("IOMode=wb: %s", got)
	}
	r.logout(t, daemonDisk)
	r.configure(t, "", strings.Replace(daemonConf, "IOMode=wt", "IOMode=ro", 1))
	r.reload(t)
	disk := r.login(t, daemonDisk)
	shell(t, r.host.Machine, "test $(blockdev --getro "+disk+") = 1; ! dd if=/dev/zero of="+disk+" count=1 oflag=direct 2>/dev/null")
}

// testBlockIO serves real block devices past the page cache, a disk and a loop device: what
// the host wrote is on the device, and no page of it was kept.
func testBlockIO(t *testing.T, r *daemonRig) {
	loop := strings.TrimSpace(r.on(t, "modprobe loop; losetup --find --show /var/lib/csi-ietd/c.img"))
	for _, device := range []string{"/dev/ubdb", loop} {
		r.configure(t, "", "Target "+daemonDisk+"\n\tLun 0 Path="+device+",Type=blockio\n")
		r.reload(t)
		disk := r.login(t, daemonDisk)
		shell(t, r.host.Machine, "dd if=/dev/urandom of=/tmp/x bs=1M count=8 2>/dev/null; dd if=/tmp/x of="+disk+" bs=1M oflag=direct 2>/dev/null")
		sum := shell(t, r.host.Machine, "sha256sum </tmp/x")
		if got := r.on(t, "dd if="+device+" bs=1M count=8 iflag=direct 2>/dev/null | sha256sum"); got != sum {
			t.Errorf("on %s: %s, written: %s", device, got, sum)
		}
		if got := shell(t, r.host.Machine, "dd if="+disk+" bs=1M count=8 iflag=direct 2>/dev/null | sha256sum"); got != sum {
			t.Errorf("read back from %s: %s, written: %s", device, got, sum)
		}
		r.logout(t, daemonDisk)
	}
	r.configure(t, "", daemonConf)
	r.reload(t)
	r.on(t, "losetup --detach "+loop)
}

// testNull: writes vanish, and reads are zeros.
func testNull(t *testing.T, r *daemonRig) {
	r.configure(t, "", "Target "+daemonDisk+"\n\tLun 0 Type=nullio,Blocks=65536\n")
	r.reload(t)
	disk := r.login(t, daemonDisk)
	shell(t, r.host.Machine, "test $(blockdev --getsize64 "+disk+") = 33554432; dd if=/dev/urandom of="+disk+" bs=1M count=8 oflag=direct 2>/dev/null; cmp -n 33554432 "+disk+" /dev/zero")
	r.logout(t, daemonDisk)
}

// testOldNames: the host sees the disk that the old target showed: udev's name for it is 1
// and the T10 designator, IET with zeros behind it and the 16 bytes of ScsiId.
func testOldNames(t *testing.T, r *daemonRig) {
	disk := r.login(t, daemonDisk)
	out := shell(t, r.host.Machine, "/lib/udev/scsi_id -g -x -d "+disk+"; sg_vpd -p di_lu "+disk+"; sg_vpd -p sn "+disk+"; sg_inq "+disk)
	for _, want := range []string{"ID_VENDOR=IET", "ID_MODEL=VIRTUAL-DISK", "ID_SERIAL=149455400000000006469736b2d6100000000000000000000\n", "Unit serial number:         SERIAL-A"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "Designation descriptor"); n > 1 {
		t.Errorf("%d designators of the unit:\n%s", n, out)
	}
}

// testAccessFiles: who may see what, decided anew each time.
func testAccessFiles(t *testing.T, r *daemonRig) {
	for name, tt := range map[string]struct {
		allow, deny, targets string
		disk, other          bool // may be logged in to
	}{
		"no files":                  {disk: true, other: true},
		"denied by name":            {deny: daemonDisk + " " + strings.ReplaceAll(hostName, ".", `\.`) + "\n", other: true},
		"denied by address":         {deny: daemonDisk + " " + r.host.Storage + "\n", other: true},
		"denied by network":         {deny: "ALL 10.77.0.0/24\n"},
		"denied, allowed by name":   {deny: "ALL ALL\n", allow: daemonOther + " iqn\\.2026-11\\..*:host\n", other: true},
		"allowed by another's name": {allow: "ALL iqn\\.somebody\n"},
		"no line's end":             {deny: daemonDisk + " ALL", other: true},
		"a portal":                  {targets: daemonDisk + " 10.77.0.111\nALL ALL\n", other: true},
		"a file that is broken":     {allow: "ALL 10.77.0.0/99\n"},
	} {
		for file, text := range map[string]string{"initiators.allow": tt.allow, "initiators.deny": tt.deny, "targets.allow": tt.targets} {
			r.on(t, "rm -f /etc/iet/"+file)
			if text != "" {
				must(t, r.storage.WriteFile(t.Context(), "/etc/iet/"+file, []byte(text), 0o600))
			}
		}
		seen, _ := r.discover(t, r.storage.Storage) // no targets are an error
		for target, may := range map[string]bool{daemonDisk: tt.disk, daemonOther: tt.other} {
			if strings.Contains(seen, target) != may {
				t.Errorf("%s: %s is to be seen: %v\n%s", name, target, may, seen)
			}
			if out, err := r.tryLogin(t, target); (err == nil) != may {
				t.Errorf("%s: login to %s: %v %s, may: %v", name, target, err, out, may)
			} else if err == nil {
				r.logout(t, target)
			}
		}
	}
	r.on(t, "rm -f /etc/iet/*.allow /etc/iet/*.deny; echo '"+daemonDisk+" 10.77.0.111' >/etc/iet/targets.allow")
	if seen, err := r.discover(t, "10.77.0.111"); err != nil || !strings.Contains(seen, "10.77.0.111:3260,1 "+daemonDisk) || strings.Contains(seen, r.storage.Storage+":3260,1 "+daemonDisk) {
		t.Errorf("at the other portal: %s, %v", seen, err)
	}
}

func chapSettings(prefix, user, secret, in, inSecret string) []setting {
	list := []setting{{prefix + ".auth.authmethod", "CHAP"}, {prefix + ".auth.username", user}, {prefix + ".auth.password", secret}}
	if in != "" {
		list = append(list, setting{prefix + ".auth.username_in", in}, setting{prefix + ".auth.password_in", inSecret})
	}
	return list
}

// testDaemonCHAP: one way, mutual, and in discovery.
func testDaemonCHAP(t *testing.T, r *daemonRig) {
	const joe, disk, seeker = "secret-of-joe-1", "secret-of-disk-1", "secret-of-seeker"
	r.configure(t, "IncomingUser seeker "+seeker+"\n", strings.Replace(daemonConf, "\tLun 0", "\tIncomingUser joe "+joe+"\n\tOutgoingUser disk "+disk+"\n\tLun 0", 1))
	r.reload(t)
	r.refused(t, daemonDisk)
	r.refused(t, daemonDisk, chapSettings("node.session", "joe", "wrong-secret-12", "", "")...)
	r.refused(t, daemonDisk, chapSettings("node.session", "joe", joe, "disk", "wrong-secret-12")...)
	for _, settings := range [][]setting{chapSettings("node.session", "joe", joe, "", ""), chapSettings("node.session", "joe", joe, "disk", disk)} {
		r.login(t, daemonDisk, settings...)
		r.logout(t, daemonDisk)
	}
	if out, err := r.discover(t, r.storage.Storage); err == nil {
		t.Errorf("discovery without proof: %s", out)
	}
	if out, err := r.discover(t, r.storage.Storage, chapSettings("discovery.sendtargets", "seeker", seeker, "", "")...); err != nil || !strings.Contains(out, daemonOther) {
		t.Errorf("discovery: %v %s", err, out)
	}
	r.on(t, `! grep -rF secret-of /run/csi-ietd /var/lib/csi-ietd/ietd 2>/dev/null`)
}

// testRedirect sends logins to another target of that name.
func testRedirect(t *testing.T, r *daemonRig) {
	r.on(t, `
		printf 'Target `+daemonDisk+`\n Lun 0 Type=nullio\n' >/tmp/r.conf
		ietd -c /tmp/r.conf -p 3263 --socket /tmp/r.sock --pid-file /tmp/r.pid --state-dir /tmp/r.state
		ietadm --op update --tid=1 --redirect=`+r.storage.Storage+`:3263`)
	r.login(t, daemonDisk)
	r.on(t, `ietadm --socket /tmp/r.sock --op show --proc session | grep -q `+hostName+`
		! ietadm --op show --proc session | grep -q `+hostName+`
		ietadm --op update --tid=1 --redirect=`)
	r.logout(t, daemonDisk)
	r.login(t, daemonDisk)
	r.on(t, "ietadm --op show --proc session | grep -q "+hostName+"; kill $(cat /tmp/r.pid)")
	waitFor(t, r.storage.Machine, lateness, "the other's end", "! test -e /tmp/r.pid")
}

func testDaemonMaxSessions(t *testing.T, r *daemonRig) {
	r.on(t, "ietadm --op update --tid=1 --params MaxSessions=1")
	r.login(t, daemonDisk)
	shell(t, r.host.Machine, "iscsiadm -m iface -I second --op new >/dev/null; iscsiadm -m iface -I second --op update -n iface.initiatorname -v "+hostName+"2 >/dev/null; n='iscsiadm -m node -T "+daemonDisk+" -p "+r.storage.Storage+" -I second'; $n --op new >/dev/null; $n --op update -n node.session.initial_login_retry_max -v 1; ! $n --login; $n --op delete")
}

// under has the host write and verify while f changes things, and wants no error.
func (r *daemonRig) under(t *testing.T, disk string, f func()) {
	t.Helper()
	shell(t, r.host.Machine, "rm -f /tmp/stop; (set -e; i=0; while ! test -e /tmp/stop; do dd if=/dev/urandom of=/tmp/b bs=64k count=4 2>/dev/null; dd if=/tmp/b of="+disk+" bs=64k seek=$((i % 64 * 4)) oflag=direct 2>/dev/null; dd if="+disk+" bs=64k skip=$((i % 64 * 4)) count=4 iflag=direct 2>/dev/null | cmp - /tmp/b; i=$((i + 1)); echo $i >/tmp/turns; done; echo ended >/tmp/ended) >/tmp/io.log 2>&1 &\nrm -f /tmp/ended /tmp/turns")
	turns := "test $(cat /tmp/turns 2>/dev/null || echo 0) -gt "
	waitFor(t, r.host.Machine, lateness, "I/O", turns+"3")
	f()
	before := strings.TrimSpace(shell(t, r.host.Machine, "cat /tmp/turns"))
	waitFor(t, r.host.Machine, lateness, "I/O to go on", turns+"$(("+before+" + 3))")
	shell(t, r.host.Machine, "touch /tmp/stop")
	waitFor(t, r.host.Machine, lateness, "I/O to end without an error", "test -e /tmp/ended")
	shell(t, r.host.Machine, "cat /tmp/io.log >&2; ! test -s /tmp/io.log")
}

// testHangup: another configuration under I/O, and a broken one.
func testHangup(t *testing.T, r *daemonRig) {
	disk := r.login(t, daemonDisk)
	session := r.on(t, "ietadm --op show --proc session | grep sid: | awk '{print $1}'")
	r.under(t, disk, func() {
		r.configure(t, "", daemonConf+"\tLun 3 Path=/var/lib/csi-ietd/c.img\n")
		r.reload(t)
		must(t, r.storage.WriteFile(t.Context(), "/etc/iet/ietd.conf", []byte("Target "+daemonDisk+"\n\tLun nonsense\n"), 0o600))
		r.on(t, "kill -HUP $(cat /run/ietd.pid)")
		r.configure(t, "", daemonConf)
		r.reload(t)
	})
	if now := r.on(t, "ietadm --op show --proc session | grep sid: | awk '{print $1}'"); now != session {
		t.Errorf("session %s, was %s", now, session)
	}
}

// testIetadm: units and targets come and go under I/O, and are saved.
func testIetadm(t *testing.T, r *daemonRig) {
	disk := r.login(t, daemonDisk)
	r.under(t, disk, func() {
		r.on(t, `ietadm --op new --tid=1 --lun=1 --params Path=/var/lib/csi-ietd/c.img,Type=fileio`)
		shell(t, r.host.Machine, "iscsiadm -m session --rescan >/dev/null; udevadm settle; test -e "+strings.TrimSuffix(disk, "0")+"1")
		r.on(t, `ietadm --op update --tid=1 --lun=1 --params IOMode=ro
			ietadm --op delete --tid=1 --lun=1
			ietadm --op new --tid=0 --params Name=iqn.2026-11.io.csi-ietd.lab:new
			ietadm --op new --tid=3 --lun=0 --params Path=/var/lib/csi-ietd/c.img
			ietadm --op show | grep -q 'tid:3 name:iqn.2026-11.io.csi-ietd.lab:new'
			ietadm --op save
			ietd --check | grep -q lab:new
			ietadm --op delete --tid=3
			ietadm --op delete --tid=1 || test $? = 240`)
	})
	r.on(t, `test "$(ietadm --op show --json --proc session | grep -o '"initiator":"[^"]*"')" = '"initiator":"`+hostName+`"'
		ietadm --op show --tid=9 || test $? = 254
		ietadm --op nonsense || test $? = 255`)
}

// testStatusFiles: a second daemon, of an ordinary user, in the foreground, with files
// that say what the old target said in /proc.
func testStatusFiles(t *testing.T, r *daemonRig) {
	r.on(t, `
		mkdir -p /tmp/own && truncate -s 8M /tmp/own/disk.img
		printf 'Target iqn.2026-11.io.csi-ietd.lab:own\n Lun 0 Path=/tmp/own/disk.img\n' >/tmp/own/ietd.conf
		chown -R nobody /tmp/own
		setpriv --reuid=nobody --clear-groups ietd -f -c /tmp/own/ietd.conf -p 3262 --socket /tmp/own/s --state-dir /tmp/own/state --status-dir /tmp/own/status >/tmp/own/log 2>&1 &
		echo $! >/tmp/own/pid`)
	waitFor(t, r.storage.Machine, lateness, "the status", "grep -q 'lun:0 state:0 iotype:fileio iomode:wt blocks:16384 blocksize:512 path:/tmp/own/disk.img' /tmp/own/status/volume")
	r.on(t, "cat /tmp/own/status/session; ietadm --socket /tmp/own/s --op show >/dev/null; kill $(cat /tmp/own/pid)")
	waitFor(t, r.storage.Machine, lateness, "its end", "! kill -0 $(cat /tmp/own/pid) 2>/dev/null")
}

// testRights: a daemon that gave root up serves, reads its configuration again, and
// answers the members of its group.
func testRights(t *testing.T, r *daemonRig) {
	const target = "iqn.2026-11.io.csi-ietd.lab:rights"
	r.on(t, `
		mkdir /tmp/rights && truncate -s 8M /tmp/rights/a.img /tmp/rights/b.img && chown -R nobody:nogroup /tmp/rights
		printf 'Target `+target+`\n Lun 0 Path=/tmp/rights/a.img\n' >/tmp/rights/ietd.conf
		ietd -c /tmp/rights/ietd.conf -u nobody -g nogroup -p 3264 --pid-file /tmp/rights/pid --socket /tmp/rights/s --state-dir /tmp/rights/state
		test "$(ps -o user=,group= -p $(cat /tmp/rights/pid) | xargs)" = "nobody nogroup"
		grep -q '^CapEff:[[:space:]]*0*$' /proc/$(cat /tmp/rights/pid)/status
		printf ' Lun 1 Path=/tmp/rights/b.img\n' >>/tmp/rights/ietd.conf
		kill -HUP $(cat /tmp/rights/pid)`)
	waitFor(t, r.storage.Machine, lateness, "another LUN", "ietadm --socket /tmp/rights/s --op show | grep -q lun:1")
	r.on(t, `
		setpriv --reuid=4321 --regid=4321 --groups=nogroup ietadm --socket /tmp/rights/s --op delete --tid=1 --lun=1
		setpriv --reuid=4321 --regid=4321 --clear-groups ietadm --socket /tmp/rights/s --op show || test $? = 243`) // EACCES
	shell(t, r.host.Machine, "iscsiadm -m discovery -t st -p "+r.storage.Storage+":3264 -I lab >/dev/null; n='iscsiadm -m node -T "+target+" -p "+r.storage.Storage+":3264'; $n --login >/dev/null; udevadm settle; d=$(ls /dev/disk/by-path/*3264*rights-lun-0); dd if=/dev/urandom of=/tmp/x bs=64k count=4 2>/dev/null; dd if=/tmp/x of=$d bs=64k oflag=direct 2>/dev/null; dd if=$d bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/x; $n --logout >/dev/null; iscsiadm -m node --op delete")
	r.on(t, "kill $(cat /tmp/rights/pid)")
	waitFor(t, r.storage.Machine, lateness, "its end", "! ss -Hltn sport = :3264 | grep -q .")
}

// testISNS: initiators find the targets of the moment at a real iSNS server.
func testISNS(t *testing.T, r *daemonRig) {
	finds := r.startISNS(t, 1)
	r.configure(t, "iSNSServer "+r.storage.Storage+"\n", daemonConf)
	r.reload(t)
	waitFor(t, r.host.Machine, lateness, "the target at the iSNS server", finds+"'"+r.storage.Storage+":3260,1 "+daemonOther+"'")
	r.on(t, "ietadm --op delete --tid=2")
	waitFor(t, r.host.Machine, lateness, "the target to be gone from there", "! { "+finds+daemonOther+"; } && { "+finds+daemonDisk+"; }")
	r.configure(t, "", daemonConf)
	r.reload(t)
	waitFor(t, r.host.Machine, lateness, "all to be gone from there", "! { "+finds+daemonDisk+"; }")
}

// testDaemonDigests: CRC32C where ietd.conf lists it and the initiator prefers it.
func testDaemonDigests(t *testing.T, r *daemonRig) {
	r.configure(t, "", strings.Replace(daemonConf, "\tLun 0", "\tHeaderDigest CRC32C\n\tDataDigest CRC32C\n\tLun 0", 1))
	r.reload(t)
	waitFor(t, r.storage.Machine, lateness, "the digests", "ietadm --op show --tid=1 --sid=0 | grep -q HeaderDigest=.*CRC32C")
	digests := func(header, data string) []setting {
		return []setting{{"node.conn[0].iscsi.HeaderDigest", header}, {"node.conn[0].iscsi.DataDigest", data}}
	}
	for _, tt := range []struct{ target, header, data, want string }{
		{daemonDisk, "CRC32C", "CRC32C", "11"}, {daemonDisk, "None", "None,CRC32C", "00"},
	} {
		disk := r.login(t, tt.target, digests(tt.header, tt.data)...)
		got := negotiated(t, r.host)
		if got := got["header_digest"] + got["data_digest"]; got != tt.want {
			t.Errorf("%s and %s at %s: %s, want %s", tt.header, tt.data, tt.target, got, tt.want)
		}
		shell(t, r.host.Machine, "dd if=/dev/urandom of=/tmp/x bs=64k count=4 2>/dev/null; dd if=/tmp/x of="+disk+" bs=64k oflag=direct 2>/dev/null; dd if="+disk+" bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/x")
		r.logout(t, tt.target)
	}
	// open-iscsi takes no Reject.
	r.refused(t, daemonOther, digests("CRC32C", "None")...)
}

// testDocument runs what docs/ietd.md says, on a machine that has ietd installed and no
// systemd: a disk is on another machine.
func testDocument(t *testing.T, r *daemonRig) {
	text, err := os.ReadFile("../../../docs/ietd.md")
	must(t, err)
	var commands []string
	for line := range strings.Lines(string(text)) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	const disk = "/dev/disk/by-path/ip-STORAGE:3260-iscsi-iqn.2026-11.io.example:disk-lun-0"
	if len(commands) < 5 || !strings.HasPrefix(commands[0], "make install") || !strings.Contains(commands[3], "systemctl") ||
		!strings.HasPrefix(commands[4], "iscsiadm -m discovery") || !strings.Contains(string(text), disk) {
		t.Fatalf("docs/ietd.md has other commands: %q", commands)
	}
	here := strings.NewReplacer("STORAGE", r.storage.Storage)
	r.on(t, "kill $(cat /run/ietd.pid); mv /etc/iet/ietd.conf /etc/iet/kept; mkdir -p /srv")
	waitFor(t, r.storage.Machine, lateness, "ietd's end", "! pgrep -x ietd")
	shell(t, r.host.Machine, "iscsiadm -m node --op delete >/dev/null 2>&1 || true") // of discoveries before
	r.on(t, commands[1]+"\n"+commands[2]+"\nietd\nietadm --op show")
	shell(t, r.host.Machine, here.Replace(commands[4])+"\nudevadm settle; test $(blockdev --getsize64 "+here.Replace(disk)+") = 10737418240; iscsiadm -m node -u; iscsiadm -m node --op delete")
	r.on(t, "kill $(cat /run/ietd.pid); rm /etc/ietd.conf /srv/disk.img; mv /etc/iet/kept /etc/iet/ietd.conf")
	waitFor(t, r.storage.Machine, lateness, "ietd's end", "! pgrep -x ietd")
	r.on(t, "ietd")
}

// testDaemonPower: with IOMode=wt what was acknowledged is there after a power cut of the
// storage machine, though nobody flushed it.
func testDaemonPower(t *testing.T, r *daemonRig) {
	r.on(t, `cd /proc/sys/vm; echo 0 >dirty_writeback_centisecs; echo 8640000 >dirty_expire_centisecs`)
	disk := r.login(t, daemonDisk, setting{"node.session.timeo.replacement_timeout", "120"})
	sum := shell(t, r.host.Machine, "dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null; dd if=/tmp/x of="+disk+" bs=64k oflag=direct 2>/dev/null; sha256sum </tmp/x")
	r.storage.Kill()
	must(t, r.storage.PowerOn(t.Context()))
	r.install(t)
	r.configure(t, "", daemonConf)
	r.on(t, "ietd")
	if got := shell(t, r.host.Machine, "dd if="+disk+" bs=64k count=64 iflag=direct 2>/dev/null | sha256sum"); got != sum {
		t.Errorf("after the power cut: %s, acknowledged: %s", got, sum)
	}
}
