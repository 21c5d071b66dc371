package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// NodeFigures are what a consumer knows of its volumes.
type NodeFigures interface {
	// Staged is how many volumes are staged on this node.
	Staged() (int, error)
	// Sessions counts the kernel's iSCSI sessions to csi-ietd by their
	// state, in the kernel's words.
	Sessions() (map[string]int, error)
}

// Node collects the figures of a consumer.
type Node struct{ figures NodeFigures }

var _ prometheus.Collector = (*Node)(nil)

// NewNode returns the collector of a consumer.
func NewNode(figures NodeFigures) *Node { return &Node{figures} }

var (
	nodeStaged   = desc("node_staged_volumes", "Volumes that are staged on this node.")
	nodeSessions = desc("node_sessions", "The kernel's iSCSI sessions to csi-ietd, by state.", "state")
)

// sessionStates are those that Linux' iSCSI transport has.
var sessionStates = []string{"logged_in", "failed", "free"}

// Describe implements prometheus.Collector.
func (n *Node) Describe(ch chan<- *prometheus.Desc) { ch <- nodeStaged; ch <- nodeSessions }

// Collect implements prometheus.Collector.
func (n *Node) Collect(ch chan<- prometheus.Metric) {
	if staged, err := n.figures.Staged(); err != nil {
		ch <- prometheus.NewInvalidMetric(nodeStaged, err)
	} else {
		gauge(ch, nodeStaged, staged)
	}
	sessions, err := n.figures.Sessions()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(nodeSessions, err)
		return
	}
	other := 0
	byState := map[string]int{}
	for state, n := range sessions {
		byState[strings.ToLower(state)] += n
		other += n
	}
	for _, state := range sessionStates {
		gauge(ch, nodeSessions, byState[state], state)
		other -= byState[state]
	}
	gauge(ch, nodeSessions, other, "other")
}
