// Package volume is what a CSI controller does with volumes: make, delete,
// grow, attach to nodes and detach from them, over a [blockdev.Pool] that keeps
// them and an [Exporter] that serves them.
//
// [Manager] does the work and is strict: making what exists, or detaching what
// is not attached, is an error. [Idempotent] wraps it in the forgiveness that
// CSI asks for. All truth lives in the pool's records; a Manager that is opened
// over a pool exports what the records say, to whom they say.
package volume

import (
	"context"
	"time"
)

// Service is what the CSI edge needs of volumes. All methods may be called
// concurrently; a second call for a volume that one is at work on gets
// ErrPending at once. A call whose context ends returns its error at once, and
// what cannot be cancelled goes on under the volume's lock.
type Service interface {
	// Create makes a volume and exports it. ErrNameTaken, ErrUnsupported,
	// ErrOutOfRange where no volume could have that size, ErrNoRoom where
	// the pool has not that much now.
	Create(ctx context.Context, o CreateOptions) (Volume, error)
	// Delete ends the export and destroys the data. ErrNotFound, ErrInUse
	// while it is attached.
	Delete(ctx context.Context, id string) error
	// Get returns a volume by its id; ErrNotFound.
	Get(ctx context.Context, id string) (Volume, error)
	// Find returns a volume by its name; ErrNotFound.
	Find(ctx context.Context, name string) (Volume, error)
	// List returns all volumes, ordered by id.
	List(ctx context.Context) ([]Volume, error)
	// Attach opens a generation: it is on stable storage before the node is
	// let in. ErrNotFound, ErrAttached, ErrAttachedElsewhere, ErrNodeFull.
	Attach(ctx context.Context, id string, o AttachOptions) (Attachment, error)
	// Readmit lets the node of a live attachment in again, with what the
	// attachment says, and remembers the node's newest id. ErrNotFound,
	// ErrNotAttached.
	Readmit(ctx context.Context, id string, node Node) (Attachment, error)
	// Detach is the fence: it closes the generation durably and returns nil
	// only once nothing of that node can reach the volume any more. An
	// empty node means all nodes. While a fence is not finished it returns
	// the context's error, and a later call goes on with it. ErrNotFound,
	// ErrNotAttached.
	Detach(ctx context.Context, id, nodeUUID string) error
	// Expand grows a volume and returns its size. ErrNotFound, ErrNoChange,
	// ErrOutOfRange also where the pool has no room.
	Expand(ctx context.Context, id string, r SizeRange) (int64, error)
	// Available is how many bytes a new volume may have now.
	Available(ctx context.Context) (int64, error)
}

// Volume is a volume as its record describes it.
type Volume struct {
	// ID is the CSI volume_id: pool id, a dot, UUID.
	ID string
	// UUID is canonical, lower case.
	UUID string
	// Name is what the container orchestrator called it.
	Name string
	// Size is in bytes.
	Size         int64
	CreatedAt    time.Time
	Parameters   map[string]string
	Capabilities []Capability
	// NAA is the logical unit's VPD 83h designator.
	NAA uint64
	// Attachments are the live ones, by generation.
	Attachments []Attachment
}

// Attachment is the right of one node to use a volume, from the opening of its
// generation to its closing.
type Attachment struct {
	Node       Node       `json:"node"`
	Generation uint64     `json:"generation"`
	Capability Capability `json:"capability"`
	// ReadOnly is what the attachment was asked for with; see also
	// WriteProtected.
	ReadOnly    bool        `json:"readOnly,omitempty"`
	Credentials Credentials `json:"credentials"`
	Since       time.Time   `json:"since"`
	// NodeSeen is when Node.ID was last heard.
	NodeSeen time.Time `json:"nodeSeen"`
}

// WriteProtected says that the target refuses the node's writes.
func (a Attachment) WriteProtected() bool {
	return a.ReadOnly || a.Capability.Mode.ReadOnly()
}

// Node is a consumer of volumes. Nodes are the same when their UUID is.
type Node struct {
	// UUID is 32 lower-case hexadecimal digits.
	UUID string `json:"uuid"`
	// ID is the CSI node_id that the node last gave.
	ID string `json:"id"`
}

// CreateOptions describe a volume to make.
type CreateOptions struct {
	Name         string
	Size         SizeRange
	Capabilities []Capability
	Parameters   map[string]string
}

// AttachOptions describe an attachment to open.
type AttachOptions struct {
	Node       Node
	Capability Capability
	ReadOnly   bool
}
