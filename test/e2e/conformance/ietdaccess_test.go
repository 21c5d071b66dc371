package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/ietdconf"
)

const (
	disk  = "iqn.2026-11.io.csi-ietd.test:disk"
	other = "iqn.2026-11.io.csi-ietd.test:other"
)

// two are two targets with a unit each, and directives for the first.
func two(first string) string {
	return "Target " + disk + "\n" + first + "\tLun 0 Type=nullio,Blocks=65536,ScsiSN=DISK\nTarget " + other + "\n\tLun 0 Type=nullio,Blocks=65536,ScsiSN=OTHER\n"
}

// at is LUN 0 of a target at a portal, which may have an account before it.
func at(portal, target string) string { return "iscsi://" + portal + "/" + target + "/0" }

// TestIetdWithLibiscsi: an administrator's day, as TestIetd has it with the kernel's
// initiator. In libiscsi there is no way to look for targets at an iSNS server, to ask for
// data digests, or to see whether a unit has a write cache (TestLibiscsi runs its suites on
// both write modes); its tools ask for no header digest either, so that QEMU does it.
func TestIetdWithLibiscsi(t *testing.T) {
	s := newSite(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"chap", testCHAP}, {"mutual", testMutualCHAP}, {"discovery", testDiscoveryCHAP},
		{"access", testAccess}, {"portals", testPortals}, {"redirect", testRedirect},
		{"modes", testModes}, {"nullio", testNullIO}, {"blockio", testBlockIO},
		{"digests", testDigests}, {"maxsessions", testMaxSessions},
		{"admin", testAdmin}, {"hangup", testHangup}, {"isns", testISNS},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, s) })
	}
}

const (
	secretOfJoe  = "secret-of-joe-1"
	secretOfAnn  = "secret-of-ann-1"
	secretOfDisk = "secret-of-disk-1"
	joe          = "joe%" + secretOfJoe + "@" + portal
)

func testCHAP(t *testing.T, s *site) {
	s.start(t, two("\tIncomingUser joe "+secretOfJoe+"\n\tIncomingUser ann "+secretOfAnn+"\n"))
	s.admits(t, "DISK", at(joe, disk))
	s.admits(t, "DISK", at("ann%"+secretOfAnn+"@"+portal, disk))
	s.admits(t, "DISK", at(portal, disk), "LIBISCSI_CHAP_USERNAME=joe", "LIBISCSI_CHAP_PASSWORD="+secretOfJoe)
	s.admits(t, "OTHER", at(portal, other))
	s.refuses(t, noProof, at(portal, disk))
	s.refuses(t, noProof, at("joe%wrong-secret-12@"+portal, disk))
	s.refuses(t, noProof, at("joe%"+secretOfAnn+"@"+portal, disk))
	s.refuses(t, noProof, at("bob%"+secretOfJoe+"@"+portal, disk))
}

// libiscsi is who refuses a target that proves the wrong thing.
func testMutualCHAP(t *testing.T, s *site) {
	s.start(t, two("\tIncomingUser joe "+secretOfJoe+"\n\tOutgoingUser disk "+secretOfDisk+"\n")+"\tIncomingUser joe "+secretOfJoe+"\n")
	s.admits(t, "DISK", at(joe, disk))
	s.admits(t, "DISK", at(joe, disk)+"?target_user=disk&target_password="+secretOfDisk)
	s.admits(t, "DISK", at(joe, disk), "LIBISCSI_CHAP_TARGET_USERNAME=disk", "LIBISCSI_CHAP_TARGET_PASSWORD="+secretOfDisk)
	s.refuses(t, "Invalid CHAP_R response from the target", at(joe, disk)+"?target_user=disk&target_password=wrong-secret-12")
	s.refuses(t, "Wrong CHAP targetname received: disk", at(joe, disk)+"?target_user=disc&target_password="+secretOfDisk)
	s.refuses(t, noProof, at("joe%wrong-secret-12@"+portal, disk)+"?target_user=disk&target_password="+secretOfDisk)
	s.refuses(t, noProof, at(joe, other)+"?target_user=disk&target_password="+secretOfDisk) // it has nothing to prove itself with
}

