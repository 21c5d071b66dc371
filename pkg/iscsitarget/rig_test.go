package iscsitarget_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const (
	block  = 512
	node   = "iqn.2026-11.io.example:node"
	target = "iqn.2026-11.io.example:disk"
)

// rig is a server with one target, whose LUN 0 is a disk behind a gate. At the
// end it is shut down, and no memory may be out then.
type rig struct {
	testing.TB
	*iscsitarget.Server
	target *iscsitarget.Target
	disk   *mem.Device
	gate   *iscsitest.Gate
	addr   string
}

func newRig(t testing.TB, opts iscsitarget.Options) *rig {
	t.Helper()
	if opts.LogoutTimeout == 0 {
		opts.LogoutTimeout = -1 // these clients read what they wait for alone
	}
	r := &rig{TB: t, Server: iscsitarget.NewServer(opts)}
	var err error
	if r.disk, err = mem.New(16<<20, block); err != nil {
		t.Fatal(err)
	}
	r.gate = iscsitest.NewGate(r.disk)
	r.target = r.addTarget(target)
	if err := r.target.AddLUN(0, iscsitarget.LUNConfig{Device: r.gate, Vendor: "V", Product: "P", Serial: "S", WriteCache: true}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		r.shutDown()
	})
	return r
}

func (r *rig) shutDown() {
	ctx, cancel := context.WithTimeout(context.Background(), iscsitest.Timeout)
	defer cancel()
	if err := r.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("shutdown: %v", err)
	}
	if n := r.MemoryInUse(); n != 0 {
		r.Errorf("%d bytes of memory are still out", n)
	}
	if all, logins := r.Connections(); all != 0 || logins != 0 {
		r.Errorf("%d connections, %d logins after Shutdown", all, logins)
	}
}

func (r *rig) addTarget(name string) *iscsitarget.Target {
	r.Helper()
	t, err := r.AddTarget(iscsitarget.TargetConfig{Name: name})
	if err != nil {
		r.Fatal(err)
	}
	return t
}

func (r *rig) permit(g iscsitarget.Grant) {
	r.Helper()
	if err := r.target.Permit(g); err != nil {
		r.Fatal(err)
	}
}

// dial connects with an initiator port of its own.
func (r *rig) dial(port byte) *iscsitest.Client {
	r.Helper()
	c := iscsitest.Dial(r.TB, r.addr)
	c.ISID[5] = port
	return c
}

// login connects and logs in as node, and takes the unit attentions.
func (r *rig) login(port byte) *iscsitest.Client {
	r.Helper()
	c := r.dial(port)
	c.Login(iscsitest.Login{Initiator: node, Target: target})
	c.Ready()
	return c
}

// refused logs in and wants that status.
func (r *rig) refused(want pdu.LoginStatus, l iscsitest.Login) {
	r.Helper()
	err := r.dial(99).TryLogin(l)
	var refusal iscsitest.Refusal
	if !errors.As(err, &refusal) || refusal.Status != want {
		r.Fatalf("login of %s at %q: %v, want status %04x", l.Initiator, l.Target, err, uint16(want))
	}
}

func plain() iscsitest.Login { return iscsitest.Login{Initiator: node, Target: target} }

func write(lba int, data []byte) iscsitest.Command {
	return iscsitest.Command{CDB: iscsitest.Write(lba, len(data)/block), Out: data, Immediate: iscsitest.Most, Unsolicited: iscsitest.Most}
}

func good(t testing.TB, r iscsitest.Result) {
	t.Helper()
	if r.Status != 0 || r.Residual != (pdu.Residual{}) {
		t.Fatalf("got %v", r)
	}
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func (r *rig) holds(lba int, want []byte) {
	r.Helper()
	got := make([]byte, len(want))
	if _, err := r.disk.ReadAt(got, int64(lba)*block); err != nil || !bytes.Equal(got, want) {
		r.Fatalf("the disk does not hold the %d bytes at block %d: %v", len(want), lba, err)
	}
}

// stuck starts a write that the gate holds up.
func (r *rig) stuck(c *iscsitest.Client, lba int) *iscsitest.Hold {
	r.Helper()
	hold := r.gate.Hold(iscsitest.WriteAt)
	r.Cleanup(hold.Release)
	c.Start(write(lba, pattern(1, block)))
	hold.Await(r.TB)
	return hold
}

// within is a context that ends soon.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const soon = 30 * time.Millisecond

// later runs f and gives its error when it returned.
func later(t testing.TB, f func() error) <-chan error {
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- f() })
	t.Cleanup(wg.Wait)
	return done
}

// waits fails the test if done has an answer already.
func waits(t testing.TB, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(soon):
	}
}

// eventually polls until ok, for what only shows from outside.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(iscsitest.Timeout)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, iscsitest.Timeout)
		case <-tick.C:
		}
	}
}

func (r *rig) mem() *mem.Device {
	r.Helper()
	d, err := mem.New(1<<20, block)
	if err != nil {
		r.Fatal(err)
	}
	return d
}

// slowMark is a disk whose volatile mark takes time to be read.
type slowMark struct {
	*mem.Device
	entered, open chan struct{}
}

func (s *slowMark) VolatileMark() (blockdev.VolatileMark, error) {
	close(s.entered)
	<-s.open
	return s.Device.VolatileMark()
}
