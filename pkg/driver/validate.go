package driver

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Size limits of the CSI specification ("Field Requirements", and the comments
// of the fields that override them).
const (
	maxString = 128     // a string field
	maxMap    = 4 << 10 // keys and values of a map<string, string>
	maxFlags  = 4 << 10 // mount_flags together
	maxNodeID = 256     // node_id, as NodeGetInfo may return it
	maxPath   = 4095    // a path, as the kernel takes it (PATH_MAX with its NUL)
)

// stringLimits are the fields that may be longer than maxString.
var stringLimits = map[protoreflect.Name]int{
	"node_id":             maxNodeID,
	"target_path":         maxPath,
	"staging_target_path": maxPath,
	"volume_path":         maxPath,
}

// requiredFields are the REQUIRED fields of each request, in the order in
// which a caller is told about them. A bool is never missing in proto3.
var requiredFields = map[protoreflect.Name][]protoreflect.Name{
	"CreateVolumeRequest":               {"name", "volume_capabilities"},
	"DeleteVolumeRequest":               {"volume_id"},
	"ControllerPublishVolumeRequest":    {"volume_id", "node_id", "volume_capability"},
	"ControllerUnpublishVolumeRequest":  {"volume_id"},
	"ValidateVolumeCapabilitiesRequest": {"volume_id", "volume_capabilities"},
	"ControllerExpandVolumeRequest":     {"volume_id", "capacity_range"},

	"NodeStageVolumeRequest":     {"volume_id", "staging_target_path", "volume_capability"},
	"NodeUnstageVolumeRequest":   {"volume_id", "staging_target_path"},
	"NodePublishVolumeRequest":   {"volume_id", "target_path", "volume_capability"},
	"NodeUnpublishVolumeRequest": {"volume_id", "target_path"},
	"NodeGetVolumeStatsRequest":  {"volume_id", "volume_path"},
	"NodeExpandVolumeRequest":    {"volume_id", "volume_path"},
}

// invalidField is an ErrInvalidField that names the field.
func invalidField(field, format string, args ...any) error {
	return fmt.Errorf("%w %s: %s", ErrInvalidField, field, fmt.Sprintf(format, args...))
}

// validateFields checks a CSI request for what holds whatever it means:
// required fields are there, and no field is larger than the specification
// allows.
func validateFields(req proto.Message) error {
	m := req.ProtoReflect()
	for _, name := range requiredFields[m.Descriptor().Name()] {
		if f := m.Descriptor().Fields().ByName(name); !m.Has(f) {
			return invalidField(string(name), "it is required")
		}
	}
	return validateSizes(m, "")
}

// validateSizes walks a message in the order of its fields, so that the first
// offender is always the same one.
func validateSizes(m protoreflect.Message, prefix string) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		if err := validateSize(f, m.Get(f), prefix+string(f.Name())); err != nil {
			return err
		}
	}
	return nil
}

func validateSize(f protoreflect.FieldDescriptor, v protoreflect.Value, path string) error {
	switch {
	case f.IsMap():
		return validateMap(f, v.Map(), path)
	case f.IsList():
		return validateList(f, v.List(), path)
	case f.Message() != nil:
		return validateSizes(v.Message(), path+".")
	case f.Kind() == protoreflect.StringKind:
		return validateString(v.String(), stringLimit(f), path)
	}
	return nil
}

func stringLimit(f protoreflect.FieldDescriptor) int {
	if limit, ok := stringLimits[f.Name()]; ok {
		return limit
	}
	return maxString
}

func validateString(s string, limit int, path string) error {
	if len(s) > limit {
		return invalidField(path, "%d bytes, at most %d are allowed", len(s), limit)
	}
	if strings.ContainsRune(s, 0) {
		return invalidField(path, "it holds a NUL byte")
	}
	return nil
}

func validateMap(f protoreflect.FieldDescriptor, m protoreflect.Map, path string) error {
	size := 0
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		size += len(k.String())
		if f.MapValue().Kind() == protoreflect.StringKind {
			size += len(v.String())
		}
		return true
	})
	if size > maxMap {
		return invalidField(path, "%d bytes of keys and values, at most %d are allowed", size, maxMap)
	}
	return nil
}

func validateList(f protoreflect.FieldDescriptor, l protoreflect.List, path string) error {
	size := 0
	for i := range l.Len() {
		element := fmt.Sprintf("%s[%d]", path, i)
		if f.Message() != nil {
			if err := validateSizes(l.Get(i).Message(), element+"."); err != nil {
				return err
			}
			continue
		}
		if f.Kind() == protoreflect.StringKind {
			size += len(l.Get(i).String())
		}
	}
	if size > maxFlags {
		return invalidField(path, "%d bytes, at most %d are allowed together", size, maxFlags)
	}
	return nil
}
