package command

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// runningController is `csi-ietd controller` in this process.
type runningController struct {
	csi.ControllerClient
	csi.IdentityClient
	log  func() string
	stop func()
}

// startController runs the command with these flags until stop.
func startController(t *testing.T, dir string, flags ...string) *runningController {
	t.Helper()
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	socket := filepath.Join(dir, "csi.sock")
	cmd := newControllerCommand()
	cmd.SetArgs(append([]string{"--endpoint=unix://" + socket, "--pool-dir=" + filepath.Join(dir, "pool")}, flags...))
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("controller: %v", err)
		}
	}
	t.Cleanup(stop)
	return &runningController{csi.NewControllerClient(conn), csi.NewIdentityClient(conn),
		func() string { return logger.GetSink().(ktesting.Underlier).GetBuffer().String() }, stop}
}

// TestControllerRestarts: what was made and attached is there again, under the
// same names, and the log says in one line what is served.
func TestControllerRestarts(t *testing.T) {
	dir := t.TempDir()
	portal := freePortal(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
	const nodeID = "0123456789abcdef0123456789abcdef.AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
	var first, again *csi.ControllerPublishVolumeResponse
	for _, resp := range []**csi.ControllerPublishVolumeResponse{&first, &again} {
		c := startController(t, dir, "--listen-address="+portal)
		if probe, err := c.Probe(ctx, &csi.ProbeRequest{}); err != nil || !probe.GetReady().GetValue() {
			t.Fatalf("Probe = %v, %v", probe, err)
		}
		conn, err := net.Dial("tcp", portal)
		if err != nil {
			t.Fatalf("the portal does not answer: %v", err)
		}
		conn.Close()
		v, err := c.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{capability},
			CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		*resp, err = c.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolume().GetVolumeId(),
			NodeId: nodeID, VolumeCapability: capability})
		if err != nil {
			t.Fatal(err)
		}
		c.stop()
		if n := strings.Count(c.log(), "Serving"); n != 1 || !strings.Contains(c.log(), portal) {
			t.Errorf("%d lines say what is served:\n%s", n, c.log())
		}
	}
	for key, want := range first.GetPublishContext() {
		if got := again.GetPublishContext()[key]; got != want && key != "credentials" { // sealed anew
			t.Errorf("%s was %q and is %q", key, want, got)
		}
	}
	if first.GetPublishContext()["portals"] != portal {
		t.Errorf("portals = %q, want %q", first.GetPublishContext()["portals"], portal)
	}
}

// freePortal is a loopback address with a port that nobody listens on.
// freePortal is an address that nobody listens on. The kernel gives it to no connection
// of another test's meanwhile.
func freePortal(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func TestControllerRefuses(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, tt := range map[string]struct {
		flags []string
		want  string
	}{
		"a bad flag":    {[]string{"--pool-dir=relative"}, "--pool-dir"},
		"an argument":   {[]string{"extra"}, "extra"},
		"a taken port":  {[]string{"--listen-address=" + busy.Addr().String()}, "address already in use"},
		"a TCP socket":  {[]string{"--endpoint=tcp://127.0.0.1:1"}, "--endpoint"},
		"a host's name": {[]string{"--portal=storage:3260"}, "--portal"},
	} {
		cmd := newControllerCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append([]string{"--pool-dir=" + t.TempDir()}, tt.flags...))
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

// TestControllerAdmin: ietadm shows what the controller serves, and changes nothing.
func TestControllerAdmin(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "ietadm.sock")
	c := startController(t, dir, "--listen-address="+freePortal(t), "--ietadm-socket="+socket)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	made, err := c.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: "pvc-1", CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(made.GetVolume().GetVolumeId(), ".") // behind the pool's
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--op", "show"}, 0, ":" + id + "\n\tlun:0 state:0 iotype:fileio iomode:wb blocks:2048 blocksize:512\n"},
		{[]string{"--op", "show", "--proc", "volume"}, 0, "tid:1 name:"},
		{[]string{"--op", "show", "--proc", "session"}, 0, ":" + id + "\n"},
		{[]string{"--op", "show", "--json"}, 0, `"blocks":2048`},
		{[]string{"--op", "show", "--tid=1"}, 255, "only --op show"},
		{[]string{"--op", "delete", "--tid=1"}, 255, "PersistentVolumeClaims"},
		{[]string{"--op", "save"}, 255, "PersistentVolumeClaims"},
	} {
		var out output
		program := newProgram("ietadm")
		program.SetOut(&out)
		got := run(ctx, program, append([]string{"--socket", socket}, tt.args...), &out)
		if got != tt.status || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%q: status %d, want %d; it says %s, want %q", tt.args, got, tt.status, &out, tt.want)
		}
	}
	c.stop()
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("the socket is still answered")
	}
}
