package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Service is a process on a machine that serves CSI on a unix socket there.
type Service struct {
	// Conn is a client of the socket. It outlives the process and connects
	// again when there is a new one.
	Conn *grpc.ClientConn

	machine *Machine
	command agent.Command
	socket  string
	process *agent.Process
}

// verbose has every request logged, for what secrets it may hold.
const verbose = "--v=5"

// readyTimeout is how long a service may take from exec to its first answer.
const readyTimeout = 30 * time.Second

// startService runs the product's binary with args and returns when CSI's
// Probe answers.
func (l *Lab) startService(ctx context.Context, m *Machine, name, socket string, args []string) (*Service, error) {
	binary, err := l.Binary(m, Driver)
	if err != nil {
		return nil, err
	}
	s := &Service{machine: m, socket: socket, command: agent.Command{
		Args: append([]string{binary}, args...),
		Log:  filepath.Join(m.logs, name+".log"),
	}}
	if s.Conn, err = s.connect(name); err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

func (s *Service) connect(name string) (*grpc.ClientConn, error) {
	// A service that is down is tried again soon: tests restart them.
	soon := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}
	return grpc.NewClient("passthrough:///"+name,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.machine.Dial(ctx, "unix", s.socket)
		}))
}

// Start runs the process, which must not be running, and returns when it
// answers.
func (s *Service) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("no answer after %v", readyTimeout))
	defer cancel()
	process, err := s.machine.Start(ctx, s.command)
	if err != nil {
		return fmt.Errorf("starting %s on %s: %w", s.command.Args[1], s.machine.Name, err)
	}
	s.process = process
	ready, done := context.WithCancelCause(ctx)
	go func() { // ends with ready, which ends with this function
		exit, err := process.Wait(ready)
		if err == nil {
			done(fmt.Errorf("it ended: %v", exit))
		}
	}()
	defer done(nil)
	if err := s.awaitReady(ready); err != nil {
		return fmt.Errorf("starting %s on %s: %w (its log is %s there)", s.command.Args[1], s.machine.Name, err, s.command.Log)
	}
	return nil
}

// awaitReady asks until there is an answer. A probe that finds the connection
// to the process before this one still open fails and is asked again.
func (s *Service) awaitReady(ctx context.Context) error {
	for {
		probe, err := csi.NewIdentityClient(s.Conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && (probe.Ready == nil || probe.Ready.Value):
			return nil
		case err == nil:
			return errors.New("it says that it is not ready")
		case status.Code(err) != codes.Unavailable:
			return err
		}
	}
}

// Kill ends the process and what it has started with SIGKILL, as the end of a
// container does, and returns when it is gone.
func (s *Service) Kill(ctx context.Context) error {
	if err := s.process.Signal(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := s.process.Wait(ctx)
	return err
}

// Stop asks the process to end with SIGTERM and returns how it did.
func (s *Service) Stop(ctx context.Context) (agent.Exit, error) {
	if err := s.process.Signal(ctx, syscall.SIGTERM); err != nil {
		return agent.Exit{}, err
	}
	return s.process.Wait(ctx)
}

// Restart is Kill and Start.
func (s *Service) Restart(ctx context.Context) error {
	if err := s.Kill(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Log returns what the process has logged since the first start.
func (s *Service) Log(ctx context.Context) (string, error) {
	text, err := s.machine.ReadFile(ctx, s.command.Log)
	return string(text), err
}
