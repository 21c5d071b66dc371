package kernel

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestReservations has two guests fight over a disk as the nodes of a cluster
// do: by persistent reservations, through sg_persist and the kernel's own I/O.
func TestReservations(t *testing.T) {
	l := newPlainLab(t)
	d := newIetd(t, l, image{size: 64 * mebibyte, options: ",IOMode=wb"})
	f := &fight{ietd: d}
	guests := boot(t, l, 2, lab.GuestConfig{})
	f.first, f.second = guests[0], guests[1]
	for _, g := range guests {
		d.login(t, g)
		shell(t, g.Machine, `head -c 512 /dev/zero | tr '\0' '\245' >/tmp/pattern`)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"reserved", f.testReserved},
		{"registered", f.testRegistered},
		{"preempted", f.testPreempted},
		{"target-killed", f.testTargetKilled},
		{"cleared", f.testCleared},
	} {
		if !t.Run(step.name, step.run) {
			return // each begins where the one before it ended
		}
	}
	for _, g := range guests {
		d.logout(t, g)
	}
}

// fight is two guests, with the keys 0xa and 0xb, over one disk.
type fight struct {
	*ietd
	first, second *lab.Guest
}

// expect runs cases on a guest, and fails the test where one fails.
func (f *fight) expect(t *testing.T, g *lab.Guest, cases ...sgCase) {
	t.Helper()
	for _, c := range cases {
		if testSg(t, f.ietd, g, c); t.Failed() {
			t.FailNow()
		}
	}
}

// Writes of a block of pattern: as a SCSI command, which tells its status, and
// as the kernel's own.
const (
	sgWrite     = "sg_raw --send=512 --infile=$P $D 2a 00 00 00 00 00 00 00 01 00"
	kernelWrite = "dd if=$P of=$B bs=512 seek=1 count=1 oflag=direct"
	kernelRead  = "dd if=$B of=/dev/null bs=512 count=1 iflag=direct"
)

// refused is what a nexus without a registration gets.
func refused(medium ...extent) []sgCase {
	return []sgCase{
		{command: sgWrite, exit: sgConflict, want: []string{"Reservation Conflict"}, medium: medium},
		// EBADE is how the kernel tells a conflict from other I/O errors.
		{command: kernelWrite, exit: 1, want: []string{"error writing", "Invalid exchange"}, medium: medium},
		{command: kernelRead},
	}
}

// testReserved: the first reserves, and the second, not registered, can read
// but not write.
func (f *fight) testReserved(t *testing.T) {
	f.expect(t, f.first,
		sgCase{command: "sg_persist --out --register --param-sark=0xa --param-aptpl $D"},
		sgCase{command: "sg_persist --out --reserve --param-rk=0xa --prout-type=5 $D"})
	f.expect(t, f.second, refused(extent{0, 16, 0, true})...)
}

// testRegistered: whoever is registered can write.
func (f *fight) testRegistered(t *testing.T) {
	f.expect(t, f.second,
		sgCase{command: "sg_persist --out --register --param-sark=0xb --param-aptpl $D"},
		sgCase{command: "sg_persist --in --read-keys $D", want: []string{"2 registered reservation keys follow", "0xa", "0xb"}},
		sgCase{command: "sg_persist --in --read-reservation $D", want: []string{"Key=0xa", "type: Write Exclusive, registrants only"}},
		sgCase{command: sgWrite, medium: []extent{{0, 1, pattern, false}, {1, 15, 0, false}}},
		sgCase{command: kernelWrite, medium: []extent{{0, 2, pattern, false}, {2, 14, 0, false}}},
		sgCase{command: "sg_persist --out --reserve --param-rk=0xb --prout-type=5 $D", exit: sgConflict})
}

// ioErrors are fio's words for what the kernel makes of a command that was
// aborted, and of one that met a reservation.
var ioErrors = regexp.MustCompile(`(?i)input/output error|invalid exchange`)

