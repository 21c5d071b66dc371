package driver

import (
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func sized(n int) string { return strings.Repeat("x", n) }

func TestValidateFields(t *testing.T) {
	capability := &csi.VolumeCapability{}
	for name, tt := range map[string]struct {
		req   proto.Message
		field string // empty: valid
	}{
		"no name":            {&csi.CreateVolumeRequest{VolumeCapabilities: []*csi.VolumeCapability{capability}}, "name"},
		"no capabilities":    {&csi.CreateVolumeRequest{Name: "a"}, "volume_capabilities"},
		"good create":        {&csi.CreateVolumeRequest{Name: sized(128), VolumeCapabilities: []*csi.VolumeCapability{capability}}, ""},
		"long name":          {&csi.CreateVolumeRequest{Name: sized(129), VolumeCapabilities: []*csi.VolumeCapability{capability}}, "name"},
		"NUL in name":        {&csi.CreateVolumeRequest{Name: "a\x00b", VolumeCapabilities: []*csi.VolumeCapability{capability}}, "name"},
		"no volume id":       {&csi.DeleteVolumeRequest{}, "volume_id"},
		"long volume id":     {&csi.DeleteVolumeRequest{VolumeId: sized(129)}, "volume_id"},
		"no node id":         {&csi.ControllerPublishVolumeRequest{VolumeId: "v"}, "node_id"},
		"no capability":      {&csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "n"}, "volume_capability"},
		"node id at limit":   {&csi.ControllerUnpublishVolumeRequest{VolumeId: "v", NodeId: sized(256)}, ""},
		"long node id":       {&csi.ControllerUnpublishVolumeRequest{VolumeId: "v", NodeId: sized(257)}, "node_id"},
		"unpublish anywhere": {&csi.ControllerUnpublishVolumeRequest{VolumeId: "v"}, ""},
		"no capacity range":  {&csi.ControllerExpandVolumeRequest{VolumeId: "v"}, "capacity_range"},
		"big map": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{capability},
			Parameters: map[string]string{"k": sized(4096)}}, "parameters"},
		"map at limit": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{capability},
			Parameters: map[string]string{"k": sized(4095)}}, ""},
		"big secrets": {&csi.DeleteVolumeRequest{VolumeId: "v", Secrets: map[string]string{sized(5000): ""}}, "secrets"},
		"long fs type": {&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{capability, mountCapability(sized(129))}},
			"volume_capabilities[1].mount.fs_type"},
		"mount flags": {&csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "n", VolumeCapability: mountCapability("ext4", sized(4000), sized(97))},
			"volume_capability.mount.mount_flags"},
		"mount flags at limit": {&csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "n", VolumeCapability: mountCapability("ext4", sized(4000), sized(96))}, ""},
		"long token":           {&csi.ListVolumesRequest{StartingToken: sized(129)}, "starting_token"},
		"long path":            {&csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: sized(4096)}, "target_path"},
		"path":                 {&csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: sized(1000)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := validateFields(tt.req)
			if tt.field == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalidField) || !strings.Contains(err.Error(), " "+tt.field+":") {
				t.Fatalf("err = %v, want ErrInvalidField naming %s", err, tt.field)
			}
		})
	}
}

// TestRequiredFieldsExist holds the table to the specification's messages.
func TestRequiredFieldsExist(t *testing.T) {
	messages := (&csi.CreateVolumeRequest{}).ProtoReflect().Descriptor().ParentFile()
	if messages == nil {
		t.Fatal("no CSI descriptors")
	}
	for message, fields := range requiredFields {
		d := messages.Messages().ByName(message)
		if d == nil {
			t.Errorf("no message %s", message)
			continue
		}
		for _, f := range fields {
			if d.Fields().ByName(f) == nil {
				t.Errorf("%s has no field %s", message, f)
			}
		}
	}
	for field := range stringLimits {
		if !anyField(messages.Messages(), field) {
			t.Errorf("no message has a field %s", field)
		}
	}
}

func anyField(messages protoreflect.MessageDescriptors, name protoreflect.Name) bool {
	for i := range messages.Len() {
		if messages.Get(i).Fields().ByName(name) != nil {
			return true
		}
	}
	return false
}

func mountCapability(fsType string, flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: flags}},
	}
}
