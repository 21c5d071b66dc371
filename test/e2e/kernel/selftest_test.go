package kernel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestLab shows that the lab itself does what the other tests lean on, with
// Debian's tgt as the target and nothing of csi-ietd.
func TestLab(t *testing.T) {
	l := newLab(t)
	guests := boot(t, l, 2, lab.GuestConfig{State: 64 << 20})
	g := guests[0]
	t.Run("GuestsDiffer", func(t *testing.T) {
		const id = "hostname; cat /etc/machine-id"
		if a, b := shell(t, guests[0].Machine, id), shell(t, guests[1].Machine, id); a == b {
			t.Errorf("both guests say %q", a)
		}
	})
	t.Run("MachineIsReadOnly", func(t *testing.T) {
		shell(t, g.Machine, "echo x >/etc/csi-ietd-lab-was-here")
		if out, err := l.Outside.Output(t.Context(), "ls", "/etc/csi-ietd-lab-was-here"); err == nil {
			t.Errorf("a guest wrote to the machine: %s", out)
		}
	})
	t.Run("ExitStatus", func(t *testing.T) {
		if _, err := g.Shell(t.Context(), "exit 7"); lab.ExitCode(err) != 7 {
			t.Errorf("exit 7: got %v", err)
		}
	})
	t.Run("ContextEndsCommand", func(t *testing.T) { testContextEndsCommand(t, g) })
	t.Run("KillReachesChildren", func(t *testing.T) { testKillReachesChildren(t, g) })
	t.Run("Registers", func(t *testing.T) { testRegisters(t, l, g) })
	t.Run("Relay", func(t *testing.T) { testRelay(t, l, g) })
	t.Run("CutNetwork", func(t *testing.T) { testCutNetwork(t, g) })
	t.Run("AttachFromTgt", func(t *testing.T) { testAttachFromTgt(t, l, g) })
	t.Run("PowerCut", func(t *testing.T) { testPowerCut(t, g) })
}

func testContextEndsCommand(t *testing.T, g *lab.Guest) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := g.Run(ctx, agent.Command{Args: []string{"sh", "-c", "echo here; sleep 4711"}}, agent.Streams{Stdout: write})
		done <- err
	}()
	if _, err := io.ReadFull(read, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel(over)
	if err := <-done; !errors.Is(err, over) {
		t.Errorf("got %v, want the context's cause", err)
	}
	waitNoProcess(t, g, "sleep 4711")
}

func testKillReachesChildren(t *testing.T, g *lab.Guest) {
	p, err := g.Start(t.Context(), agent.Command{Args: []string{"sh", "-c", "setsid sleep 4712 & wait"}, Log: "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(t.Context()); err != nil || exit.Signal != 9 {
		t.Errorf("got %v, %v", exit, err)
	}
	waitNoProcess(t, g, "sleep 4712")
}

// waitNoProcess polls, since a killed process is gone only soon after.
func waitNoProcess(t *testing.T, g *lab.Guest, cmdline string) {
	t.Helper()
	script := "for i in $(seq 50); do pgrep -fx '" + cmdline + "' >/dev/null || exit 0; sleep 0.1; done; exit 1"
	if _, err := g.Shell(t.Context(), script); err != nil {
		t.Errorf("%s is still there: %v", cmdline, err)
	}
}

// testRelay goes from a unix socket inside the guest to one outside and back.
func testRelay(t *testing.T, l *lab.Lab, g *lab.Guest) {
	const path = "/run/lab-echo.sock"
	echo, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	carried, err := l.CarryIn(t.Context(), g, path, path)
	if err != nil {
		t.Fatal(err)
	}
	defer carried.Close()
	conn, err := g.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const text = "there and back"
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Errorf("got %q, %v", got, err)
	}
}

func testCutNetwork(t *testing.T, g *lab.Guest) {
	const ping = "ping -c1 -W1 10.77.0.1"
	shell(t, g.Machine, ping)
	if err := g.CutNetwork(); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Shell(t.Context(), ping); err == nil {
		t.Errorf("still answers after the cut: %s", out)
	}
	if err := g.RestoreNetwork(); err != nil {
		t.Fatal(err)
	}
	shell(t, g.Machine, ping)
}

func testAttachFromTgt(t *testing.T, l *lab.Lab, g *lab.Guest) {
	const iqn = "iqn.2026-11.io.csi-ietd.lab:self"
	_, err := l.Outside.Start(t.Context(), agent.Command{
		Args: []string{"tgtd", "-f", "--iscsi", "portal=" + l.Outside.Storage + ":3260"}, Log: l.Dir() + "/outside/tgtd.log",
	})
	if err != nil {
		t.Fatal(err)
	}
	shell(t, l.Outside, `
		for i in $(seq 100); do tgtadm --mode target --op show >/dev/null 2>&1 && break; sleep 0.05; done
		truncate -s 256M `+l.Dir()+`/self.img
		tgtadm --lld iscsi --mode target --op new --tid 1 --targetname `+iqn+`
		tgtadm --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 --backing-store `+l.Dir()+`/self.img
		tgtadm --lld iscsi --mode target --op bind --tid 1 --initiator-address ALL`)
	start := time.Now()
	out := shell(t, g.Machine, `
		record="iscsiadm -m node -T `+iqn+` -p `+l.Outside.Storage+`:3260"
		$record --op new >/dev/null
		$record --login >/dev/null
		udevadm settle
		disk=$(readlink -f /dev/disk/by-path/*`+iqn+`-lun-1)
		mkfs.ext4 -q $disk
		mkdir -p /tmp/self
		mount $disk /tmp/self
		echo kept >/tmp/self/file
		umount /tmp/self
		mount $disk /tmp/self
		cat /tmp/self/file
		umount /tmp/self
		$record --logout >/dev/null
		iscsiadm -m session 2>&1 || true`)
	if !strings.HasPrefix(out, "kept\niscsiadm: No active sessions") {
		t.Errorf("got %q", out)
	}
	t.Logf("login, mkfs, mount, write, read, logout took %v", time.Since(start).Round(time.Millisecond))
}

func testPowerCut(t *testing.T, g *lab.Guest) {
	shell(t, g.Machine, "echo flushed >/var/lib/kubelet/flushed; sync; echo lost >/run/lost")
	if err := g.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := shell(t, g.Machine, "cat /var/lib/kubelet/flushed; ls /run/lost 2>/dev/null || true"); out != "flushed" {
		t.Errorf("after the power cut: %q", out)
	}
	if err := g.Halt(t.Context()); err != nil {
		t.Error(err)
	}
}