// An account of discovery is none of a target, nor the other way round.
func testDiscoveryCHAP(t *testing.T, s *site) {
	const seeker = "seeker%secret-of-seeker@" + portal
	s.start(t, "IncomingUser seeker secret-of-seeker\n"+two("\tIncomingUser joe "+secretOfJoe+"\n"), "-a", portal)
	s.shows(t, "iscsi://"+seeker, disk+" "+portal, other+" "+portal)
	for _, url := range []string{"iscsi://" + portal, "iscsi://seeker%wrong-secret-12@" + portal, "iscsi://" + joe} {
		if out, err := s.try(nil, "iscsi-ls", url); err == nil || !strings.Contains(out, noProof) {
			t.Errorf("%s: %v\n%s", url, err, out)
		}
	}
	s.admits(t, "DISK", at(joe, disk))
	s.refuses(t, noProof, at(seeker, disk))
	s.admits(t, "OTHER", at(portal, other))
}

// testAccess has initiators that differ in their address, or their name. None of them is
// shown a target that it may not log in to; each file counts from the next question on.
func testAccess(t *testing.T, s *site) {
	const stranger = "iqn.2026-11.io.csi-ietd.test:stranger"
	who := []struct{ address, name, portal string }{
		{hostHere, initiator, portal}, {hostThere, initiator, portal}, {hostHere, stranger, portal}, {host6, initiator, "[" + portal6 + "]"},
	}
	d := s.start(t, two(""))
	const D, O = "DISK ", "OTHER "
	for _, tt := range []struct {
		name        string
		deny, allow string
		want        [4]string // the units of each
	}{
		{"no files", "", "", [4]string{D + O, D + O, D + O, D + O}},
		{"denied by address", disk + " " + hostHere + "\n", "", [4]string{O, D + O, O, D + O}},
		{"denied by network", "ALL 10.77.2.0/24\n", "", [4]string{D + O, "", D + O, D + O}},
		{"denied by name", disk + ` iqn\.2026-11\.io\.csi-ietd\.test:host` + "\n", "", [4]string{O, O, D + O, O}},
		{"denied by address of IPv6", "ALL [" + host6 + "]\n", "", [4]string{D + O, D + O, D + O, ""}},
		{"denied by network of IPv6", other + " [fd77::]/64\n", "", [4]string{D + O, D + O, D + O, D}},
		{"denied by another's address", "ALL 10.77.1.6, [fd77::6]\n", "", [4]string{D + O, D + O, D + O, D + O}},
		{"denied, allowed by address", "ALL ALL\n", disk + " " + hostThere + "\n", [4]string{"", D, "", ""}},
		{"denied, allowed by network", "ALL ALL\n", other + " 10.77.1.0/24\n", [4]string{O, "", O, ""}},
		{"denied, allowed by name", "ALL ALL\n", disk + " .*:host\n", [4]string{D, D, "", D}},
		{"allowed alone", "", "ALL " + hostThere + "\n", [4]string{"", D + O, "", ""}},
		{"a file that is broken", "", "ALL 10.77.0.0/99\n", [4]string{}},
	} {
		d.write(t, "initiators.deny", tt.deny)
		d.write(t, "initiators.allow", tt.allow)
		for i, w := range who {
			if w.address != host6 {
				s.comeFrom(t, w.address)
			}
			seen, err := s.try(nil, "iscsi-ls", "-i", w.name, "iscsi://"+w.portal)
			if err != nil {
				t.Errorf("%s: %s: %v\n%s", tt.name, w.address, err, seen)
			}
			for serial, target := range map[string]string{"DISK": disk, "OTHER": other} {
				may := strings.Contains(tt.want[i], serial)
				if strings.Contains(seen, "Target:"+target+" ") != may {
					t.Errorf("%s: %s from %s is to see %s: %v\n%s", tt.name, w.name, w.address, target, may, seen)
				}
				out, err := s.serial(w.name, at(w.portal, target))
				if may && (err != nil || out != serial) || !may && (err == nil || !strings.Contains(out, notFound)) {
					t.Errorf("%s: %s from %s may log in to %s: %v, but %v\n%s", tt.name, w.name, w.address, target, may, err, out)
				}
			}
		}
		s.comeFrom(t, hostHere)
	}
}

// testPortals: targets.allow says at which of two portals a target is.
func testPortals(t *testing.T, s *site) {
	d := s.start(t, two(""), "-a", portal, "-a", otherPortal)
	d.write(t, "targets.allow", disk+" "+portal+"\nALL ALL\n")
	s.shows(t, "iscsi://"+portal, disk+" "+portal, other+" "+portal, other+" "+otherPortal)
	s.shows(t, "iscsi://"+otherPortal, other+" "+portal, other+" "+otherPortal)
	s.admits(t, "DISK", at(portal, disk))
	s.refuses(t, notFound, at(otherPortal, disk))
	for _, p := range []string{portal, otherPortal} {
		s.admits(t, "OTHER", at(p, other))
	}
	d.write(t, "targets.allow", "ALL "+otherPortal+"/32\n")
	s.shows(t, "iscsi://"+portal)
	s.shows(t, "iscsi://"+otherPortal, disk+" "+otherPortal, other+" "+otherPortal)
	s.refuses(t, notFound, at(portal, other))
	s.admits(t, "DISK", at(otherPortal, disk))
}

