package ietd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	node = "iqn.2026-11.io.example:node"
	disk = "iqn.2026-11.io.example:disk"
)

// rig is a daemon that serves on loopback, with files a.img, b.img and c.img of 1, 2 and
// 3 MiB in dir.
type rig struct {
	testing.TB
	*Daemon
	dir, addr string
	log       *logBuffer
	saved     string
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T, conf string) *rig {
	t.Helper()
	r := &rig{TB: t, dir: t.TempDir(), log: &logBuffer{}}
	for i, name := range []string{"a.img", "b.img", "c.img"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), make([]byte, (i+1)<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(r.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(r.dir, "access")
	if err := os.Mkdir(access, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Daemon = New(Options{
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: LevelDebug2})), Access: ietconf.NewAccess(access),
		StateDir: state, Patience: 10 * time.Second, Save: func(text string) error { r.saved = text; return nil },
	})
	r.apply(conf)
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
		ctx, cancel := context.WithTimeout(context.Background(), iscsitest.Timeout)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// parse reads a configuration in which @ stands for the directory.
func (r *rig) parse(conf string) *ietconf.Config {
	r.Helper()
	c, err := ietconf.Parse("ietd.conf", strings.NewReader(strings.ReplaceAll(conf, "@", r.dir)))
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func (r *rig) apply(conf string) {
	r.Helper()
	if err := r.Apply(context.Background(), r.parse(conf)); err != nil {
		r.Fatal(err)
	}
}

// login logs in as node to a target, with an initiator port of that number.
func (r *rig) login(port byte, target string) *iscsitest.Client {
	r.Helper()
	c := iscsitest.Dial(r.TB, r.addr)
	c.ISID[5] = port
	c.Login(iscsitest.Login{Initiator: node, Target: target})
	c.Ready()
	return c
}

// refused logs in and wants that status.
func (r *rig) refused(want pdu.LoginStatus, l iscsitest.Login) {
	r.Helper()
	err := iscsitest.Dial(r.TB, r.addr).TryLogin(l)
	var refusal iscsitest.Refusal
	if !errors.As(err, &refusal) || refusal.Status != want {
		r.Fatalf("login of %s at %q: %v, want status %04x", l.Initiator, l.Target, err, uint16(want))
	}
}

// admin asks as ietadm does, and wants success.
func (r *rig) admin(req ietadm.Request) string {
	r.Helper()
	a, err := r.Admin(context.Background(), req)
	if err != nil {
		r.Fatalf("%+v: %v", req, err)
	}
	return strings.ReplaceAll(a.Text, r.dir, "@") + string(a.Data)
}

func ptr[T any](v T) *T { return &v }

// awaitFile waits until a file has some text, or with a ! before it has not.
func (r *rig) awaitFile(path, text string) {
	r.Helper()
	text, absent := strings.CutPrefix(text, "!")
	deadline := time.After(iscsitest.Timeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) != absent {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.Fatalf("%s: %v\n%s", path, err, b)
		}
	}
}
