package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"golang.org/x/crypto/nacl/box"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/file"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

const (
	testMiB = 1 << 20
	testGiB = 1 << 30
)

var testPortals = []string{"192.0.2.1:3260", "[2001:db8::1]:3260"}

// controllerRig is the whole controller, but for the portal: gRPC over a unix
// socket, a file pool, the in-process target.
type controllerRig struct {
	csi.ControllerClient
	conn    *grpc.ClientConn
	socket  string
	target  *iscsitarget.Server
	volumes *volume.Manager
}

func newControllerRig(t *testing.T, extra ...func(*grpc.Server)) *controllerRig {
	t.Helper()
	dir := t.TempDir()
	pool, err := file.Open(filepath.Join(dir, "pool"), file.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	target := iscsitarget.NewServer(iscsitarget.Options{})
	volumes, err := volume.Open(t.Context(), volume.Config{
		Pool: pool, Exporter: volume.NewExporter(target), OverProvisioningRatio: 1, Logger: logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(volumes.Close(context.Background()), pool.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	socket := filepath.Join(dir, "csi.sock")
	conn := serving(t, socket, func(s *grpc.Server) {
		registerIdentity(s)
		csi.RegisterControllerServer(s, NewController(volume.Idempotent(volumes), testPortals))
		for _, register := range extra {
			register(s)
		}
	})
	return &controllerRig{csi.NewControllerClient(conn), conn, socket, target, volumes}
}

func (r *controllerRig) create(t *testing.T, name string, caps ...*csi.VolumeCapability) *csi.Volume {
	t.Helper()
	if caps == nil {
		caps = []*csi.VolumeCapability{mountCapability("ext4")}
	}
	resp, err := r.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: caps,
		CapacityRange: &csi.CapacityRange{RequiredBytes: 8 * testMiB}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetVolume()
}

// testNode makes a node with a key of its own, and its node_id.
func testNode(t *testing.T, letter byte) (NodeIdentity, string) {
	t.Helper()
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := NodeID{UUID: strings.Repeat(string(letter), 32), PublicKey: *public}
	return NodeIdentity{NodeID: id, PrivateKey: *private}, id.String()
}

func blockCapability(m csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: m},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func wantCode(t *testing.T, what string, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: %v, want %v", what, err, code)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v does not say %q", what, err, w)
		}
	}
}

func TestCreateVolumeCodes(t *testing.T) {
	r := newControllerRig(t)
	first := r.create(t, "taken")
	ext4 := []*csi.VolumeCapability{mountCapability("ext4")}
	size := func(required, limit int64) *csi.CapacityRange {
		return &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit}
	}
	for name, tt := range map[string]struct {
		req   *csi.CreateVolumeRequest
		code  codes.Code
		words []string
	}{
		"no name":           {&csi.CreateVolumeRequest{VolumeCapabilities: ext4}, codes.InvalidArgument, []string{"name"}},
		"control character": {&csi.CreateVolumeRequest{Name: "a\x07", VolumeCapabilities: ext4}, codes.InvalidArgument, []string{"name"}},
		"no capabilities":   {&csi.CreateVolumeRequest{Name: "a"}, codes.InvalidArgument, []string{"volume_capabilities"}},
		"no access type":    {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{{AccessMode: ext4[0].GetAccessMode()}}}, codes.InvalidArgument, []string{"volume_capabilities[0].access_type"}},
		"no access mode":    {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{ext4[0], {AccessType: ext4[0].GetAccessType()}}}, codes.InvalidArgument, []string{"volume_capabilities[1].access_mode"}},
		"other fs":          {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{mountCapability("zfs")}}, codes.InvalidArgument, []string{"zfs"}},
		"single writer":     {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{blockCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)}}, codes.InvalidArgument, []string{"MULTI_NODE_SINGLE_WRITER"}},
		"parameter":         {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, Parameters: map[string]string{"speed": "fast"}}, codes.InvalidArgument, []string{"speed"}},
		"mutable parameter": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, MutableParameters: map[string]string{"iops": "1"}}, codes.InvalidArgument, []string{"mutable_parameters"}},
		"source":            {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, VolumeContentSource: &csi.VolumeContentSource{}}, codes.InvalidArgument, []string{"volume_content_source"}},
		"topology": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, AccessibilityRequirements: &csi.TopologyRequirement{
			Requisite: []*csi.Topology{{Segments: map[string]string{"zone": "a"}}}}}, codes.ResourceExhausted, []string{segmentKey}},
		"negative size":      {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, CapacityRange: size(-1, 0)}, codes.InvalidArgument, []string{"capacity_range.required_bytes"}},
		"negative limit":     {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, CapacityRange: size(0, -1)}, codes.InvalidArgument, []string{"capacity_range.limit_bytes"}},
		"limit below":        {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, CapacityRange: size(2, 1)}, codes.OutOfRange, nil},
		"no multiple of MiB": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, CapacityRange: size(testMiB+1, testMiB+2)}, codes.OutOfRange, nil},
		"overflow":           {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: ext4, CapacityRange: size(math.MaxInt64, 0)}, codes.OutOfRange, nil},
		"taken, larger":      {&csi.CreateVolumeRequest{Name: "taken", VolumeCapabilities: ext4, CapacityRange: size(16*testMiB, 0)}, codes.AlreadyExists, []string{"taken"}},
		"taken, other fs":    {&csi.CreateVolumeRequest{Name: "taken", VolumeCapabilities: []*csi.VolumeCapability{mountCapability("xfs")}}, codes.AlreadyExists, nil},
	} {
		_, err := r.CreateVolume(t.Context(), tt.req)
		wantCode(t, name, err, tt.code, tt.words...)
	}
	again := r.create(t, "taken", mountCapability(""))
	if again.GetVolumeId() != first.GetVolumeId() {
		t.Errorf("the same request made another volume: %s, %s", first, again)
	}
}

