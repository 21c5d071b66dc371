package ietadm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRequest and maxAnswer bound either in bytes.
	maxRequest = 64 << 10
	maxAnswer  = 64 << 20
	// maxAsking bounds the connections; more are closed at once.
	maxAsking = 32
	// acceptPause is how long nobody is accepted after that failed.
	acceptPause = 200 * time.Millisecond
	// requestTimeout is how long a peer may take to ask, and to take the answer.
	requestTimeout = 10 * time.Second
)

// Handler does what is asked for. An [Error] among what it fails with has the exit
// status.
type Handler interface {
	Admin(ctx context.Context, req Request) (Answer, error)
}

// Listen makes the socket, which a target that is no more may have left. Its mode is
// 0660, and its group is gid, -1 for the process's own.
func Listen(ctx context.Context, path string, gid int) (net.Listener, error) {
	if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s: another target listens there: give this one a --socket of its own", path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if err := removeSocket(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err = os.Chmod(path, 0o660); err == nil && gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeSocket removes what nobody listens on, and nothing but a socket.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is no socket", path)
	}
	return os.Remove(path)
}

// Server answers requests.
type Server struct {
	Handler Handler
	// GID is the group whose members may ask, beside root and the process's own
	// user; -1 is none.
	GID    int
	Logger *slog.Logger
}

// Serve answers until ctx ends; it closes the listener, and returns when the last answer
// is out. A listener that fails is logged and tried again: the target must not end with
// its admin tool.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxAsking)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		case err != nil: // out of file descriptors, most likely
			s.Logger.Error("ietadm: accept failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case room <- struct{}{}:
			wg.Go(func() {
				s.serve(ctx, c)
				<-room
			})
		default:
			_ = c.Close()
		}
	}
}

// serve answers one request.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	answer, err := s.answer(ctx, c)
	if err != nil {
		s.Logger.Info("ietadm: request refused", "error", err)
		answer = answerOf(err)
	}
	line, err := json.Marshal(answer)
	if err != nil || len(line) > maxAnswer {
		line, _ = json.Marshal(Answer{Errno: unix.EMSGSIZE, Message: fmt.Sprintf("the answer has %d bytes: ask for less", len(line))})
	}
	_ = c.SetWriteDeadline(time.Now().Add(requestTimeout))
	if _, err := c.Write(append(line, '\n')); err != nil {
		s.Logger.Info("ietadm: the answer did not arrive", "error", err)
	}
}

func (s *Server) answer(ctx context.Context, c net.Conn) (Answer, error) {
	if err := s.mayAsk(c); err != nil {
		return Answer{}, err
	}
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) }) // answers go out still
	defer stop()
	req, err := s.read(c)
	if err != nil {
		return Answer{}, err
	}
	return s.Handler.Admin(ctx, req)
}

// read takes in a request, a line.
func (s *Server) read(r io.Reader) (req Request, err error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxRequest+1)).ReadBytes('\n')
	if err != nil {
		return req, Errorf(unix.EINVAL, "no request: %v", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&req); err != nil {
		return req, Errorf(unix.EINVAL, "a request that is none: %v", err)
	}
	return req, nil
}

// mayAsk looks at the peer's credentials, as they were when it connected.
func (s *Server) mayAsk(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Errorf(unix.EPERM, "no unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var groups []int
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		if peer, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr == nil {
			groups, sockErr = peerGroups(int(fd))
		}
	})
	if err := errors.Join(err, sockErr); err != nil {
		return fmt.Errorf("credentials of the peer: %w", err)
	}
	if peer.Uid == 0 || int(peer.Uid) == os.Geteuid() ||
		s.GID >= 0 && (int(peer.Gid) == s.GID || slices.Contains(groups, s.GID)) {
		return nil
	}
	return Errorf(unix.EPERM, "uid %d may not: only root and the group of ietd's -g", peer.Uid)
}
