package iscsitarget_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

func TestAddTarget(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	for name, want := range map[string]error{
		"IQN.2026-11.io.example:DISK": iscsitarget.ErrTargetExists, "fred": iscsitarget.ErrInvalid, "": iscsitarget.ErrInvalid,
		"iqn.a/b": iscsitarget.ErrInvalid,
	} {
		if _, err := r.AddTarget(iscsitarget.TargetConfig{Name: name}); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	r.addTarget("iqn.z")
	r.addTarget("iqn.A")
	var names []string
	for _, tg := range r.Targets() {
		names = append(names, tg.Name())
	}
	if want := []string{target, "iqn.a", "iqn.z"}; !slices.Equal(names, want) {
		t.Errorf("targets %v", names)
	}
	if tg, ok := r.Target("IQN.Z"); !ok || tg.Name() != "iqn.z" {
		t.Error("no target of that name in capitals")
	}
}

func TestRemoveTarget(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	hold := r.stuck(c, 0)
	if err := r.RemoveTarget(within(t, soon), target); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	r.refused(pdu.LoginNotFound, plain())
	if err := r.target.Permit(iscsitarget.Grant{}); !errors.Is(err, iscsitarget.ErrTargetRemoved) {
		t.Errorf("Permit: %v", err)
	}
	if err := r.target.AddLUN(5, iscsitarget.LUNConfig{Device: r.mem()}); !errors.Is(err, iscsitarget.ErrTargetRemoved) {
		t.Errorf("AddLUN: %v", err)
	}
	if _, err := r.AddTarget(iscsitarget.TargetConfig{Name: target}); !errors.Is(err, iscsitarget.ErrTargetExists) {
		t.Errorf("AddTarget: %v", err)
	}
	hold.Release()
	if err := r.RemoveTarget(within(t, time.Minute), target); err != nil {
		t.Fatal(err)
	}
	r.holds(0, pattern(1, block))
	if err := r.RemoveTarget(within(t, time.Minute), target); !errors.Is(err, iscsitarget.ErrTargetNotFound) {
		t.Errorf("again: %v", err)
	}
	r.addTarget(target)
}

// A flush that fails is told to the caller, also to one who comes after it
// failed.
func TestRemoveTargetThatCannotBeFlushed(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%t", late), func(t *testing.T) {
			r := newRig(t, iscsitarget.Options{})
			r.permit(iscsitarget.Grant{Initiator: node})
			c := r.login(1)
			if late {
				hold := r.stuck(c, 0)
				if err := r.RemoveTarget(within(t, soon), target); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				r.disk.FailSync(errors.New("no"))
				hold.Release()
				eventually(t, "the session's end", func() bool { return len(r.Sessions()) == 0 })
			} else {
				good(t, c.Do(write(0, pattern(1, block))))
				r.disk.FailSync(errors.New("no"))
			}
			if err := r.RemoveTarget(within(t, time.Minute), target); !errors.Is(err, blockdev.ErrLostWrites) {
				t.Errorf("got %v", err)
			}
			if _, ok := r.Target(target); ok {
				t.Error("the target is still there")
			}
		})
	}
}

func TestShutdownWaitsForIO(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	hold := r.stuck(c, 0)
	if err := r.Shutdown(within(t, soon)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	c.ExpectClosed()
	if _, err := r.AddTarget(iscsitarget.TargetConfig{Name: "iqn.late"}); !errors.Is(err, iscsitarget.ErrServerClosed) {
		t.Errorf("AddTarget: %v", err)
	}
	if err := r.target.Revoke(within(t, time.Minute), node); !errors.Is(err, iscsitarget.ErrServerClosed) {
		t.Errorf("Revoke: %v", err)
	}
	done := later(t, func() error { return r.Shutdown(within(t, time.Minute)) })
	waits(t, "Shutdown", done)
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.holds(0, pattern(1, block))
}

// Every Shutdown says that the flush failed, whoever waited for the first one.
func TestShutdownThatCannotFlush(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	good(t, r.login(1).Do(write(0, pattern(1, block))))
	r.disk.FailSync(errors.New("no"))
	for range 3 {
		if err := r.Shutdown(within(t, time.Minute)); !errors.Is(err, blockdev.ErrLostWrites) {
			t.Errorf("got %v", err)
		}
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		iscsitest.New(t, c).ExpectClosed()
	}
}

func TestServeEnds(t *testing.T) {
	s := iscsitarget.NewServer(iscsitarget.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := s.Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestSessions(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(3)
	d := r.dial(4)
	d.Login(iscsitest.Login{Initiator: "iqn.somebody"})
	good(t, c.Do(write(0, pattern(1, 2*block))))
	good(t, c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block}))
	got := r.Sessions()
	if len(got) != 2 || !got[0].Discovery || got[0].Initiator != "iqn.somebody" || got[1].Initiator != node || got[1].Target != target ||
		got[1].ISID != "800102030403" || got[1].TSIH != c.TSIH || got[1].BytesWritten != 2*block || got[1].BytesRead != block ||
		got[1].Commands < 3 || got[1].Connections[0].Remote != c.LocalAddr().String() {
		t.Errorf("%+v", got)
	}
}

// Hundreds that only connect, and hundreds that only ask for targets, keep
// nobody out.
func TestIdlersLockNobodyOut(t *testing.T) {
	r := newRig(t, iscsitarget.Options{MaxConnections: 1000})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	var idle []*iscsitest.Client
	for range iscsitarget.MaxLogins + 100 {
		idle = append(idle, r.dial(0))
	}
	start := time.Now()
	good(t, r.login(2).Do(write(0, pattern(1, block))))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("login took %v", took)
	}
	idle[0].ExpectClosed()
	if _, logins := r.Connections(); logins > iscsitarget.MaxLogins {
		t.Errorf("%d logins", logins)
	}
	var asking []*iscsitest.Client
	for range iscsitarget.MaxAsking + 20 {
		d := r.dial(0)
		d.Login(iscsitest.Login{Initiator: "iqn.somebody"})
		asking = append(asking, d)
	}
	asking[0].ExpectClosed()
	asking[len(asking)-1].Alive()
	good(t, r.login(3).Do(write(1, pattern(2, block))))
	c.Alive()
}

