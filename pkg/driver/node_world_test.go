package driver

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
)

// world is a machine with one volume, for unit tests of the node: what survives
// the plugin's death is in it. Every step can be the one that the plugin dies
// before or after.
type world struct {
	// mkfsOptions are those of the last mkfs.
	mkfsOptions []string
	// replacement is the last login's.
	replacement time.Duration
	t           *testing.T
	// dieAt is the number of the point at which the plugin dies; 0 never.
	dieAt, point int
	steps        []string

	// The attachment.
	username string // of the live session; empty: none
	lost     bool   // the session is not logged in
	shutOut  bool   // the target would not let it in
	failed   bool   // a lost session was ended, and its I/O with it
	// recovering: the kernel still waits for the lost session.
	recovering bool
	bad        bool // the disk takes no reads
	size       int64
	number     string
	usernames  []string // of all logins
	record     bool
	refuse     error // of Attach
	// look is called at each look for traces of volumes; its error is that
	// the records cannot be seen.
	look   func() error
	heldBy error // who holds the disk
	// fail answers for a step in its place; nil: none.
	fail func(step string) error

	// The volume.
	fs     string
	data   string
	junk   bool // half a mkfs
	fsSize int64
	dirty  bool          // not unmounted cleanly
	unsure bool          // the superblock proves nothing
	probes int           // of blkid
	slow   time.Duration // mkfs and fsck

	// mounts are the paths, and what lies there.
	mounts map[string]worldMount
	stuck  chan struct{} // unmount blocks until closed
}

type worldMount struct {
	number   string
	readOnly bool
	device   bool
}

var errDead = errors.New("the plugin died")

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, size: 1 << 30, number: "8:0", mounts: map[string]worldMount{}}
}

