package iscsitarget_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
	"go.uber.org/goleak"
)

// diskInChild names the disk of a server in a process of its own, whose memory
// can be told from the initiators'.
const diskInChild = "ISCSITARGET_TEST_DISK"

func TestMain(m *testing.M) {
	if path := os.Getenv(diskInChild); path != "" {
		if err := serveInChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveInChild serves until its standard input ends.
func serveInChild(path string) error {
	device, err := raw.Open(path, raw.Options{})
	if err != nil {
		return err
	}
	s := iscsitarget.NewServer(iscsitarget.Options{})
	t, err := s.AddTarget(iscsitarget.TargetConfig{Name: target})
	if err != nil {
		return err
	}
	if err := t.AddLUN(0, iscsitarget.LUNConfig{Device: device, WriteCache: true}); err != nil {
		return err
	}
	if err := t.Permit(iscsitarget.Grant{}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return s.Serve(ctx, l)
}

// child is such a server.
type child struct {
	testing.TB
	addr string
	pid  int
}

func startChild(t *testing.T) *child {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), diskInChild+"="+disk)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &child{TB: t, addr: strings.TrimSpace(addr), pid: cmd.Process.Pid}
}

func (c *child) login(port int) *iscsitest.Client {
	c.Helper()
	i := iscsitest.Dial(c.TB, c.addr)
	binary.BigEndian.PutUint32(i.ISID[2:], uint32(port))
	i.Login(plain())
	i.Ready()
	return i
}

// resident is the memory that the server has resident, in MiB.
func (c *child) resident() int {
	c.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		c.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		c.Fatal(err)
	}
	return kib >> 10
}

// A thousand sessions that idle have 150 MiB at most.
func TestMemoryOfIdleSessions(t *testing.T) {
	c := startChild(t)
	before := c.resident()
	for i := range 1000 {
		c.login(i)
	}
	after := c.resident()
	t.Logf("%d MiB, with 1000 sessions %d MiB", before, after)
	if limit := 150 * raceFactor; after > limit {
		t.Errorf("%d MiB resident, want %d at most", after, limit)
	}
}

// A session that fills its window with commands of 16 MiB, and neither sends nor
// takes their data, stays inside its budget, and another's commands go on.
func TestMemoryOfAGreedySession(t *testing.T) {
	const size = 16 << 20
	c := startChild(t)
	zeros := make([]byte, size)
	victim, greedy := c.login(1), c.login(2)
	for i := range 256 {
		cmd := iscsitest.Command{CDB: iscsitest.Write(0, size/block), Out: zeros, Hold: true, Reckless: true}
		if i%2 == 0 {
			cmd = iscsitest.Command{CDB: iscsitest.Read(0, size/block), In: size, Reckless: true}
		}
		greedy.Start(cmd)
	}
	slowest := time.Duration(0)
	for i := range 300 {
		began := time.Now()
		good(t, victim.Do(iscsitest.Command{CDB: iscsitest.Read(8*i, 8), In: 8 * block}))
		slowest = max(slowest, time.Since(began))
	}
	resident := c.resident()
	t.Logf("%d MiB resident, the other session's slowest command took %v", resident, slowest)
	if limit := 100 * raceFactor; resident > limit {
		t.Errorf("%d MiB resident, want %d at most", resident, limit)
	}
	if slowest > 2*time.Second {
		t.Errorf("another session's command took %v", slowest)
	}
}
