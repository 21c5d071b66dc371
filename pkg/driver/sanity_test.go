package driver

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
)

// standInNode is what csi-sanity needs of a node to test a controller: a
// node_id, and a clean-up that succeeds.
type standInNode struct {
	csi.UnimplementedNodeServer
	id string
}

func (n standInNode) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.id}, nil
}

func (standInNode) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (standInNode) NodeUnpublishVolume(context.Context, *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// TestSanity runs csi-sanity's Identity and Controller tests over the real
// pool and the real target. The Node tests need a kernel: they run against the
// real node, in a guest.
func TestSanity(t *testing.T) {
	_, nodeID := testNode(t, 'a')
	r := newControllerRig(t, func(s *grpc.Server) { csi.RegisterNodeServer(s, standInNode{id: nodeID}) })
	dir := t.TempDir()
	config := sanity.NewTestConfig()
	config.Address = "unix://" + r.socket
	config.TargetPath = filepath.Join(dir, "target")
	config.StagingPath = filepath.Join(dir, "staging")
	config.TestVolumeSize = 16 * testMiB
	config.TestVolumeExpandSize = 32 * testMiB

	tests := sanity.GinkgoTest(&config)
	defer tests.Finalize()
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.SkipStrings = []string{"Node Service"}
	reporter.Succinct, reporter.NoColor = true, true
	if !ginkgo.RunSpecs(t, "csi-sanity, controller", suite, reporter) {
		t.Error("csi-sanity failed")
	}
}
