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
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/test/e2e/cluster"
	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// What the first life, outside the namespaces, hands to the second.
const (
	programsEnv = "CSI_IETD_CLUSTER_PROGRAMS"
	imagesEnv   = "CSI_IETD_CLUSTER_IMAGES"
)

// serve is the process that holds the cluster. It builds what is missing
// before the lab's namespaces, which have no way out, are made.
func serve(ctx context.Context, e *environment, archives []string) error {
	if os.Getenv(programsEnv) == "" { // the first life
		lock, err := e.lock(unix.LOCK_NB)
		if err != nil {
			return fmt.Errorf("there is a cluster in %s already: %w", e.dir, err)
		}
		defer lock.Close()
		if err := build(); err != nil {
			return err
		}
	}
	if lab.Main(func() int { return hold(ctx, e, archives) }) != 0 {
		return errors.New("the cluster ended with an error")
	}
	return nil
}

// build runs the scripts that say where the programs and the images are.
func build() error {
	for script, variable := range map[string]string{"build": programsEnv, "images": imagesEnv} {
		cmd := exec.Command(filepath.Join("test/e2e/cluster/build", script))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: %w", cmd.Path, err)
		}
		if err := os.Setenv(variable, strings.TrimSpace(string(out))); err != nil {
			return err
		}
	}
	return nil
}

// hold makes the cluster and does what the other commands ask for, until ctx
// ends.
func hold(ctx context.Context, e *environment, archives []string) int {
	if err := holdCluster(ctx, e, archives); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
	return 0
}

func holdCluster(ctx context.Context, e *environment, archives []string) (err error) {
	images, err := filepath.Glob(filepath.Join(os.Getenv(imagesEnv), "*.tar"))
	if err != nil {
		return err
	}
	c, err := cluster.Up(ctx, cluster.Config{
		Nodes: e.nodes, Isolate: e.isolate, Programs: os.Getenv(programsEnv), Images: append(images, archives...), Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	listener, err := net.Listen("unix", e.socket())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		calls.Go(func() { answer(ctx, c, conn) })
	}
}

// request is one line on the socket: what to do to a node; none asks for the
// environment of kubectl.
type request struct {
	Operation, Node string
	Command         []string
}

// response is the answer's first line; what a command printed follows.
type response struct {
	Error  string
	Env    []string
	Output string
}

func answer(ctx context.Context, c *cluster.Cluster, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, 1<<20)).Decode(&req); err != nil {
		return
	}
	res := response{Env: c.KubectlEnv()}
	if req.Operation != "" {
		var err error
		if res.Output, err = operate(ctx, c, req); err != nil {
			res.Error = err.Error()
		}
	}
	_ = json.NewEncoder(conn).Encode(res) // whoever asked may have gone
}

func operate(ctx context.Context, c *cluster.Cluster, req request) (string, error) {
	n, err := c.Node(req.Node)
	if err != nil {
		return "", err
	}
	switch req.Operation {
	case "kill":
		n.Kill()
	case "start":
		if err := n.PowerOn(ctx); err != nil {
			return "", err
		}
		return "", n.AwaitReady(ctx)
	case "cut":
		return "", n.CutNetwork()
	case "restore":
		return "", n.RestoreNetwork()
	case "exec":
		return n.Output(ctx, req.Command...)
	default:
		return "", fmt.Errorf("unknown operation %q: give kill, start, cut, restore or exec", req.Operation)
	}
	return "", nil
}
