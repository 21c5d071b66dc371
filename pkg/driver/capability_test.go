package driver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// TestAdvertised is what Kubernetes' sidecars and kubelet go by. Without
// SINGLE_NODE_MULTI_WRITER on both sides ReadWriteOncePod is refused, without
// LIST_VOLUMES_PUBLISHED_NODES the attacher cannot compare its attachments with
// ours. VOLUME_MOUNT_GROUP is not among them: kubelet sets the group.
func TestAdvertised(t *testing.T) {
	c, err := (&Controller{}).ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var controller []string
	for _, x := range c.GetCapabilities() {
		controller = append(controller, x.GetRpc().GetType().String())
	}
	n, err := (&Node{}).NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var node []string
	for _, x := range n.GetCapabilities() {
		node = append(node, x.GetRpc().GetType().String())
	}
	for what, x := range map[string]struct{ got, want []string }{
		"controller": {controller, []string{"CREATE_DELETE_VOLUME", "EXPAND_VOLUME", "GET_CAPACITY", "LIST_VOLUMES",
			"LIST_VOLUMES_PUBLISHED_NODES", "PUBLISH_READONLY", "PUBLISH_UNPUBLISH_VOLUME", "SINGLE_NODE_MULTI_WRITER"}},
		"node": {node, []string{"EXPAND_VOLUME", "GET_VOLUME_STATS", "SINGLE_NODE_MULTI_WRITER", "STAGE_UNSTAGE_VOLUME"}},
	} {
		slices.Sort(x.got)
		if !slices.Equal(x.got, x.want) {
			t.Errorf("%s: %s; want %s", what, strings.Join(x.got, " "), strings.Join(x.want, " "))
		}
	}
}

// TestReadWriteOncePod: made and published as Kubernetes asks for it, and kept
// from another node.
func TestReadWriteOncePod(t *testing.T) {
	r := newControllerRig(t)
	oncePod := mountCapability("ext4")
	oncePod.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	v, err := r.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{oncePod}})
	if err != nil {
		t.Fatal(err)
	}
	_, nodeA := testNode(t, 'a')
	_, nodeB := testNode(t, 'b')
	publish := func(nodeID string) error {
		_, err := r.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolume().GetVolumeId(),
			NodeId: nodeID, VolumeCapability: oncePod})
		return err
	}
	if err := publish(nodeA); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "on a second node", publish(nodeB), codes.FailedPrecondition)
	list, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || !slices.Equal(list.GetEntries()[0].GetStatus().GetPublishedNodeIds(), []string{nodeA}) {
		t.Errorf("%v, %v", list, err)
	}
}