func TestCreateVolumeSizes(t *testing.T) {
	r := newControllerRig(t)
	for name, tt := range map[string]struct {
		r    *csi.CapacityRange
		caps *csi.VolumeCapability
		want int64
	}{
		"none":     {nil, mountCapability("ext4"), testGiB},
		"rounded":  {&csi.CapacityRange{RequiredBytes: 1}, mountCapability("ext4"), testMiB},
		"exact":    {&csi.CapacityRange{RequiredBytes: 5 * testMiB, LimitBytes: 5 * testMiB}, mountCapability("ext4"), 5 * testMiB},
		"xfs":      {&csi.CapacityRange{RequiredBytes: testMiB}, mountCapability("xfs"), 300 * testMiB},
		"k8s keys": {nil, mountCapability(""), testGiB},
	} {
		resp, err := r.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: name, CapacityRange: tt.r,
			VolumeCapabilities: []*csi.VolumeCapability{tt.caps},
			Parameters:         map[string]string{"csi.storage.k8s.io/pvc/name": "claim", "csi.storage.k8s.io/fstype": "xfs"}})
		if err != nil || resp.GetVolume().GetCapacityBytes() != tt.want {
			t.Errorf("%s: %v, %v; want %d bytes", name, resp, err, tt.want)
		}
	}
}

func TestPublish(t *testing.T) {
	r := newControllerRig(t)
	v := r.create(t, "a")
	identity, nodeID := testNode(t, 'a')
	req := &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: nodeID, VolumeCapability: mountCapability("ext4", "noatime"),
		VolumeContext: map[string]string{"storage.kubernetes.io/csiProvisionerIdentity": "x"}}
	var first PublishContext
	for i := range 2 {
		resp, err := r.ControllerPublishVolume(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		pc, err := OpenPublishContext(resp.GetPublishContext(), identity)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range resp.GetPublishContext() {
			if strings.Contains(value, pc.Credentials.Secret) || strings.Contains(value, pc.Credentials.MutualSecret) {
				t.Error("a secret is in the publish context in clear")
			}
		}
		if i == 1 && pc.Credentials != first.Credentials {
			t.Error("the second answer has other secrets")
		}
		first = pc
	}
	uuid := v.GetVolumeId()[strings.LastIndexByte(v.GetVolumeId(), '.')+1:]
	if !slices.Equal(first.Portals, testPortals) || first.TargetName != "iqn.2026-11.io.csi-ietd:"+uuid || first.LUN != 0 ||
		first.Serial != uuid || first.SizeBytes != 8*testMiB || first.Generation != 1 || first.ReadOnly || !strings.HasPrefix(first.NAA, "3") {
		t.Errorf("publish context = %+v", first)
	}
	if InitiatorName(identity.UUID) != volume.InitiatorName(identity.UUID) {
		t.Error("node and controller know the initiator by different names")
	}
	if _, ok := r.target.Target(first.TargetName); !ok {
		t.Error("the target does not exist")
	}
}

