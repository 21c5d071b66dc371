// Command cluster keeps a Kubernetes cluster in the lab:
//
//	cluster up [ARCHIVE...]      make it, with these images besides its own; returns when its nodes are Ready
//	cluster exec COMMAND...      run a command in its network, kubectl being its administrator's
//	cluster node OPERATION NAME  kill (a power cut), start, cut (its network), restore; exec NAME COMMAND...
//	cluster down                 end it; nothing is left
//
// The cluster lives in a process of its own ("cluster serve"), which holds the
// lab; the others find it by its socket in -dir.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// environment is what every command knows.
type environment struct {
	dir     string // of the socket and the log
	nodes   int
	isolate bool
}

func (e *environment) socket() string { return filepath.Join(e.dir, "control.sock") }
func (e *environment) log() string    { return filepath.Join(e.dir, "cluster.log") }

// lock takes the lock that the cluster's process holds while it lives, or fails
// at once if how is LOCK_NB. Closing the file gives it back.
func (e *environment) lock(how int) (*os.File, error) {
	f, err := os.Create(filepath.Join(e.dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var commands = map[string]func(context.Context, *environment, []string) error{
	"up":    up,
	"serve": serve,
	"exec":  execute,
	"node":  node,
	"down":  down,
}

func main() {
	e := &environment{}
	flag.StringVar(&e.dir, "dir", "bin/cluster", "`directory` of the cluster's socket and log")
	flag.IntVar(&e.nodes, "nodes", 2, "how many nodes")
	flag.BoolVar(&e.isolate, "isolate", true, "the last node has its kubelet in a network namespace of its own, as in a kind node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, e, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, e *environment, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("give one of up, exec, node, down")
	}
	if e.nodes < 1 || e.nodes > 20 {
		return fmt.Errorf("-nodes %d: give 1 to 20", e.nodes)
	}
	var err error
	if e.dir, err = filepath.Abs(e.dir); err != nil {
		return err
	}
	return commands[args[0]](ctx, e, args[1:])
}
