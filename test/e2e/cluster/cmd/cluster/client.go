package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// up starts the process that holds the cluster, if there is none, and returns
// when the cluster is up.
func up(ctx context.Context, e *environment, archives []string) error {
	if conn, err := net.Dial("unix", e.socket()); err == nil {
		conn.Close()
		return fmt.Errorf("there is a cluster in %s already", e.dir)
	}
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return err
	}
	_ = os.Remove(e.socket()) // of one that was killed
	for i := range archives {
		var err error
		if archives[i], err = filepath.Abs(archives[i]); err != nil {
			return err
		}
	}
	holder, err := startHolder(e, archives)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- holder.Wait() }() // ends with the holder, or with this process
	if err := awaitUp(ctx, e, ended); err != nil {
		_ = holder.Process.Signal(syscall.SIGTERM)
		return err
	}
	fmt.Printf("The cluster is up. A shell in which kubectl works:\n\n  %s exec bash\n\n", os.Args[0])
	return nil
}

func startHolder(e *environment, archives []string) (*exec.Cmd, error) {
	log, err := os.Create(e.log())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{"-dir", e.dir, "-nodes", strconv.Itoa(e.nodes), "-isolate=" + strconv.FormatBool(e.isolate), "serve"}, archives...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// awaitUp shows the holder's log until its socket answers.
func awaitUp(ctx context.Context, e *environment, ended <-chan error) error {
	log, err := os.Open(e.log())
	if err != nil {
		return err
	}
	defer log.Close()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(os.Stdout, log); err != nil {
			return err
		}
		if conn, err := net.Dial("unix", e.socket()); err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case err := <-ended:
			_, _ = io.Copy(os.Stdout, log)
			return fmt.Errorf("it did not come up: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect returns a connection to the holder and its process id as seen here.
func connect(e *environment) (*net.UnixConn, int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: e.socket()})
	if err != nil {
		return nil, 0, fmt.Errorf("there is no cluster in %s: %w (make cluster-up makes one)", e.dir, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, peerErr); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return conn, int(peer.Pid), nil
}

func ask(e *environment, req request) (response, int, error) {
	conn, pid, err := connect(e)
	if err != nil {
		return response{}, 0, err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return response{}, 0, err
	}
	var res response
	if err := json.NewDecoder(conn).Decode(&res); err != nil {
		return response{}, 0, fmt.Errorf("the cluster's answer: %w", err)
	}
	if res.Error != "" {
		err = errors.New(res.Error)
	}
	return res, pid, err
}

// execute becomes the command, in the cluster's network and with everything
// else as it is here.
func execute(_ context.Context, e *environment, args []string) error {
	if len(args) == 0 {
		return errors.New("exec: give a command")
	}
	res, pid, err := ask(e, request{})
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is the thread's, and the command starts from it
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the cluster's network: %w", err)
	}
	for _, variable := range append(res.Env, "CSI_IETD_CLUSTER="+e.dir) {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", program, unix.Exec(program, args, os.Environ()))
}

func node(_ context.Context, e *environment, args []string) error {
	if len(args) < 2 {
		return errors.New("node: give an operation and a node's name")
	}
	res, _, err := ask(e, request{Operation: args[0], Node: args[1], Command: args[2:]})
	if res.Output != "" {
		fmt.Println(res.Output)
	}
	return err
}

// down ends the holder and returns when it is gone.
func down(ctx context.Context, e *environment, _ []string) error {
	conn, pid, err := connect(e)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { // ends with the cluster, or with this process
		lock, err := e.lock(0)
		if err == nil {
			err = lock.Close()
		}
		gone <- err
	}()
	select {
	case err := <-gone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