// do is one step: dying before it, or after it.
func (w *world) do(name string, f func() error) error {
	if w.die() {
		return errDead
	}
	w.steps = append(w.steps, name)
	if w.fail != nil {
		if err := w.fail(name); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	if w.die() {
		return errDead
	}
	return nil
}

// failing are steps that fail.
func failing(steps map[string]error) func(string) error {
	return func(step string) error { return steps[step] }
}

func (w *world) die() bool {
	w.point++
	return w.dieAt > 0 && w.point >= w.dieAt
}

func (w *world) revive() { w.dieAt, w.steps = 0, nil }

// clean reports whether nothing of the volume is left on the machine.
func (w *world) clean() bool { return w.username == "" && !w.record && len(w.mounts) == 0 }

func (w *world) disk() initiator.Disk {
	return initiator.Disk{Path: "/dev/sda", Number: w.number, SizeBytes: w.size, Live: !w.lost}
}

// fakeDisks and fakeMounts are the world as the node sees it.
type fakeDisks struct{ *world }

func (w fakeDisks) Preflight(context.Context) error { return nil }

func (w fakeDisks) Attach(_ context.Context, l initiator.Login) (initiator.Disk, error) {
	err := w.do("record", func() error { w.record = true; return w.refuse })
	if err != nil {
		return initiator.Disk{}, err
	}
	err = w.do("login", func() error {
		if w.username != "" && w.username != l.Username {
			w.t.Error("login while a session of another stage is there")
		}
		w.username, w.lost, w.recovering = l.Username, false, false
		w.usernames = append(w.usernames, l.Username)
		w.replacement = l.ReplacementTimeout
		return nil
	})
	return w.disk(), err
}

func (w fakeDisks) Disk(v initiator.Volume) (initiator.Disk, error) {
	switch {
	case w.username == "" || w.lost:
		return initiator.Disk{}, initiator.ErrNotAttached
	case w.username != v.Username:
		return initiator.Disk{}, initiator.ErrWrongDevice
	case w.recovering:
		return initiator.Disk{}, initiator.ErrRecovering
	}
	return w.disk(), nil
}

func (w fakeDisks) Disks(target string) ([]initiator.Disk, error) {
	if w.username == "" {
		return nil, nil
	}
	return []initiator.Disk{w.disk()}, nil
}

func (w fakeDisks) Attached(string) (bool, error) { return w.username != "", nil }

func (w fakeDisks) Targets(_ context.Context, prefix string) ([]string, error) {
	names := []string{prefix + "not-a-volume"}
	if w.look != nil {
		if err := w.look(); err != nil {
			return names, err
		}
	}
	if w.username != "" || w.record {
		names = append(names, prefix+testVolumeUUID)
	}
	return names, nil
}

func (w fakeDisks) Rescan(_ context.Context, v initiator.Volume, size int64) (initiator.Disk, error) {
	d, err := w.Disk(v)
	if err == nil && d.SizeBytes < size {
		err = initiator.ErrTooSmall
	}
	return d, err
}

func (w fakeDisks) Fail(context.Context, string) (bool, error) {
	w.failed = w.failed || w.lost
	if w.lost && w.stuck != nil {
		close(w.stuck)
		w.stuck = nil
	}
	return w.lost, nil
}

func (w fakeDisks) ShutOut(_ context.Context, prefix string) ([]string, error) {
	if w.look != nil {
		if err := w.look(); err != nil {
			return nil, err
		}
	}
	if w.lost && w.shutOut {
		return []string{prefix + "not-a-volume", prefix + testVolumeUUID}, nil
	}
	return nil, nil
}

func (w fakeDisks) Detach(context.Context, string) error {
	if err := w.do("logout", func() error {
		if len(w.mounts) > 0 {
			w.t.Errorf("logout under mounts: %v", w.mounts)
		}
		w.username, w.lost = "", false
		return nil
	}); err != nil {
		return err
	}
	return w.do("delete record", func() error { w.record = false; return nil })
}

type fakeMounts struct{ *world }

func (w fakeMounts) Filesystem(context.Context, string) (string, error) {
	w.probes++
	if w.junk {
		return "", mount.ErrNotEmpty
	}
	return w.fs, nil
}

// work takes the time that mkfs and fsck take, unless they are killed.
func (w *world) work(ctx context.Context) error {
	if w.slow == 0 {
		return nil
	}
	select {
	case <-time.After(w.slow):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w fakeMounts) Format(ctx context.Context, _, fsType string, options []string) error {
	w.mkfsOptions = options
	if w.fs != "" || w.data != "" || w.junk {
		w.t.Errorf("mkfs over %q %q", w.fs, w.data)
	}
	if err := w.do("mkfs begins", func() error { w.junk = true; return nil }); err != nil {
		return err
	}
	if err := w.work(ctx); err != nil {
		return err
	}
	return w.do("mkfs ends", func() error { w.junk, w.fs, w.fsSize = false, fsType, w.size; return nil })
}

func (w fakeMounts) Inspect(_ context.Context, _, fsType string) (mount.Superblock, error) {
	if w.junk || w.fs != fsType {
		return mount.Superblock{}, mount.ErrOtherFilesystem
	}
	return mount.Superblock{Bytes: w.fsSize, BlockBytes: 4096, Clean: !w.dirty, Sound: !w.unsure}, nil
}

func (w fakeMounts) Wipe(context.Context, string) error {
	return w.do("wipe", func() error {
		if w.data != "" {
			w.t.Errorf("wiped %q", w.data)
		}
		w.fs, w.junk = "", false
		return nil
	})
}

func (w fakeMounts) Check(ctx context.Context, _, _ string) error {
	if err := w.work(ctx); err != nil {
		return err
	}
	return w.do("fsck", func() error { w.dirty = false; return nil })
}

func (w fakeMounts) ReadProbe(context.Context, string) error {
	if w.bad {
		return errors.New("input/output error")
	}
	return nil
}

func (w fakeMounts) Unused(context.Context, string) error { return w.heldBy }

func (w fakeMounts) Mount(_ context.Context, _, number, path, _ string, _ []string, readOnly bool) error {
	return w.do("mount", func() error { w.mounts[path] = worldMount{number, readOnly, false}; return nil })
}

func (w fakeMounts) Verify(path, number string, readOnly bool) error {
	if m, ok := w.mounts[path]; !ok || m != (worldMount{number, readOnly, false}) {
		return mount.ErrWrongMount
	}
	return nil
}

func (w fakeMounts) Bind(_ context.Context, source, number, path string, _ []string, readOnly bool) error {
	return w.do("bind", func() error {
		if w.mounts[source].number != number {
			w.t.Errorf("bind of %s, which is no mount of %s", source, number)
		}
		w.mounts[path] = worldMount{number, readOnly, false}
		return nil
	})
}

func (w fakeMounts) BindDevice(_ context.Context, _, number, path string) error {
	return w.do("bind device", func() error { w.mounts[path] = worldMount{number, false, true}; return nil })
}

func (w fakeMounts) VerifyDevice(path, number string) error {
	if m, ok := w.mounts[path]; !ok || m != (worldMount{number, false, true}) {
		return mount.ErrWrongMount
	}
	return nil
}

func (w fakeMounts) At(path string) ([]mount.Entry, error) {
	m, ok := w.mounts[path]
	if !ok {
		return nil, nil
	}
	return []mount.Entry{{Path: path, Number: m.number, ReadOnly: m.readOnly}}, nil
}

func (w fakeMounts) Of(number, _ string) ([]mount.Entry, error) {
	var entries []mount.Entry
	for path, m := range w.mounts {
		if m.number == number {
			entries = append(entries, mount.Entry{Path: path, Number: number})
		}
	}
	return entries, nil
}

func (w fakeMounts) Sync(context.Context, string) error {
	return w.do("sync", func() error { return nil })
}

func (w fakeMounts) Unmount(ctx context.Context, path string) error {
	if w.stuck != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return w.do("unmount", func() error { delete(w.mounts, path); return nil })
}

func (w fakeMounts) RemoveTarget(ctx context.Context, path string) error {
	return w.Unmount(ctx, path)
}

func (w fakeMounts) Grow(context.Context, string, string, string) error {
	return w.do("grow", func() error { w.fsSize = w.size; return nil })
}

func (w fakeMounts) Statfs(context.Context, string) (mount.Stats, error) {
	return mount.Stats{TotalBytes: w.size}, nil
}

const (
	testVolumeID = "pool-1." + testVolumeUUID
	testStaging  = "/kubelet/staging/globalmount"
	testTarget   = "/kubelet/pods/1/mount"
)

// nodeRig is a plugin on a world; restart gives its successor.
type nodeRig struct {
	*Node
	t   *testing.T
	w   *world
	dir string
	id  NodeIdentity
	pc  PublishContext
	cap *csi.VolumeCapability
}

func newNodeRig(t *testing.T) *nodeRig {
	t.Helper()
	r := &nodeRig{t: t, w: newWorld(t), dir: t.TempDir(), id: testIdentity(t), pc: testPublishContext()}
	r.cap = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	r.restart()
	return r
}

func (r *nodeRig) restart() {
	r.t.Helper()
	o := DefaultNodeOptions()
	o.PluginDir, o.NodeName, o.DetachGrace = r.dir, "node-1", 10*time.Millisecond
	n, err := newNode(o, r.id, fakeDisks{r.w}, fakeMounts{r.w}, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Node = n
}

func nodeMountCapability(fsType string, mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
}

func nodeBlockCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func (r *nodeRig) stageRequest() *csi.NodeStageVolumeRequest {
	r.t.Helper()
	sealed, err := r.pc.Seal(r.id.NodeID)
	if err != nil {
		r.t.Fatal(err)
	}
	return &csi.NodeStageVolumeRequest{
		VolumeId: testVolumeID, StagingTargetPath: testStaging, VolumeCapability: r.cap, PublishContext: sealed,
	}
}

func (r *nodeRig) stageVolume() error {
	r.t.Helper()
	_, err := r.NodeStageVolume(r.t.Context(), r.stageRequest())
	return err
}

func (r *nodeRig) unstageVolume() error {
	_, err := r.NodeUnstageVolume(r.t.Context(), &csi.NodeUnstageVolumeRequest{
		VolumeId: testVolumeID, StagingTargetPath: testStaging,
	})
	return err
}

func (r *nodeRig) publishVolume(path string) error {
	_, err := r.NodePublishVolume(r.t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: testVolumeID, StagingTargetPath: testStaging, TargetPath: path, VolumeCapability: r.cap,
	})
	return err
}

func (r *nodeRig) unpublishVolume(path string) error {
	_, err := r.NodeUnpublishVolume(r.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: testVolumeID, TargetPath: path})
	return err
}

func (r *nodeRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *nodeRig) refused(err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) {
		r.t.Errorf("got %v, want %v", err, want)
	}
}

// gone fails the test unless nothing of the volume is left.
func (r *nodeRig) gone() {
	r.t.Helper()
	if left, _ := os.ReadDir(filepath.Join(r.dir, "volumes")); !r.w.clean() || len(left) > 0 {
		r.t.Errorf("left: session %q, record %v, mounts %v, files %v", r.w.username, r.w.record, r.w.mounts, left)
	}
}

// live fails the test unless the volume is staged, with its last login's nonce.
func (r *nodeRig) live() {
	r.t.Helper()
	st, err := r.stages.load(testVolumeUUID)
	if err != nil || st == nil || !st.Staged || st.Formatting {
		r.t.Fatalf("stage %+v, %v", st, err)
	}
	if st.volume().Username != r.w.username || r.w.fs != st.Capability.FSType {
		r.t.Errorf("session %q, file system %q of %+v", r.w.username, r.w.fs, st)
	}
	if slices.Contains(r.w.usernames[:len(r.w.usernames)-1], r.w.username) {
		r.t.Errorf("a staging reused a nonce: %q", r.w.usernames)
	}
}
