package driver

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registered is a registration being served.
type registered struct {
	registerapi.RegistrationClient
	dir  string
	done <-chan error
	stop func()
}

func newRegistered(t *testing.T) *registered {
	t.Helper()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
	listener, err := ListenRegistration(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- ServeRegistration(ctx, listener, "unix:///var/lib/kubelet/plugins/csi-ietd.io/csi.sock")
	}()
	t.Cleanup(stop)
	conn := dial(t, filepath.Join(dir, "csi-ietd.io-reg.sock"))
	return &registered{registerapi.NewRegistrationClient(conn), dir, done, stop}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestRegistration goes the way of kubelet's plugin watcher.
func TestRegistration(t *testing.T) {
	r := newRegistered(t)
	info, err := r.GetInfo(soon(t), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetType() != "CSIPlugin" || info.GetName() != "csi-ietd.io" ||
		info.GetEndpoint() != "/var/lib/kubelet/plugins/csi-ietd.io/csi.sock" ||
		len(info.GetSupportedVersions()) != 1 || info.GetSupportedVersions()[0] != "1.0.0" {
		t.Errorf("GetInfo = %v", info)
	}
	if _, err := r.NotifyRegistrationStatus(soon(t), &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	assertMode(t, filepath.Join(r.dir, registrationSocket), 0o600)
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("at its end: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(r.dir, registrationSocket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestRegistrationRefused: kubelet's words end the process, and whatever their
// length, kubelet gets its answer.
func TestRegistrationRefused(t *testing.T) {
	r := newRegistered(t)
	words := "the plugin has no node id" + strings.Repeat("!", 5000)
	if _, err := r.NotifyRegistrationStatus(soon(t), &registerapi.RegistrationStatus{Error: words}); err != nil {
		t.Error(err)
	}
	err := <-r.done
	if !errors.Is(err, ErrRegistrationRefused) || !strings.Contains(err.Error(), "the plugin has no node id") {
		t.Errorf("ended with %v", err)
	}
	if len(err.Error()) > 2200 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

// TestRegistrationRefusedTwice: nobody waits where the first refusal is not
// taken yet.
func TestRegistrationRefusedTwice(t *testing.T) {
	r := &registration{log: logr.Discard(), refused: make(chan error, 1)}
	for _, words := range []string{"first", "second"} {
		if _, err := r.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{Error: words}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-r.refused; !strings.Contains(err.Error(), "first") {
		t.Errorf("%v", err)
	}
}

// TestSecondPlugin: one that is alive is told of by its own words and is not
// disturbed; one that does not speak counts as alive; a dead one is replaced.
func TestSecondPlugin(t *testing.T) {
	r := newRegistered(t)
	_, err := ListenRegistration(soon(t), r.dir)
	if !errors.Is(err, ErrSecondPlugin) || !strings.Contains(err.Error(), "/var/lib/kubelet/plugins/csi-ietd.io/csi.sock") ||
		!strings.Contains(err.Error(), "remove the other installation") {
		t.Errorf("a second plugin: %v", err)
	}
	if _, err := r.GetInfo(soon(t), &registerapi.InfoRequest{}); err != nil {
		t.Errorf("the first suffered: %v", err)
	}

	dir := t.TempDir()
	path := filepath.Join(dir, registrationSocket)
	silent, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenRegistration(soon(t), dir); !errors.Is(err, ErrSecondPlugin) {
		t.Errorf("beside one that is silent: %v", err)
	}
	silent.SetUnlinkOnClose(false)
	silent.Close()
	l, err := ListenRegistration(soon(t), dir)
	if err != nil {
		t.Fatalf("after one that is dead: %v", err)
	}
	l.Close()
}

func TestRegistrationDirMustExist(t *testing.T) {
	_, err := ListenRegistration(soon(t), filepath.Join(t.TempDir(), "plugins_registry"))
	if err == nil || !strings.Contains(err.Error(), "--registration-dir") {
		t.Errorf("%v", err)
	}
	if _, err := ListenRegistration(soon(t), "/"+strings.Repeat("d/", 60)); err == nil {
		t.Error("a path longer than a socket's was taken")
	}
}

// TestServeEndsOnFailure: what is sent on failed ends the server, with calls in
// flight let finish.
func TestServeEndsOnFailure(t *testing.T) {
	l, err := Listen(t.Context(), filepath.Join(t.TempDir(), "csi.sock"))
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	failed <- ErrRegistrationRefused
	if err := serve(t.Context(), l, grpc.NewServer(), failed); !errors.Is(err, ErrRegistrationRefused) {
		t.Errorf("%v", err)
	}
}