func TestPublishCodes(t *testing.T) {
	r := newControllerRig(t)
	v := r.create(t, "a")
	_, nodeA := testNode(t, 'a')
	_, nodeB := testNode(t, 'b')
	request := func(change func(*csi.ControllerPublishVolumeRequest)) error {
		req := &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: nodeA, VolumeCapability: mountCapability("ext4")}
		change(req)
		_, err := r.ControllerPublishVolume(t.Context(), req)
		return err
	}
	type change = func(*csi.ControllerPublishVolumeRequest)
	wantCode(t, "publish", request(func(*csi.ControllerPublishVolumeRequest) {}), codes.OK)
	for name, tt := range map[string]struct {
		change change
		code   codes.Code
		words  []string
	}{
		"no volume":        {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeId = "" }, codes.InvalidArgument, []string{"volume_id"}},
		"no node":          {func(q *csi.ControllerPublishVolumeRequest) { q.NodeId = "" }, codes.InvalidArgument, []string{"node_id"}},
		"no capability":    {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = nil }, codes.InvalidArgument, []string{"volume_capability"}},
		"unknown volume":   {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeId = "elsewhere" }, codes.NotFound, []string{"elsewhere"}},
		"malformed node":   {func(q *csi.ControllerPublishVolumeRequest) { q.NodeId = "worker-1" }, codes.NotFound, []string{"worker-1"}},
		"other readonly":   {func(q *csi.ControllerPublishVolumeRequest) { q.Readonly = true }, codes.AlreadyExists, nil},
		"other fs":         {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = mountCapability("xfs") }, codes.AlreadyExists, nil},
		"other node":       {func(q *csi.ControllerPublishVolumeRequest) { q.NodeId = nodeB }, codes.FailedPrecondition, []string{nodeA}},
		"unsupported":      {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = mountCapability("ntfs") }, codes.InvalidArgument, []string{"ntfs"}},
		"default fs":       {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = mountCapability("") }, codes.OK, nil},
		"other mount flag": {func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = mountCapability("ext4", "noatime") }, codes.OK, nil},
	} {
		wantCode(t, name, request(tt.change), tt.code, tt.words...)
	}
}

func TestUnpublishAndDeleteCodes(t *testing.T) {
	r := newControllerRig(t)
	v := r.create(t, "a")
	_, nodeID := testNode(t, 'a')
	publish := func() {
		_, err := r.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: nodeID, VolumeCapability: mountCapability("ext4")})
		wantCode(t, "publish", err, codes.OK)
	}
	unpublish := func(volumeID, nodeID string) error {
		_, err := r.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: volumeID, NodeId: nodeID})
		return err
	}
	remove := func(volumeID string) error {
		_, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: volumeID})
		return err
	}
	published := func() []string {
		resp, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil || len(resp.GetEntries()) != 1 {
			t.Fatalf("ListVolumes = %v, %v", resp, err)
		}
		return resp.GetEntries()[0].GetStatus().GetPublishedNodeIds()
	}
	publish()
	wantCode(t, "delete while published", remove(v.GetVolumeId()), codes.FailedPrecondition, nodeID)
	wantCode(t, "unknown node", unpublish(v.GetVolumeId(), "worker-1"), codes.OK)
	if got := published(); !slices.Equal(got, []string{nodeID}) {
		t.Errorf("published to %q, want %q", got, nodeID)
	}
	wantCode(t, "unpublish", unpublish(v.GetVolumeId(), nodeID), codes.OK)
	if got := published(); len(got) != 0 {
		t.Errorf("published to %q after Unpublish", got)
	}
	publish()
	wantCode(t, "unpublish from all", unpublish(v.GetVolumeId(), ""), codes.OK)
	wantCode(t, "again", unpublish(v.GetVolumeId(), nodeID), codes.OK)
	wantCode(t, "unknown volume", unpublish("elsewhere", nodeID), codes.OK)
	wantCode(t, "no volume", unpublish("", nodeID), codes.InvalidArgument, "volume_id")
	for range 2 {
		wantCode(t, "delete", remove(v.GetVolumeId()), codes.OK)
	}
	wantCode(t, "delete an unknown id", remove("elsewhere"), codes.OK)
	wantCode(t, "delete an id of another pool", remove("pool."+strings.SplitN(v.GetVolumeId(), ".", 2)[1]), codes.OK)
	wantCode(t, "delete nothing", remove(""), codes.InvalidArgument, "volume_id")
	wantCode(t, "unpublish after it", unpublish(v.GetVolumeId(), nodeID), codes.OK)
}

