package volume

import (
	"fmt"
	"slices"
)

// AccessMode is a CSI access mode, by the specification's name. Records hold
// it.
type AccessMode string

// The access modes that csi-ietd has. MULTI_NODE_SINGLE_WRITER is not among
// them: nothing would hold the readers' file systems together.
const (
	SingleNodeWriter       AccessMode = "SINGLE_NODE_WRITER"
	SingleNodeReaderOnly   AccessMode = "SINGLE_NODE_READER_ONLY"
	SingleNodeSingleWriter AccessMode = "SINGLE_NODE_SINGLE_WRITER"
	SingleNodeMultiWriter  AccessMode = "SINGLE_NODE_MULTI_WRITER"
	MultiNodeReaderOnly    AccessMode = "MULTI_NODE_READER_ONLY"
	MultiNodeMultiWriter   AccessMode = "MULTI_NODE_MULTI_WRITER"
)

var accessModes = []AccessMode{
	SingleNodeWriter, SingleNodeReaderOnly, SingleNodeSingleWriter, SingleNodeMultiWriter,
	MultiNodeReaderOnly, MultiNodeMultiWriter,
}

// MultiNode says that several nodes may hold the volume at once.
func (m AccessMode) MultiNode() bool {
	return m == MultiNodeReaderOnly || m == MultiNodeMultiWriter
}

// ReadOnly says that no node may write.
func (m AccessMode) ReadOnly() bool {
	return m == SingleNodeReaderOnly || m == MultiNodeReaderOnly
}

// The file systems that nodes make and mount.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// Capability is one way to use a volume.
type Capability struct {
	// Block is a raw block volume; otherwise FSType is mounted.
	Block  bool       `json:"block,omitempty"`
	FSType string     `json:"fsType,omitempty"`
	Mode   AccessMode `json:"mode"`
}

// Check returns ErrUnsupported for what csi-ietd cannot do.
func (c Capability) Check() error {
	switch {
	case !slices.Contains(accessModes, c.Mode):
		return fmt.Errorf("%w: access mode %s", ErrUnsupported, c.Mode)
	case c.Block && c.FSType != "":
		return fmt.Errorf("%w: a block volume with file system %q", ErrUnsupported, c.FSType)
	case c.Block:
		return nil
	case c.Mode == MultiNodeMultiWriter:
		return fmt.Errorf("%w: %s with a file system; ask for a block volume", ErrUnsupported, c.Mode)
	case c.FSType != Ext4 && c.FSType != XFS:
		return fmt.Errorf("%w: file system %q; there are %s and %s", ErrUnsupported, c.FSType, Ext4, XFS)
	}
	return nil
}

// CheckCapabilities checks them all.
func CheckCapabilities(cs []Capability) error {
	for _, c := range cs {
		if err := c.Check(); err != nil {
			return err
		}
	}
	return nil
}

// distinct leaves out repetitions: a record has room for every capability there
// is, and not for as many as a request can hold.
func distinct(cs []Capability) []Capability {
	var out []Capability
	for _, c := range cs {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// sameAccess says whether two lists ask for the same kinds of access. Modes do
// not count: every volume can be attached in every mode of its kind.
func sameAccess(a, b []Capability) bool {
	return covers(a, b) && covers(b, a)
}

func covers(all, some []Capability) bool {
	for _, c := range some {
		same := func(o Capability) bool { return o.Block == c.Block && o.FSType == c.FSType }
		if !slices.ContainsFunc(all, same) {
			return false
		}
	}
	return true
}
