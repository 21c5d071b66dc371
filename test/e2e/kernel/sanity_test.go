package kernel

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// sanityReport is what csi-sanity writes: Ginkgo's JSON, as far as it matters.
type sanityReport struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
		Failure                 struct{ Message string }
	}
}

// TestSanity runs kubernetes-csi's sanity suite in full, in a guest, against
// the node plugin there and the controller outside.
func TestSanity(t *testing.T) {
	c := newCluster(t, patient)
	g := c.nodes[0].Guest
	carried, err := c.lab.CarryIn(t.Context(), g, lab.ControllerSocket, lab.ControllerSocket)
	must(t, err)
	defer carried.Close()
	binary, err := c.lab.Binary(g.Machine, lab.Sanity)
	must(t, err)
	for _, access := range []string{"mount", "block"} {
		t.Run(access, func(t *testing.T) {
			report := "/tmp/sanity-" + access + ".json"
			out, err := g.Output(t.Context(), binary, "-node", "unix://"+lab.NodeSocket,
				"-controller", "unix://"+lab.ControllerSocket, "-access", access, "-report", report)
			if err != nil && lab.ExitCode(err) != 1 {
				t.Fatal(err)
			}
			text, readErr := g.ReadFile(t.Context(), report)
			must(t, readErr)
			checkSanity(t, c, text)
			if err != nil {
				t.Errorf("csi-sanity failed:\n%s", out)
			}
			checkClean(t, c.nodes[0])
		})
	}
}

// checkSanity fails on a failed spec, on one that was skipped though the driver
// says that it can, and on a report that holds too little to be the suite.
func checkSanity(t *testing.T, c *cluster, text []byte) {
	t.Helper()
	var reports []sanityReport
	must(t, json.Unmarshal(text, &reports))
	excused := excuses(c)
	passed := 0
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			switch {
			case spec.State == "passed" && spec.LeafNodeType == "It":
				passed++
			case spec.State == "passed", spec.State == "pending": // pending: switched off by its authors
			case spec.State == "skipped" && excused[spec.Failure.Message]:
			default:
				t.Errorf("%s: %s: %s", spec.State, name, spec.Failure.Message)
			}
		}
	}
	t.Logf("%d specs passed", passed)
	if passed < 40 {
		t.Errorf("only %d specs passed", passed)
	}
}

// excuses are the words with which the suite skips what the driver does not
// advertise; whatever it does advertise has none.
func excuses(c *cluster) map[string]bool {
	// The scheduler keeps to max_volumes_per_node; CSI asks no more of it.
	words := map[string]bool{"testnodevolumeattachlimit not enabled": true}
	excuse := func(missing bool, texts ...string) {
		for _, text := range texts {
			words[text] = missing
		}
	}
	rpc := func(capability csi.ControllerServiceCapability_RPC_Type, texts ...string) {
		excuse(!c.controller.Can(capability), texts...)
	}
	rpc(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		"Snapshot not supported", "DeleteSnapshot not supported", "CreateSnapshot not supported",
		"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported")
	rpc(csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS, "ListSnapshots not supported")
	rpc(csi.ControllerServiceCapability_RPC_GET_SNAPSHOT, "GetSnapshot not supported")
	rpc(csi.ControllerServiceCapability_RPC_CLONE_VOLUME, "Volume Cloning not supported")
	rpc(csi.ControllerServiceCapability_RPC_MODIFY_VOLUME,
		"Modify volume not supported", "Modify Volume not supported", "ControllerModifyVolume not supported")
	rpc(csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH, "ControllerGetVolumeHealth not supported")
	rpc(csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH, "ControllerListVolumeHealth not supported")
	excuse(!c.nodes[0].Can(csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH), "NodeGetVolumeHealth not supported")
	excuse(!c.nodes[0].Can(csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH), "NodeGetStorageHealth not supported")
	groups := c.controller.HasPluginService(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	excuse(!groups, "GroupControllerService not supported", "VolumeGroupSnapshots not supported")
	return words
}