// testPreempted: the second takes the reservation while the first writes, with
// many commands under way whose data is held up by the network. They end in
// errors, and what comes of their data later does not reach the file.
func (f *fight) testPreempted(t *testing.T) {
	writer := background(t, f.first, sgNames+`
		echo 5 >/sys/block/${B#/dev/}/device/timeout
		fio --name=w --filename=$B --rw=randwrite --bs=1m --ioengine=libaio --iodepth=16 --direct=1 \
			--offset=1m --size=63m --time_based --runtime=600 --buffer_pattern=0xdead`)
	waitFor(t, f.first.Machine, time.Minute, "writes to be under way", sgNames+`
		read reads writes </sys/block/${B#/dev/}/inflight
		[ $writes -ge 8 ]`)
	waitFor(t, f.machine, time.Minute, "writes to land", "[ $(stat -c %b "+f.image(0)+") -gt 16384 ]")
	must(t, f.first.CutNetwork())
	f.expect(t, f.second, sgCase{command: "sg_persist --out --preempt-abort --param-rk=0xb --param-sark=0xa --prout-type=5 $D"})
	answered := time.Now()
	must(t, f.first.RestoreNetwork())
	select {
	case <-writer.done:
	case <-time.After(2 * time.Minute):
		t.Fatal("the writer's I/O has not ended")
	}
	t.Logf("the writer ended %v after PREEMPT AND ABORT: %v %v", time.Since(answered).Round(time.Millisecond), writer.exit, writer.err)
	if out := writer.out.String(); writer.err != nil || writer.exit.Success() || !ioErrors.MatchString(out) {
		t.Errorf("the writer: %v %v, want an I/O error\n%s", writer.exit, writer.err, out)
	}
	f.checkUntouchedSince(t, answered)
	f.checkHeldBySecond(t)
}

// checkUntouchedSince fails the test if anything has been written to the
// target's file after some moment.
func (f *fight) checkUntouchedSince(t *testing.T, moment time.Time) {
	t.Helper()
	info, err := os.Stat(f.image(0))
	must(t, err)
	if info.ModTime().After(moment) {
		t.Errorf("a write landed %v too late", info.ModTime().Sub(moment))
	}
}

// checkHeldBySecond: the second has the reservation, and the first has nothing.
func (f *fight) checkHeldBySecond(t *testing.T) {
	t.Helper()
	// The first's kernel resets the unit for commands that were aborted without
	// a word; a target that starts has a word for everybody.
	for _, g := range []*lab.Guest{f.first, f.second} {
		waitFor(t, g.Machine, 20*time.Second, "the unit to be ready", sgNames+"sg_turs $D")
	}
	f.expect(t, f.second,
		sgCase{command: "sg_persist --in --read-keys $D", want: []string{"1 registered reservation key follows", "0xb"}},
		sgCase{command: "sg_persist --in --read-full-status $D", want: []string{"Key=0xb", "<< Reservation holder >>", "lab:" + f.second.Name + ",i,0x"}},
		sgCase{command: "sg_persist --in --report-capabilities $D", want: []string{"(PTPL_A): 1"}})
	before := time.Now()
	f.expect(t, f.first, refused()...)
	f.checkUntouchedSince(t, before)
	f.expect(t, f.second, sgCase{command: kernelWrite, medium: []extent{{0, 2, pattern, false}, {2, 14, 0, false}}})
}

// testTargetKilled: the registration and the reservation outlive the target's
// process.
func (f *fight) testTargetKilled(t *testing.T) {
	f.kill(t)
	f.start(t)
	for _, g := range []*lab.Guest{f.first, f.second} {
		waitFor(t, g.Machine, time.Minute, "the session to come back", "grep -q LOGGED_IN /sys/class/iscsi_session/*/state\n"+sgNames+kernelRead)
	}
	f.checkHeldBySecond(t)
}

// testCleared: with the last registration the disk is anybody's again.
func (f *fight) testCleared(t *testing.T) {
	f.expect(t, f.second,
		sgCase{command: "sg_persist --out --clear --param-rk=0xb $D"},
		sgCase{command: "sg_persist --in --read-keys $D", want: []string{"there are NO registered reservation keys"}})
	f.expect(t, f.first, sgCase{command: kernelWrite}, sgCase{command: sgWrite})
}
