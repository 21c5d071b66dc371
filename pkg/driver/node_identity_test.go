package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNodeIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadNodeIdentity(dir, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ParseNodeID(first.NodeID.String()); err != nil || id != first.NodeID {
		t.Errorf("the id does not parse: %v, %v", id, err)
	}
	again, err := LoadNodeIdentity(dir, "node-1")
	if err != nil || again != first {
		t.Errorf("the identity changed: %v, %v", again, err)
	}
	info, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	key := fmt.Sprintf("%v", first.PrivateKey)
	if s := fmt.Sprintf("%v %+v %#v %s", first, first, first, first); strings.Contains(s, key) {
		t.Error("a printed identity shows its key")
	}
}

func TestCloneOfADiskGetsAnIdentityOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadNodeIdentity(dir, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	clone, err := LoadNodeIdentity(dir, "node-2")
	if err != nil || clone.UUID == first.UUID || clone.PublicKey == first.PublicKey {
		t.Errorf("node-2 is %v, %v", clone, err)
	}
	if again, err := LoadNodeIdentity(dir, "node-2"); err != nil || again != clone {
		t.Errorf("node-2 changed: %v, %v", again, err)
	}
}

func TestDamagedIdentityIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	if _, err := LoadNodeIdentity(dir, "node-1"); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if err := os.WriteFile(path, good[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := LoadNodeIdentity(dir, "node-1"); err == nil {
			t.Fatalf("cut at %d: %v", i, id)
		}
	}
}

func TestNodeOptions(t *testing.T) {
	o := DefaultNodeOptions()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if o.PluginDir != "/var/lib/kubelet/plugins/csi-ietd.io" || o.NodeName == "" {
		t.Errorf("got %+v", o)
	}
	for name, spoil := range map[string]func(*NodeOptions){
		"--endpoint": func(o *NodeOptions) { o.Endpoint = "tcp://0.0.0.0:1" }, "--kubelet-root": func(o *NodeOptions) { o.KubeletRoot = "x" },
		"--plugin-dir": func(o *NodeOptions) { o.PluginDir = "x" }, "--host-proc": func(o *NodeOptions) { o.HostProc = "" }, "--max-volumes": func(o *NodeOptions) { o.MaxVolumes = 0 },
		"--replacement-timeout": func(o *NodeOptions) { o.ReplacementTimeout = time.Second }, "--detach-grace": func(o *NodeOptions) { o.DetachGrace = 0 },
	} {
		o := DefaultNodeOptions()
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
