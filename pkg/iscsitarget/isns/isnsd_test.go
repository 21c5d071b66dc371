package isns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// isnsd is a real open-isns server, with all it knows in a directory of its own.
type isnsd struct {
	dir     string
	address string
	output  *buffer
	cmd     *exec.Cmd
	exited  chan struct{}
}

// serverConfig is isnsd.conf: nothing outlives the process, ESIs are as frequent
// as they can be, and a node sees what it shares a discovery domain with.
const serverConfig = `SourceName = iqn.2026-11.io.example:isns
BindAddress = %s
PIDFile = %[2]s/pid
ControlSocket = %[2]s/control
LocalRegistry = %[2]s/registry
Security = 0
SLPRegister = 0
DefaultDiscoveryDomain = %[3]d
RegistrationPeriod = 600
ESIMinInterval = 1
ESIMaxInterval = 3
ESIRetries = 3
SCNTimeout = 2
`

const adminConfig = `SourceName = iqn.2026-11.io.example:admin
ServerAddress = %s
ControlSocket = %[2]s/control
LocalRegistry = %[2]s/registry
Security = 0
`

// defaultDomain has all nodes that are in no discovery domain see each other.
const defaultDomain = 1

func startISNSD(t *testing.T, domain int) *isnsd {
	t.Helper()
	s := &isnsd{dir: t.TempDir(), address: freeAddress(t)}
	for name, conf := range map[string]string{
		"isnsd.conf":   fmt.Sprintf(serverConfig, s.address, s.dir, domain),
		"isnsadm.conf": fmt.Sprintf(adminConfig, s.address, s.dir),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.stop)
	s.start(t)
	return s
}

// freeAddress is a loopback address that nobody listens on at the moment. Its
// port is none that Linux gives to a connection meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

// tool is a program of Debian's that is in no user's PATH.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	t.Fatalf("%s is missing: run hack/install-deps", name)
	return ""
}

func (s *isnsd) start(t *testing.T) {
	t.Helper()
	s.output, s.exited = &buffer{}, make(chan struct{})
	s.cmd = exec.Command(tool(t, "isnsd"), "-f", "-4", "-c", filepath.Join(s.dir, "isnsd.conf"), "-d", "esi", "-d", "scn", "-d", "state")
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	// It dies with the thread that started it, also when the tests run out of
	// time.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(s.exited)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	eventually(t, "isnsd listens", func() bool {
		select {
		case <-s.exited:
			t.Fatalf("isnsd ended:\n%s", s.output)
		default:
		}
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *isnsd) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// admin runs isnsadm as the server's administrator and returns what it prints.
func (s *isnsd) admin(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	args = append([]string{"-c", filepath.Join(s.dir, "isnsadm.conf"), "--local"}, args...)
	out, err := exec.CommandContext(ctx, tool(t, "isnsadm"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("isnsadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// list is what the server has of a kind, as isnsadm prints it.
func (s *isnsd) list(t *testing.T, kind string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, tool(t, "isnsadm"), "-c", filepath.Join(s.dir, "isnsadm.conf"), "--local", "--list", kind).CombinedOutput()
	return string(out)
}

var portalPattern = regexp.MustCompile(`Portal IP address = (\S+)\s+\S+\s+\S+\s+: Portal TCP/UDP port = (\d+)/tcp`)

// portals are the server's, sorted.
func (s *isnsd) portals(t *testing.T) (l []string) {
	t.Helper()
	for _, m := range portalPattern.FindAllStringSubmatch(s.list(t, "portals"), -1) {
		l = append(l, net.JoinHostPort(m[1], m[2]))
	}
	slices.Sort(l)
	return l
}