// testRedirect has another ietd, which has a target of the same name and not of the other.
func testRedirect(t *testing.T, s *site) {
	d := s.start(t, two(""), "-a", portal)
	s.start(t, "Target "+disk+"\n\tLun 0 Type=nullio,ScsiSN=MOVED\n", "-a", otherPortal, "-p", "3263")
	for _, tid := range []string{"--tid=1", "--tid=2"} {
		d.admin(t, "--op", "update", tid, "--redirect="+otherPortal+":3263")
	}
	s.shows(t, "iscsi://"+portal, disk+" "+portal, other+" "+portal) // discovery stays as it is
	s.admits(t, "MOVED", at(portal, disk))
	s.refuses(t, notFound, at(portal, other))
	d.admin(t, "--op", "update", "--tid=1", "--redirect=")
	s.admits(t, "DISK", at(portal, disk))
	s.refuses(t, notFound, at(portal, other))
}

// testModes: the suite for a unit that is write-protected finds one, and no other.
func testModes(t *testing.T, s *site) {
	dir := t.TempDir()
	conf := "Target " + disk + ietdconf.Generous
	for lun, mode := range []string{"ro", "wt", "wb"} {
		path := filepath.Join(dir, mode+".img")
		sparse(t, path, smallSize)
		conf += fmt.Sprintf("\tLun %d Path=%s,IOMode=%s\n", lun, path, mode)
	}
	s.start(t, conf)
	for lun, want := range []string{"[SKIPPED] UNMAP is not implemented.", "[SKIPPED] Logical unit is not write-protected. Skipping test.", "[SKIPPED] Logical unit is not write-protected. Skipping test."} {
		url := fmt.Sprintf("iscsi://%s/%s/%d", portal, disk, lun)
		s.suite(t, url, "ALL.ReadOnly", 1, want)
		if lun > 0 {
			s.suite(t, url, "ALL.Write10", 6)
		}
		out, err := s.try(nil, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "flush", "-c", "read -P 7 1M 64k", url)
		if (err == nil) != (lun > 0) {
			t.Errorf("LUN %d is written to: %v\n%s", lun, err, out)
		}
	}
	for _, mode := range []string{"ro", "wt", "wb"} {
		if got := contains(t, filepath.Join(dir, mode+".img"), 7, 1<<20); got != (mode != "ro") {
			t.Errorf("%s.img has what was written: %v", mode, got)
		}
	}
}

// contains says whether a file has 64 KiB of a byte at a place.
func contains(t *testing.T, path string, value byte, at int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 64<<10)
	_, err = f.ReadAt(got, at)
	return err == nil && bytes.Equal(got, bytes.Repeat([]byte{value}, len(got)))
}

// suite runs a suite of iscsi-test-cu, which is to leave out just these.
func (s *site) suite(t *testing.T, url, name string, tests int, skips ...string) {
	t.Helper()
	out, err := s.try(nil, "iscsi-test-cu", "-d", "-t", name, url)
	r, bad := parseReport(out)
	if bad == nil {
		left := slices.Compact(r.skips) // it says the same twice
		r.skips = nil
		if bad = r.check(tests); !slices.Equal(left, skips) {
			t.Errorf("%s left out %q, want %q", name, left, skips)
		}
	}
	if err != nil || bad != nil {
		t.Errorf("%s: %v %v\n%s", name, err, bad, out[max(0, len(out)-3000):])
	}
}

// testNullIO: writes vanish, and reads are zeros.
func testNullIO(t *testing.T, s *site) {
	s.start(t, two(""))
	if out, err := s.try(nil, "iscsi-readcapacity16", "-s", at(portal, disk)); err != nil || strings.TrimSpace(out) != "33554432" {
		t.Errorf("capacity: %v %s", err, out)
	}
	if out, err := s.try(nil, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "flush", "-c", "read -P 0 1M 64k", at(portal, disk)); err != nil {
		t.Errorf("what was written did not vanish: %v\n%s", err, out)
	}
	if out, err := s.try(nil, "qemu-io", "-r", "-f", "raw", "-c", "read -P 7 1M 64k", at(portal, disk)); err == nil {
		t.Errorf("what was written is there\n%s", out)
	}
	s.suite(t, at(portal, disk), "ALL.Read10", 6)
}