func TestExpandCodes(t *testing.T) {
	r := newControllerRig(t)
	v := r.create(t, "a")
	for name, tt := range map[string]struct {
		id              string
		required, limit int64
		capability      *csi.VolumeCapability
		want            int64
		code            codes.Code
	}{
		"unknown":          {"elsewhere", 16 * testMiB, 0, nil, 0, codes.NotFound},
		"no bounds":        {v.GetVolumeId(), 0, 0, nil, 0, codes.InvalidArgument},
		"negative":         {v.GetVolumeId(), -1, 0, nil, 0, codes.InvalidArgument},
		"smaller":          {v.GetVolumeId(), testMiB, 0, nil, 8 * testMiB, codes.OK},
		"limit below size": {v.GetVolumeId(), 0, testMiB, nil, 0, codes.OutOfRange},
		"more than there":  {v.GetVolumeId(), 1 << 60, 0, nil, 0, codes.OutOfRange},
		"capability":       {v.GetVolumeId(), 9 * testMiB, 0, mountCapability("ntfs"), 0, codes.InvalidArgument},
		"same":             {v.GetVolumeId(), 8 * testMiB, 8 * testMiB, blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER), 8 * testMiB, codes.OK},
	} {
		resp, err := r.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: tt.id, VolumeCapability: tt.capability,
			CapacityRange: &csi.CapacityRange{RequiredBytes: tt.required, LimitBytes: tt.limit}})
		wantCode(t, name, err, tt.code)
		if err == nil && (resp.GetCapacityBytes() != tt.want || !resp.GetNodeExpansionRequired()) {
			t.Errorf("%s: %v, want %d bytes and work for the node", name, resp, tt.want)
		}
	}
	resp, err := r.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: v.GetVolumeId(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: 15*testMiB + 1}})
	if err != nil || resp.GetCapacityBytes() != 16*testMiB {
		t.Errorf("grown: %v, %v", resp, err)
	}
}

func TestValidateVolumeCapabilities(t *testing.T) {
	r := newControllerRig(t)
	v := r.create(t, "a")
	for name, tt := range map[string]struct {
		caps       []*csi.VolumeCapability
		parameters map[string]string
		confirmed  bool
	}{
		"mount":       {[]*csi.VolumeCapability{mountCapability("xfs")}, nil, true},
		"RWX block":   {[]*csi.VolumeCapability{blockCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)}, nil, true},
		"one is not":  {[]*csi.VolumeCapability{mountCapability("xfs"), mountCapability("ntfs")}, nil, false},
		"parameter":   {[]*csi.VolumeCapability{mountCapability("xfs")}, map[string]string{"speed": "fast"}, false},
		"k8s's alone": {[]*csi.VolumeCapability{mountCapability("xfs")}, map[string]string{"csi.storage.k8s.io/pv/name": "pv"}, true},
	} {
		resp, err := r.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: v.GetVolumeId(),
			VolumeCapabilities: tt.caps, Parameters: tt.parameters})
		if err != nil || (resp.GetConfirmed() != nil) != tt.confirmed || (resp.GetMessage() == "") != tt.confirmed {
			t.Errorf("%s: %v, %v; want confirmed %t", name, resp, err, tt.confirmed)
		}
		if tt.confirmed && len(resp.GetConfirmed().GetVolumeCapabilities()) != len(tt.caps) {
			t.Errorf("%s: %v", name, resp)
		}
	}
	_, err := r.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "elsewhere",
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability("xfs")}})
	wantCode(t, "unknown volume", err, codes.NotFound)
}

func TestGetCapacity(t *testing.T) {
	r := newControllerRig(t)
	capacity := func(req *csi.GetCapacityRequest) int64 {
		resp, err := r.GetCapacity(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetMaximumVolumeSize().GetValue() != resp.GetAvailableCapacity() {
			t.Errorf("the largest volume is not all there is: %v", resp)
		}
		return resp.GetAvailableCapacity()
	}
	if got := capacity(&csi.GetCapacityRequest{}); got <= 0 {
		t.Errorf("%d bytes available; the test's disk is full, or nothing is offered", got)
	}
	if got := capacity(&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{mountCapability("xfs")}}); got <= 0 {
		t.Errorf("%d bytes available for xfs", got)
	}
	for name, req := range map[string]*csi.GetCapacityRequest{
		"file system": {VolumeCapabilities: []*csi.VolumeCapability{mountCapability("ntfs")}},
		"parameter":   {Parameters: map[string]string{"speed": "fast"}},
		"topology":    {AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "a"}}},
	} {
		if got := capacity(req); got != 0 {
			t.Errorf("unsupported %s: %d bytes available", name, got)
		}
	}
}

func TestListVolumesPages(t *testing.T) {
	r := newControllerRig(t)
	want := map[string]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want[r.create(t, name).GetVolumeId()] = true
	}
	got := map[string]bool{}
	token, sizes := "", []int{}
	for {
		resp, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(resp.GetEntries()))
		for _, e := range resp.GetEntries() {
			if got[e.GetVolume().GetVolumeId()] || e.GetStatus() == nil {
				t.Errorf("entry %v", e)
			}
			got[e.GetVolume().GetVolumeId()] = true
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
		// The volume that the token stands on may go between the pages.
		last := resp.GetEntries()[1].GetVolume().GetVolumeId()
		if _, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: last}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(sizes, []int{2, 2, 1}) || len(got) != len(want) {
		t.Errorf("pages of %v, %d volumes", sizes, len(got))
	}
	_, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, "negative", err, codes.InvalidArgument, "max_entries")
	_, err = r.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: "7"})
	wantCode(t, "bad token", err, codes.Aborted)
}
