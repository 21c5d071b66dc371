package command

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
)

// runningNode is `csi-ietd node` in this process, under a kubelet root of its
// own.
type runningNode struct {
	root, csiSocket, regSocket string
	done                       <-chan error
	stop                       context.CancelFunc
}

func startNode(t *testing.T, root string, flags ...string) *runningNode {
	t.Helper()
	n := &runningNode{
		root: root, csiSocket: filepath.Join(root, "plugins/csi-ietd.io/csi.sock"),
		regSocket: filepath.Join(root, "plugins_registry/csi-ietd.io-reg.sock"),
	}
	if err := os.MkdirAll(filepath.Dir(n.regSocket), 0o700); err != nil {
		t.Fatal(err)
	}
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
	n.stop = stop
	cmd := newNodeCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--kubelet-root=" + root, "--node-name=n1", "--endpoint=unix://" + n.csiSocket,
		"--registration-dir=" + filepath.Dir(n.regSocket)}, flags...))
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx); close(done) }()
	n.done = done
	t.Cleanup(func() {
		stop()
		for range done {
		}
	})
	return n
}

// unixClient waits until the socket is served.
func unixClient(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestNodeRegisters goes kubelet's way: the registration's socket, then the CSI
// socket that it names; and both are gone at the end.
func TestNodeRegisters(t *testing.T) {
	n := startNode(t, t.TempDir())
	kubelet := registerapi.NewRegistrationClient(unixClient(t, n.regSocket))
	info, err := kubelet.GetInfo(shortly(t), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetEndpoint() != n.csiSocket || info.GetName() != driver.Name {
		t.Fatalf("GetInfo = %v", info)
	}
	node, err := csi.NewNodeClient(unixClient(t, info.GetEndpoint())).NodeGetInfo(shortly(t), &csi.NodeGetInfoRequest{})
	if err != nil || node.GetNodeId() == "" {
		t.Errorf("NodeGetInfo = %v, %v", node, err)
	}
	second := startNode(t, n.root)
	if err := <-second.done; !errors.Is(err, driver.ErrSecondPlugin) {
		t.Errorf("a second plugin in the same directory: %v", err)
	}
	elsewhere := startNode(t, n.root, "--plugin-dir="+t.TempDir(), "--endpoint="+filepath.Join(t.TempDir(), "csi.sock"))
	if err := <-elsewhere.done; !errors.Is(err, driver.ErrSecondPlugin) {
		t.Errorf("a second plugin with another directory: %v", err)
	}
	n.stop()
	if err := <-n.done; err != nil {
		t.Errorf("at its end: %v", err)
	}
	for _, socket := range []string{n.csiSocket, n.regSocket} {
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", socket, err)
		}
	}
}

// TestNodeRefusedByKubelet: the process ends with kubelet's words.
func TestNodeRefusedByKubelet(t *testing.T) {
	n := startNode(t, t.TempDir())
	kubelet := registerapi.NewRegistrationClient(unixClient(t, n.regSocket))
	refusal := &registerapi.RegistrationStatus{Error: "no such CSINode"}
	if _, err := kubelet.NotifyRegistrationStatus(shortly(t), refusal); err != nil {
		t.Error(err)
	}
	if err := <-n.done; !errors.Is(err, driver.ErrRegistrationRefused) || !strings.Contains(err.Error(), "no such CSINode") {
		t.Errorf("ended with %v", err)
	}
}

func TestNodeRefuses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // also where the tests run in a pod
	for want, flags := range map[string][]string{
		"--registration-dir": {"--registration-dir=relative"},
		"plugins_registry":   {"--registration-dir=/nonexistent"},
		"--max-volumes":      {"--max-volumes=0"},
		"service account":    {"--remove-startup-taint"},
		"--http-address":     {"--http-address=9811"},
	} {
		n := startNode(t, t.TempDir(), flags...)
		if err := <-n.done; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", flags, err, want)
		}
	}
}
