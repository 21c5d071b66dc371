package conformance

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/ietdconf"
	"go.uber.org/goleak"
)

// binary is the csi-ietd that TestMain built.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "csi-ietd")
	build := exec.Command("go", "build", "-o", binary, "github.com/csi-ietd/csi-ietd/cmd/csi-ietd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build csi-ietd: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

const (
	// The two write modes of ietd.conf, a target each.
	writeBack    = "iqn.2026-11.io.csi-ietd.test:wb"
	writeThrough = "iqn.2026-11.io.csi-ietd.test:wt"
	readOnly     = "iqn.2026-11.io.csi-ietd.test:ro"
	// diskSize is above MAXIMUM WRITE SAME LENGTH, which libiscsi wants to
	// try out.
	diskSize = 2 << 30
	// smallSize is LUN 1's, for whole images.
	smallSize = 64 << 20
)

const conf = `Target %[2]s` + ietdconf.Generous + `
	Lun 0 Path=%[1]s/wb.img,Type=fileio,IOMode=wb,ScsiSN=WB-0
	Lun 1 Path=%[1]s/small.img,Type=fileio,IOMode=wb,ScsiSN=WB-1
	Lun 2 Path=%[1]s/blocks.img,Type=fileio,IOMode=wb,ScsiSN=WB-2,BlockSize=2048
Target %[3]s` + ietdconf.Generous + `
	Lun 0 Path=%[1]s/wt.img,Type=fileio,IOMode=wt,ScsiSN=WT-0
Target %[4]s` + ietdconf.Generous + `
	Lun 0 Path=%[1]s/ro.img,Type=fileio,IOMode=ro,ScsiSN=RO-0
`

// ietd is a running `csi-ietd ietd`.
type ietd struct {
	testing.TB
	addr string
	dir  string
}

// startIetd starts an ietd with sparse files for disks. It is ended with the
// test, and must end well.
func startIetd(t testing.TB) *ietd {
	t.Helper()
	d := &ietd{TB: t, dir: t.TempDir()}
	for name, size := range map[string]int64{"wb.img": diskSize, "wt.img": diskSize, "blocks.img": diskSize, "small.img": smallSize, "ro.img": smallSize} {
		sparse(t, filepath.Join(d.dir, name), size)
	}
	path := filepath.Join(d.dir, "ietd.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, conf, d.dir, writeBack, writeThrough, readOnly), 0o600); err != nil {
		t.Fatal(err)
	}
	d.addr, _ = serve(t, exec.Command(binary, "ietd", "-f", "-c", path, "-a", "127.0.0.1", "-p", "0", "--state-dir", filepath.Join(d.dir, "state")))
	return d
}

// serve starts an ietd in the foreground and returns its address. It is ended with the
// test, and must end well.
func serve(t testing.TB, cmd *exec.Cmd) (address string, log *logOf) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log = follow(output)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		text := log.wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("ietd ended with %v", err)
		}
		if t.Failed() {
			t.Logf("ietd's log ends:\n%s", text[max(0, len(text)-4000):])
		}
	})
	select {
	case address = <-log.address:
	case <-time.After(20 * time.Second):
		t.Fatal("ietd does not say its address")
	}
	return address, log
}

func sparse(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// url is a logical unit as libiscsi and QEMU name it.
func (d *ietd) url(target string, lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", d.addr, target, lun)
}

// logOf is what a process writes, read as it comes.
type logOf struct {
	address chan string
	mu      sync.Mutex
	text    bytes.Buffer
	done    chan struct{}
}

var addressIn = regexp.MustCompile(`"?Serving ietd"?.* addresses="?(\S+:[0-9]+)`)

func follow(r io.Reader) *logOf {
	l := &logOf{address: make(chan string, 1), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			l.mu.Lock()
			l.text.Write(append(lines.Bytes(), '\n'))
			l.mu.Unlock()
			if m := addressIn.FindSubmatch(lines.Bytes()); m != nil {
				l.address <- string(m[1])
			}
		}
	}()
	return l
}

// sofar is what was written until now.
func (l *logOf) sofar() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns all of it when the process has closed its end.
func (l *logOf) wait() string {
	<-l.done
	return l.sofar()
}

// tool runs a program, which must be there and succeed, and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out[max(0, len(out)-4000):])
	}
	return string(out)
}