// testBlockIO has loop devices, which are block devices as any, and a file past the page
// cache.
func testBlockIO(t *testing.T, s *site) {
	image := filepath.Join(t.TempDir(), "image")
	sparse(t, image, smallSize)
	file := filepath.Join(t.TempDir(), "file")
	sparse(t, file, smallSize)
	device, protected := loop(t, image), loop(t, "--read-only", image)
	s.start(t, "Target "+disk+ietdconf.Generous+"\tLun 0 Path="+device+",Type=blockio\n\tLun 1 Path="+protected+",Type=blockio,IOMode=ro\n\tLun 2 Path="+file+",Type=blockio\n")
	for unit, behind := range map[string]string{at(portal, disk): image, "iscsi://" + portal + "/" + disk + "/2": file} {
		for _, suite := range []struct {
			name  string
			tests int
		}{{"ALL.Read10", 6}, {"ALL.Write10", 6}, {"ALL.WriteVerify16", 6}, {"ALL.iSCSIResiduals", 10}} {
			s.suite(t, unit, suite.name, suite.tests)
		}
		if out, err := s.try(nil, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", unit); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		// Stable when it is acknowledged, though nobody flushed it.
		if !contains(t, behind, 7, 1<<20) {
			t.Errorf("%s has not what was written", behind)
		}
	}
	s.suite(t, "iscsi://"+portal+"/"+disk+"/1", "ALL.ReadOnly", 1, "[SKIPPED] UNMAP is not implemented.")
	// What cannot be written is no LUN that is written to, and where there is no direct I/O
	// there is no blockio.
	for path, why := range map[string]string{protected: "read-only file system", "/proc/version": "no direct I/O"} {
		conf := filepath.Join(t.TempDir(), "ietd.conf")
		if err := os.WriteFile(conf, []byte("Target "+other+"\n\tLun 0 Path="+path+",Type=blockio\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := within(ctx, s.storage, binary, "ietd", "-f", "-c", conf, "-p", "3261", "--socket", "", "--state-dir", t.TempDir()).CombinedOutput()
		if err == nil || !strings.Contains(string(out), conf+":2") || !strings.Contains(string(out), path) || !strings.Contains(string(out), why) {
			t.Errorf("%s: %v, want %q\n%s", path, err, why, out)
		}
	}
}

// loop makes a loop device, which ends with the last one who has it open.
func loop(t *testing.T, options ...string) string {
	t.Helper()
	device := strings.TrimSpace(tool(t, "losetup", append([]string{"--find", "--show"}, options...)...))
	t.Cleanup(func() { tool(t, "losetup", "--detach", device) })
	return device
}

// testDigests: CRC32C where both have it and the initiator prefers it. libiscsi has no data
// digests. One that takes nothing but CRC32C is told Reject by a target that has none, and
// goes on without.
func testDigests(t *testing.T, s *site) {
	s.start(t, two("\tHeaderDigest CRC32C\n\tDataDigest CRC32C\n"))
	for _, tt := range []struct{ target, asks, gets string }{
		{disk, "crc32c", "CRC32C"}, {disk, "crc32c-none", "CRC32C"}, {disk, "none-crc32c", "None"}, {disk, "none", "None"},
		{other, "crc32c", "Reject"}, {other, "crc32c-none", "None"}, {other, "none", "None"},
	} {
		out, err := s.try([]string{"LIBISCSI_DEBUG=6"}, "qemu-io", "-c", "write -P 7 0 64k", "-c", "read -P 0 0 64k", "--image-opts",
			"driver=iscsi,transport=tcp,portal="+portal+",target="+tt.target+",lun=0,header-digest="+tt.asks)
		if err != nil || !strings.Contains(out, "TargetLoginReply: HeaderDigest="+tt.gets+" ") || !strings.Contains(out, "TargetLoginReply: DataDigest=None ") {
			t.Errorf("%s of %s: %v, want %s\n%s", tt.asks, tt.target, err, tt.gets, out)
		}
	}
}

func testMaxSessions(t *testing.T, s *site) {
	conf, _ := live(t)
	d := s.start(t, conf+"\tMaxSessions 2\nTarget "+other+"\n\tLun 0 Type=nullio,ScsiSN=OTHER\n")
	first, second := s.read(t, at(portal, disk)), s.writeAndFind(t, at(portal, disk))
	s.refuses(t, tooMany, at(portal, disk))
	s.admits(t, "OTHER", at(portal, other))
	d.admin(t, "--op", "update", "--tid=1", "--params", "MaxSessions=3")
	s.admits(t, "DISK", at(portal, disk))
	d.admin(t, "--op", "update", "--tid=1", "--params", "MaxSessions=2")
	s.refuses(t, tooMany, at(portal, disk))
	first.goesOn(t)
	if err := second.end(); err != nil {
		t.Error(err)
	}
	s.admits(t, "DISK", at(portal, disk))
	if err := first.end(syscall.SIGINT); err != nil {
		t.Errorf("iscsi-perf: %v\n%s", err, first.out.sofar())
	}
}

// live is a target whose unit is read and written while others come and go.
func live(t *testing.T) (conf, spare string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"used.img", "spare.img"} {
		sparse(t, filepath.Join(dir, name), smallSize)
	}
	return "Target " + disk + ietdconf.Generous + "\tLun 0 Path=" + dir + "/used.img,IOMode=wb,ScsiSN=DISK\n", dir + "/spare.img"
}

// testAdmin: units, targets, accounts and parameters come, change and go under I/O.
func testAdmin(t *testing.T, s *site) {
	conf, spare := live(t)
	d := s.start(t, conf, "-a", portal)
	one := "iscsi://" + portal + "/" + disk + "/1"
	d.under(t, at(portal, disk), func() {
		s.refuses(t, "LOGICAL_UNIT_NOT_SUPPORTED", one)
		d.admin(t, "--op", "new", "--tid=1", "--lun=1", "--params", "Path="+spare+",ScsiSN=SPARE")
		s.admits(t, "SPARE", one)
		s.suite(t, one, "ALL.Write10", 6)
		d.admin(t, "--op", "update", "--tid=1", "--lun=1", "--params", "IOMode=ro")
		s.suite(t, one, "ALL.ReadOnly", 1, "[SKIPPED] UNMAP is not implemented.")
		d.admin(t, "--op", "delete", "--tid=1", "--lun=1")
		s.refuses(t, "LOGICAL_UNIT_NOT_SUPPORTED", one)
		s.refuses(t, notFound, at(portal, other))
		d.admin(t, "--op", "new", "--tid=2", "--params", "Name="+other)
		d.admin(t, "--op", "new", "--tid=2", "--lun=0", "--params", "Path="+spare+",ScsiSN=OTHER")
		s.admits(t, "OTHER", at(portal, other))
		d.admin(t, "--op", "new", "--tid=2", "--user", "--params", "IncomingUser=joe,Password="+secretOfJoe)
		s.refuses(t, noProof, at(portal, other))
		s.admits(t, "OTHER", at(joe, other))
		d.admin(t, "--op", "update", "--tid=1", "--params", "MaxBurstLength=65536,HeaderDigest=CRC32C")
		d.admin(t, "--op", "delete", "--tid=2")
		s.shows(t, "iscsi://"+portal, disk+" "+portal)
	})
}

// testHangup: another configuration under I/O, and a broken one, which changes nothing.
func testHangup(t *testing.T, s *site) {
	conf, spare := live(t)
	d := s.start(t, conf, "-a", portal)
	more := conf + "\tLun 1 Path=" + spare + ",ScsiSN=SPARE\n"
	d.under(t, at(portal, disk), func() {
		d.reload(t, more+"Target "+other+"\n\tLun 0 Type=nullio,ScsiSN=OTHER\n", other)
		s.admits(t, "SPARE", "iscsi://"+portal+"/"+disk+"/1")
		s.admits(t, "OTHER", at(portal, other))
		d.write(t, "ietd.conf", "Target "+other+"\n\tLun nonsense\n")
		d.hangup(t)
		eventually(t, "the broken one to be told", func() bool { return strings.Contains(d.log.sofar(), "ietd.conf:2: Lun: has 1 words after it") })
		s.admits(t, "OTHER", at(portal, other))
		d.reload(t, strings.Replace(more, "ScsiSN=SPARE", "ScsiSN=SPARE,IOMode=ro", 1), "iomode:ro")
		s.suite(t, "iscsi://"+portal+"/"+disk+"/1", "ALL.ReadOnly", 1, "[SKIPPED] UNMAP is not implemented.")
		s.refuses(t, notFound, at(portal, other))
		d.write(t, "ietd.conf", conf)
		d.hangup(t)
		eventually(t, "the unit's end", func() bool { return !strings.Contains(d.admin(t, "--op", "show"), spare) })
		s.refuses(t, "LOGICAL_UNIT_NOT_SUPPORTED", "iscsi://"+portal+"/"+disk+"/1")
	})
}