func TestMaxConnections(t *testing.T) {
	r := newRig(t, iscsitarget.Options{MaxConnections: 2})
	r.permit(iscsitarget.Grant{Initiator: node})
	a, b := r.login(1), r.login(2)
	r.dial(3).ExpectClosed()
	_ = a.Close()
	eventually(t, "the session's end", func() bool { return len(r.Sessions()) == 1 })
	r.login(3)
	b.Alive()
}

// Thousands of commands of all kinds from several connections, each checking
// what it reads.
func TestManyCommands(t *testing.T) {
	r := newRig(t, iscsitarget.Options{MemoryBudget: 2 << 20})
	r.permit(iscsitarget.Grant{Initiator: node})
	var wg sync.WaitGroup
	for port := range 6 {
		c := r.login(byte(port))
		wg.Go(func() { churn(t, c, port*4096, 150) })
	}
	wg.Wait()
	for _, s := range r.Sessions() {
		if s.Commands < 600 {
			t.Errorf("%d commands", s.Commands)
		}
	}
}

// churn writes and reads back n times in the 4096 blocks from base on, in every
// way that data can move, several commands at once.
func churn(t *testing.T, c *iscsitest.Client, base, n int) {
	for i := range n {
		blocks := 1 + i*7%300
		lba := base + i*131%(4096-300)
		data := pattern(byte(i), blocks*block)
		cmd := write(lba, data)
		if i%3 == 0 {
			cmd.Immediate, cmd.Unsolicited = 0, 0
		}
		for got := c.Do(cmd); got.Status != 0; got = c.Do(cmd) {
			if got.Status != 8 { // BUSY: the budget is small
				t.Errorf("write %d: %v", i, got)
				return
			}
		}
		a := c.Start(iscsitest.Command{CDB: iscsitest.Read(lba, blocks), In: uint32(blocks * block)})
		b := c.Start(iscsitest.Command{CDB: iscsitest.TestUnitReady()})
		d := c.Start(iscsitest.Command{CDB: iscsitest.Read(lba, blocks), In: uint32(blocks * block)})
		for _, itt := range []uint32{a, b, d} {
			got := c.Wait(itt)
			if got.Status != 0 || itt != b && !slices.Equal(got.Data, data) {
				t.Errorf("read %d: %v", i, got)
				return
			}
		}
		if i%50 == 0 {
			_ = c.Do(iscsitest.Command{CDB: iscsitest.SynchronizeCache()})
		}
	}
}

// Shutdown asks the initiators of normal sessions to log out: those that do end
// well, with what they wrote meanwhile, the others are told that they are dropped.
func TestShutdownAsksForLogout(t *testing.T) {
	r := newRig(t, iscsitarget.Options{LogoutTimeout: 2 * time.Second})
	r.permit(iscsitarget.Grant{Initiator: node})
	polite, deaf, asking := r.login(1), r.login(2), r.dial(3)
	asking.Login(iscsitest.Login{Initiator: node})
	idle := r.dial(4)
	start := time.Now()
	done := later(t, func() error { return r.Shutdown(within(t, iscsitest.Timeout)) })
	for _, c := range []*iscsitest.Client{polite, deaf} {
		p := c.Expect(pdu.OpAsync)
		if got := pdu.ParseAsyncMessage(&p.BHS); got != (pdu.AsyncMessage{Event: pdu.AsyncRequestLogout, Parameter3: 2}) {
			t.Errorf("got %+v", got)
		}
	}
	asking.ExpectClosed()
	idle.ExpectClosed()
	good(t, polite.Do(write(0, pattern(1, block))))
	polite.Send(pdu.LogoutRequest{Immediate: true, ITT: polite.ITT(), CmdSN: polite.CmdSN, ExpStatSN: polite.ExpStatSN}.Header(), nil)
	polite.Expect(pdu.OpLogoutResponse)
	polite.ExpectClosed()
	waits(t, "Shutdown", done)
	p := deaf.Expect(pdu.OpAsync)
	if got := pdu.ParseAsyncMessage(&p.BHS); got.Event != pdu.AsyncDropConnection || got.Parameter1 != deaf.CID || got.Parameter3 != 0 {
		t.Errorf("got %+v", got)
	}
	deaf.ExpectClosed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("shut down after %v", took)
	}
	r.holds(0, pattern(1, block))
}

// The patience of Shutdown leaves half of its context's time for what comes
// behind; called again, it has none.
func TestShutdownInAHurry(t *testing.T) {
	r := newRig(t, iscsitarget.Options{LogoutTimeout: time.Hour})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	if err := r.Shutdown(within(t, 2*time.Second)); err != nil {
		t.Error(err)
	}
	c.ExpectClosed()

	r = newRig(t, iscsitarget.Options{LogoutTimeout: time.Hour})
	r.permit(iscsitarget.Grant{Initiator: node})
	c = r.login(1)
	first := later(t, func() error { return r.Shutdown(context.Background()) })
	c.Expect(pdu.OpAsync)
	waits(t, "Shutdown", first)
	if err := r.Shutdown(within(t, iscsitest.Timeout)); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}
