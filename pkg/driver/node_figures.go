package driver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
)

// NodeFigures are a node's figures for its metrics.
type NodeFigures struct{ stages, sys string }

// Figures are the node's figures for its metrics.
func (n *Node) Figures() NodeFigures { return NodeFigures{stages: n.stages.dir, sys: "/sys"} }

// Staged is how many volumes are staged on this node.
func (f NodeFigures) Staged() (int, error) {
	entries, err := os.ReadDir(f.stages)
	if err != nil {
		return 0, err
	}
	staged := 0
	for _, e := range entries {
		if f.staged(e.Name()) {
			staged++
		}
	}
	return staged, nil
}

// staged reads one stage file. One that is being removed, or does not parse, is
// that of no staged volume.
func (f NodeFigures) staged(name string) bool {
	if !strings.HasSuffix(name, ".json") {
		return false
	}
	data, err := os.ReadFile(filepath.Join(f.stages, name))
	var st stage
	return err == nil && json.Unmarshal(data, &st) == nil && st.Staged
}

// Sessions counts the kernel's sessions to csi-ietd by their state.
func (f NodeFigures) Sessions() (map[string]int, error) {
	return initiator.CountSessions(f.sys, iqnPrefix)
}
