package iscsitarget_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// Service actions of PERSISTENT RESERVE OUT.
const (
	prRegister        = 0
	prReserve         = 1
	prRelease         = 2
	prPreemptAndAbort = 5

	exclusiveAccess            = 3
	exclusiveAccessRegistrants = 6

	conflict = 0x18 // RESERVATION CONFLICT
)

// aptpl is byte 20 of the parameter list of a registration that outlives a power
// loss.
const aptpl = 20

// reserveOut is PERSISTENT RESERVE OUT.
func reserveOut(action, kind byte, key, serviceKey uint64) iscsitest.Command {
	list := binary.BigEndian.AppendUint64(nil, key)
	list = append(binary.BigEndian.AppendUint64(list, serviceKey), make([]byte, 8)...)
	return iscsitest.Command{CDB: []byte{0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0}, Out: list, Immediate: iscsitest.Most}
}

func ready() iscsitest.Command { return iscsitest.Command{CDB: iscsitest.TestUnitReady()} }

func read(lba int) iscsitest.Command {
	return iscsitest.Command{CDB: iscsitest.Read(lba, 1), In: block}
}

func wantStatus(t testing.TB, what string, got iscsitest.Result, status byte, sense int) {
	t.Helper()
	if got.Status != status || got.SenseCode() != sense {
		t.Fatalf("%s: %v, want status %#02x sense %06x", what, got, status, sense)
	}
}

// PREEMPT AND ABORT answers when the preempted port's write has returned from the
// device, and that write gets no status.
func TestPreemptAndAbortWaitsForIO(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a, b := r.login(1), r.login(2)
	good(t, a.Do(reserveOut(prRegister, 0, 0, 1)))
	good(t, b.Do(reserveOut(prRegister, 0, 0, 2)))
	good(t, a.Do(reserveOut(prReserve, exclusiveAccess, 1, 0)))
	hold := r.stuck(a, 0)
	preempt := b.Start(reserveOut(prPreemptAndAbort, exclusiveAccess, 2, 1))
	done := later(t, func() error {
		res, err := b.TryWait(preempt)
		if err == nil && res.Status != 0 {
			err = fmt.Errorf("PREEMPT AND ABORT: %v", res)
		}
		return err
	})
	waits(t, "PREEMPT AND ABORT", done)
	wantStatus(t, "a read of the preempted", a.Do(read(0)), conflict, 0)
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "what comes after", a.Do(ready()), 2, 0x062A05)
	wantStatus(t, "its write is gone, too", a.Do(ready()), 2, 0x062F00)
	wantStatus(t, "a read of the preempted", a.Do(read(0)), conflict, 0)
	good(t, b.Do(read(0)))
}

// Registrations are the initiator port's: they outlive its sessions.
func TestReservationOutlivesSession(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a, b := r.login(1), r.login(2)
	good(t, a.Do(reserveOut(prRegister, 0, 0, 1)))
	good(t, a.Do(reserveOut(prReserve, exclusiveAccess, 1, 0)))
	again := r.login(1) // reinstatement
	a.ExpectClosed()
	wantStatus(t, "a read of another", b.Do(read(0)), conflict, 0)
	good(t, again.Do(read(0)))
	good(t, again.Do(reserveOut(prRelease, exclusiveAccess, 1, 0)))
	good(t, b.Do(read(0)))
}

// Revoke ends what the initiator holds, whichever its ports.
func TestRevokePurges(t *testing.T) {
	const other = "iqn.2026-11.io.example:other"
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.permit(iscsitarget.Grant{Initiator: other})
	a := r.login(1)
	good(t, a.Do(reserveOut(prRegister, 0, 0, 1)))
	good(t, a.Do(reserveOut(prReserve, exclusiveAccess, 1, 0)))
	c := r.dial(3)
	c.Login(iscsitest.Login{Initiator: other, Target: target})
	c.Ready()
	wantStatus(t, "a read of another", c.Do(read(0)), conflict, 0)
	if err := r.target.Revoke(within(t, time.Minute), node); err != nil {
		t.Fatal(err)
	}
	good(t, c.Do(read(0)))
	keys := c.Do(iscsitest.Command{CDB: []byte{0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0}, In: 8})
	good(t, keys)
	if fmt.Sprintf("%x", keys.Data) != "0000000100000000" {
		t.Errorf("READ KEYS: %x", keys.Data)
	}
}

// With APTPL a reservation is there when another process begins, before its
// holder logs in.
func TestReservationOutlivesRestart(t *testing.T) {
	const other = "iqn.2026-11.io.example:other"
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	onDisk := func(c iscsitest.Command) iscsitest.Command {
		c.LUN = iscsitest.LUN(1)
		return c
	}
	begin := func(initiator string) (*iscsitest.Client, func()) {
		r := newRig(t, iscsitarget.Options{})
		d, err := raw.Open(path, raw.Options{StateFile: filepath.Join(dir, "state")})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.target.AddLUN(1, iscsitarget.LUNConfig{Device: d}); err != nil {
			t.Fatal(err)
		}
		r.permit(iscsitarget.Grant{Initiator: initiator})
		c := r.dial(1)
		c.Login(iscsitest.Login{Initiator: initiator, Target: target})
		c.Do(onDisk(ready())) // the unit attention
		return c, func() {
			r.shutDown()
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	a, end := begin(node)
	register := onDisk(reserveOut(prRegister, 0, 0, 1))
	register.Out[aptpl] = 1
	good(t, a.Do(register))
	good(t, a.Do(onDisk(reserveOut(prReserve, exclusiveAccess, 1, 0))))
	end()
	b, end := begin(other)
	defer end()
	wantStatus(t, "a read of another", b.Do(onDisk(read(0))), conflict, 0)
	keys := b.Do(onDisk(iscsitest.Command{CDB: []byte{0x5E, 0, 0, 0, 0, 0, 0, 0, 16, 0}, In: 16}))
	good(t, keys)
	if fmt.Sprintf("%x", keys.Data) != "00000000000000080000000000000001" {
		t.Errorf("READ KEYS: %x", keys.Data)
	}
}

// Whatever the preempted port sends at the same time: nothing of it lands once
// PREEMPT AND ABORT is answered.
func TestNothingLandsAfterPreemptAndAbort(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a, b := r.login(1), r.login(2)
	good(t, b.Do(reserveOut(prRegister, 0, 0, 2)))
	good(t, b.Do(reserveOut(prReserve, exclusiveAccessRegistrants, 2, 0)))
	for round := range 100 {
		good(t, a.Do(reserveOut(prRegister, 0, 0, 1)))
		good(t, a.Do(write(0, pattern(255, block))))
		after := make([]byte, block)
		done := later(t, func() error {
			res, err := b.TryDo(reserveOut(prPreemptAndAbort, exclusiveAccessRegistrants, 2, 1))
			if err == nil && res.Status != 0 {
				err = fmt.Errorf("PREEMPT AND ABORT: %v", res)
			}
			if err == nil {
				_, err = r.disk.ReadAt(after, 0)
			}
			return err
		})
		for i := range 16 {
			a.Start(write(0, pattern(byte(i), block)))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		a.Ready() // and what was sent before has been looked at
		r.holds(0, after)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}
