package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// DriverName is what Kubernetes knows csi-ietd by.
const DriverName = "csi-ietd.io"

// kubelet's directories.
const (
	kubeletRoot = "/var/lib/kubelet"
	pluginDir   = kubeletRoot + "/plugins/" + DriverName
	csiDir      = kubeletRoot + "/plugins/kubernetes.io/csi"
)

// NodeSocket is the node plugin's CSI socket in its guest.
const NodeSocket = pluginDir + "/csi.sock"

// Node is csi-ietd node in a guest.
type Node struct {
	*Service
	csi.NodeClient
	Guest *Guest
	ID    string // node_id, as NodeGetInfo gave it last

	capabilities []csi.NodeServiceCapability_RPC_Type
}

// StartNode runs csi-ietd node in a guest. More flags may follow.
func (l *Lab) StartNode(ctx context.Context, g *Guest, flags ...string) (*Node, error) {
	args := append([]string{"node", verbose, "--endpoint", "unix://" + NodeSocket,
		"--kubelet-root", kubeletRoot, "--plugin-dir", pluginDir, "--node-name", g.Name}, flags...)
	if err := g.MkdirAll(ctx, pluginDir, 0o755); err != nil { // kubelet makes it
		return nil, err
	}
	n := &Node{Guest: g}
	var err error
	if n.Service, err = l.startService(ctx, g.Machine, "node", NodeSocket, args); err != nil {
		return nil, err
	}
	n.NodeClient = csi.NewNodeClient(n.Conn)
	answer, err := n.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return nil, err
	}
	for _, capability := range answer.Capabilities {
		n.capabilities = append(n.capabilities, capability.GetRpc().GetType())
	}
	return n, n.Register(ctx)
}

// Can reports whether the node advertises a capability.
func (n *Node) Can(capability csi.NodeServiceCapability_RPC_Type) bool {
	return slices.Contains(n.capabilities, capability)
}

// Register asks the plugin who it is, as kubelet does when it registers.
func (n *Node) Register(ctx context.Context) error {
	info, err := n.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	n.ID = info.NodeId
	return nil
}

// stagingDir is kubelet's directory of a staged volume; the file system is
// mounted on globalmount in it.
func (v *Volume) stagingDir() string {
	if v.Claim.Block {
		return path.Join(csiDir, "volumeDevices/staging", v.Claim.Name)
	}
	return path.Join(csiDir, DriverName, fmt.Sprintf("%x", sha256.Sum256([]byte(v.ID))))
}

// StagingPath is the staging_target_path that kubelet gives.
func (v *Volume) StagingPath() string {
	if v.Claim.Block {
		return v.stagingDir()
	}
	return path.Join(v.stagingDir(), "globalmount")
}

// TargetPath is the target_path that kubelet gives for a pod: its parent
// exists, itself not.
func (v *Volume) TargetPath(pod string) string {
	if v.Claim.Block {
		return path.Join(csiDir, "volumeDevices/publish", v.Claim.Name, pod)
	}
	return path.Join(kubeletRoot, "pods", pod, "volumes/kubernetes.io~csi", v.Claim.Name, "mount")
}
