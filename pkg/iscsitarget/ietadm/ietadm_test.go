package ietadm

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// askEnv has the test's program ask the socket that it names, as another user would.
const askEnv = "IETADM_TEST_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(askEnv); socket != "" {
		answer, err := Do(context.Background(), socket, Request{Op: Show})
		if err != nil {
			os.Exit(StatusOf(err))
		}
		os.Exit(answer.ExitStatus())
	}
	goleak.VerifyTestMain(m)
}

// handler answers by a function.
type handler func(context.Context, Request) (Answer, error)

func (h handler) Admin(ctx context.Context, req Request) (Answer, error) { return h(ctx, req) }

func echo(_ context.Context, req Request) (Answer, error) {
	b, err := json.Marshal(req)
	return Answer{Text: string(b)}, err
}

// start serves until the test ends, and returns the socket.
func start(t *testing.T, gid int, h handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ietadm") // short, and open to other users
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	l, err := Listen(t.Context(), path, gid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	s := &Server{Handler: h, GID: gid, Logger: slog.New(slog.DiscardHandler)}
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return path
}

func TestDo(t *testing.T) {
	socket := start(t, -1, echo)
	zero, sid, lun, nowhere := uint32(0), uint64(1)<<63, uint64(3), ""
	want := Request{Op: Update, TID: &zero, SID: &sid, LUN: &lun, Params: "a=b,c=d", Redirect: &nowhere, User: true, JSON: true}
	answer, err := Do(t.Context(), socket, want)
	if err != nil || answer.Errno != 0 {
		t.Fatalf("%+v, %v", answer, err)
	}
	b, err := json.Marshal(want)
	if err != nil || answer.Text != string(b) {
		t.Errorf("asked %s, heard %s: %v", b, answer.Text, err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", st.Mode(), err)
	}
}

// Errors keep their exit status on the way.
func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{Errorf(unix.EINVAL, "no"), 234},
		{Errorf(unix.ENOENT, "no"), 254},
		{errors.Join(errors.New("first"), Errorf(unix.EBUSY, "no")), 240},
		{os.ErrNotExist, 251}, // EIO: nobody said which
		{&os.PathError{Op: "open", Path: "/x", Err: unix.ENOENT}, 254},
	} {
		socket := start(t, -1, func(context.Context, Request) (Answer, error) { return Answer{}, tt.err })
		answer, err := Do(t.Context(), socket, Request{Op: Show})
		if err != nil || answer.ExitStatus() != tt.want || answer.Message != tt.err.Error() {
			t.Errorf("%v: %+v, status %d, want %d: %v", tt.err, answer, answer.ExitStatus(), tt.want, err)
		}
	}
}

// Who may ask: root and the group, and nobody else, whatever the socket's mode.
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run as root: other users are to ask")
	}
	const nobody, group = 65534, 4242
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test's program lies where only root may look.
	copied := filepath.Join(os.TempDir(), "ietadm-asks")
	b, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(copied, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(copied) })
	for name, tt := range map[string]struct {
		gid    int
		cred   syscall.Credential
		status int
	}{
		"root":                  {-1, syscall.Credential{}, 0},
		"the group":             {group, syscall.Credential{Uid: nobody, Gid: group}, 0},
		"one of several groups": {group, syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7, group}}, 0},
		"another group":         {group, syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7}}, 255}, // EPERM
		"no group":              {-1, syscall.Credential{Uid: nobody, Gid: group}, 255},
	} {
		t.Run(name, func(t *testing.T) {
			socket := start(t, tt.gid, echo)
			if err := os.Chmod(socket, 0o666); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), copied)
			cmd.Dir = "/"
			cmd.Env = []string{askEnv + "=" + socket}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &tt.cred}
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
		})
	}
}

// What is no request is refused, and the next one is answered.
func TestHostile(t *testing.T) {
	socket := start(t, -1, echo)
	for name, said := range map[string]string{
		"nothing":         "",
		"no JSON":         "GET / HTTP/1.0\n\n",
		"an unknown word": `{"op":"show","shell":"rm"}` + "\n",
		"a wrong type":    `{"op":"show","tid":-1}` + "\n",
		"no end":          `{"op":"show"}`,
		"too long":        `{"op":"` + strings.Repeat("x", 2*maxRequest) + "\"}\n",
	} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(said)) // the peer may have had enough
		_ = c.(*net.UnixConn).CloseWrite()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		var a Answer
		if err := json.NewDecoder(c).Decode(&a); err == nil && a.Errno != unix.EINVAL {
			t.Errorf("%s: %+v", name, a)
		}
		_ = c.Close()
	}
	if answer, err := Do(t.Context(), socket, Request{Op: Show}); err != nil || answer.Errno != 0 {
		t.Errorf("%+v, %v", answer, err)
	}
}

// Idlers lock nobody out for ever, and more of them than there is room for are closed.
func TestIdlers(t *testing.T) {
	socket := start(t, -1, echo)
	var closed atomic.Int32
	var wg sync.WaitGroup
	for range maxAsking + 8 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close() // an idler
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
				closed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := closed.Load(); n != 8 {
		t.Errorf("%d connections were closed", n)
	}
}

// A socket that a dead target left is taken over; one that is listened on, and a file
// that is none, are not.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	l, err := Listen(t.Context(), path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path, -1); err == nil || !strings.Contains(err.Error(), "another target") {
		t.Errorf("listened twice: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(t.Context(), path, -1); err != nil {
		t.Fatalf("over what was left: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file, -1); err == nil {
		t.Error("listened on a file")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// failing fails a few times, as a process without file descriptors does.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, unix.EMFILE
	}
	return f.Listener.Accept()
}

// What keeps a connection from being accepted keeps none of later away.
func TestAcceptFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := Listen(t.Context(), path, -1)
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: l}
	f.left.Store(2)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- (&Server{Handler: handler(echo), GID: -1, Logger: slog.New(slog.DiscardHandler)}).Serve(ctx, f)
	}()
	if answer, err := Do(t.Context(), path, Request{Op: Show}); err != nil || answer.Errno != 0 {
		t.Errorf("%+v, %v", answer, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	_, err := Do(t.Context(), filepath.Join(t.TempDir(), "none"), Request{Op: Show})
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "is ietd running") || StatusOf(err) != 254 {
		t.Errorf("%v, status %d", err, StatusOf(err))
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"op":"show","tid":1,"sid":2,"cid":3,"lun":4,"user":true,"params":"a=b"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		defer here.Close() // nothing is lost to it
		s := &Server{Handler: handler(echo), GID: -1, Logger: slog.New(slog.DiscardHandler)}
		go func() {
			_, _ = there.Write(b) // the rest of a long one is not read
			_ = there.Close()
		}()
		if req, err := s.read(here); err == nil && len(req.Params) > maxRequest {
			t.Errorf("%+v", req)
		}
	})
}
