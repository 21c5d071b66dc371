package e2e

// The last tests that have the cluster for themselves, by the name of this file.

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestNodeWithoutISCSID: the pod's events say what its node lacks, and the pod
// starts when that is mended.
func TestNodeWithoutISCSID(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "64Mi")
	s.provider("exec", nodes[1], "pkill", "-x", "iscsid")
	start := s.undo(func() { s.provider("exec", nodes[1], "iscsid") })
	s.createPod("pod", podSpec("data", onNode(nodes[1])))
	s.awaitEvent("pod", "iscsid is not running", "install open-iscsi")
	start()
	s.awaitRunning("pod")
}

// TestNodeLost cuts a node's power, as its pod writes, and has the pod
// elsewhere by the out-of-service taint, with every line that was stable.
func TestNodeLost(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "256Mi")
	s.deploy("logger", "data", running(logger))
	pod := s.awaitOn("logger", nodes[1], true)
	await(t, func() error { return s.more(pod, 0) })
	stable := s.lines(pod)

	cut := time.Now()
	s.provider("kill", nodes[1])
	back := s.undo(func() {
		s.provider("start", nodes[1])
		s.documented("node-failure.md", "back-in-service", nodes[1])
		s.awaitReady(nodes[1])
	})
	s.awaitLost(nodes[1])
	t.Logf("NotReady %.1f s after the cut", time.Since(cut).Seconds())
	tainted := time.Now()
	s.documented("node-failure.md", "out-of-service", nodes[1])
	pod = s.awaitOn("logger", nodes[1], false)
	t.Logf("Running elsewhere %.1f s after the taint, %.1f s after the cut", time.Since(tainted).Seconds(), time.Since(cut).Seconds())
	if got := s.lines(pod); got < stable {
		t.Errorf("%d lines of at least %d that were stable", got, stable)
	}
	back()
	s.leave()
}

// TestPartition cuts a node's network under its writing pod. What the node
// writes after its volume was detached must not land.
func TestPartition(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "256Mi")
	s.deploy("logger", "data", running(logger))
	s.awaitOn("logger", nodes[1], true)
	target := s.targetName("data")
	if out := s.sessions(nodes[1], target); out == "" {
		t.Fatalf("%s has no session with %s", nodes[1], target)
	}
	s.provider("cut", nodes[1])
	restore := s.undo(func() {
		s.provider("restore", nodes[1])
		s.awaitReady(nodes[1])
		s.taint(nodes[1], "node.kubernetes.io/out-of-service-")
	})
	s.awaitLost(nodes[1])
	s.taint(nodes[1], "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
	pod := s.awaitOn("logger", nodes[1], false)
	before := s.lines(pod)
	restore()
	back := time.Now()
	await(t, func() error { return s.more(pod, before) })
	t.Parallel() // the node is well again

	// What waits for the volume on the node that was given up does not wait for
	// the replacement timeout, which is 10 minutes.
	await(t, func() error {
		if out := s.sessions(nodes[1], target); out != "" {
			return fmt.Errorf("%s has a session with %s that is %s", nodes[1], target, out)
		}
		return nil
	})
	t.Logf("the node that was cut off let go of its session %.1f s after its return", time.Since(back).Seconds())
}

// targetName is the iSCSI name of a claim's volume.
func (s *space) targetName(claim string) string {
	s.Helper()
	_, uuid, _ := strings.Cut(s.source(claim).VolumeHandle, ".")
	return "iqn.2026-11.io.csi-ietd:" + uuid
}

// sessions are the states of a node's sessions with a target.
func (s *space) sessions(node, target string) string {
	s.Helper()
	return s.provider("exec", node, "sh", "-c",
		"cd /sys/class/iscsi_session; for i in $(grep -lx "+target+" */targetname 2>/dev/null); do cat ${i%/*}/state; done; true")
}

// awaitLost waits until Kubernetes has noticed that a node is away.
func (s *space) awaitLost(node string) {
	s.Helper()
	await(s.T, func() error {
		if s.ready(node) {
			return fmt.Errorf("%s is still Ready", node)
		}
		return nil
	})
}
