//go:build figures

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var rounds = flag.Int("rounds", 30, "how often each figure is taken; those after the loss of a node a third of it")

// figure is a series of times.
type figure []time.Duration

// at is a percentile.
func (f figure) at(p int) time.Duration {
	s := slices.Sorted(slices.Values(f))
	return s[min(len(s)-1, len(s)*p/100)]
}

func (f figure) String() string {
	return fmt.Sprintf("p50 %.1f s, p99 %.1f s (n=%d)", f.at(50).Seconds(), f.at(99).Seconds(), len(f))
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// TestFigures prints what docs/kubernetes.md holds: `make e2e-figures`.
func TestFigures(t *testing.T) {
	t.Run("claim created to pod Running", claimFigure)
	t.Run("20 claims at once", manyFigure)
	t.Run("moved to another node", moveFigure)
	t.Run("static volumes", staticFigures)
}

func bare(p *corev1.PodSpec) { p.Volumes, p.Containers[0].VolumeMounts = nil, nil }

func claimFigure(t *testing.T) {
	s := newSpace(t)
	var f figure
	for i := range *rounds {
		name := fmt.Sprint("claim-", i)
		f = append(f, timed(func() {
			s.claim(name, "256Mi")
			s.pod(name, name, onNode(nodes[1]))
		}))
		s.delete(name)
	}
	t.Log(f)
}

// manyFigure takes the times of 20 pods from what kubelet says of them, to the
// second.
func manyFigure(t *testing.T) {
	s := newSpace(t)
	began := time.Now()
	for i := range 20 {
		name := fmt.Sprint("many-", i)
		s.claim(name, "64Mi")
		s.createPod(name, podSpec(name))
	}
	for i := range 20 {
		s.awaitRunning(fmt.Sprint("many-", i))
	}
	pods, err := client.CoreV1().Pods(s.name).List(s.ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var f figure
	for _, p := range pods.Items {
		f = append(f, p.Status.ContainerStatuses[0].State.Running.StartedAt.Sub(began))
	}
	t.Log(f)
}

// moveFigure deletes a pod and makes it on the other node at once: detach,
// attach, mount.
func moveFigure(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "256Mi")
	s.pod("pod-0", "data", onNode(nodes[1]))
	var f figure
	for i := 1; i <= *rounds; i++ {
		f = append(f, timed(func() {
			s.delete(fmt.Sprint("pod-", i-1))
			s.pod(fmt.Sprint("pod-", i), "data", onNode(nodes[i%2]))
		}))
	}
	t.Log(f)
}

// staticFigures sets a static volume of ours beside one of tgt through
// Kubernetes' own iscsi source, and both beside a pod without a volume: moved
// to the other node (the detach from the first is over by then: moveFigure has
// it), and after the loss of a node. They take turns, since the machine may be
// faster in one minute than in the next.
func staticFigures(t *testing.T) {
	s := newSpace(t)
	s.claim("source", "256Mi")
	s.pod("prepare", "source", onNode(nodes[1]))
	s.delete("prepare")
	peer := startPeer(t)
	s.static("ours", corev1.ReadWriteOnce, corev1.PersistentVolumeSource{CSI: s.source("source")})
	s.static("peer", corev1.ReadWriteOnce, corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{
		TargetPortal: peer.portal, IQN: peer.iqn, Lun: 1, FSType: "ext4"}})
	for _, claim := range []string{"ours", "peer"} {
		s.pod(claim, claim, onNode(nodes[1])) // makes the file system
		s.delete(claim)
	}
	t.Run("moved", func(t *testing.T) { (&space{t, s.name, s.ctx}).compareMoves() })
	t.Run("node lost", func(t *testing.T) { (&space{t, s.name, s.ctx}).compareLosses() })
}

func (s *space) compareMoves() {
	s.Helper()
	var bareF, ours, peer figure
	for i := range *rounds + 1 {
		node := onNode(nodes[i%2])
		take := func(f *figure, name string, change ...func(*corev1.PodSpec)) {
			pod := fmt.Sprint(name, "-moved-", i)
			took := timed(func() { s.pod(pod, name, append(change, node)...) })
			s.delete(pod)
			if i > 0 { // the first is on the node that the volume was on
				*f = append(*f, took)
			}
		}
		take(&bareF, "bare", bare)
		take(&ours, "ours")
		take(&peer, "peer")
	}
	s.Logf("pod without a volume: %v", bareF)
	s.Logf("static volume of ours, moved: %v", ours)
	s.Logf("static volume of the peer, moved: %v", peer)
	above := func(f figure) time.Duration { return f.at(50) - bareF.at(50) }
	s.Logf("p50 above a pod without a volume: ours %.1f s, the peer %.1f s: %.2f",
		above(ours).Seconds(), above(peer).Seconds(), above(ours).Seconds()/above(peer).Seconds())
}

func (s *space) compareLosses() {
	s.Helper()
	var ours, peer figure
	for i := range (*rounds + 2) / 3 {
		ours = append(ours, s.loseNode(fmt.Sprint("ours-lost-", i), "ours"))
		peer = append(peer, s.loseNode(fmt.Sprint("peer-lost-", i), "peer"))
	}
	s.Logf("static volume of ours, node lost: taint to Running elsewhere: %v", ours)
	s.Logf("static volume of the peer, node lost: taint to Running elsewhere: %v", peer)
}

// loseNode cuts the power of the node that a claim's pod runs on and returns
// the time from the taint to Running on another.
func (s *space) loseNode(app, claim string) time.Duration {
	s.Helper()
	s.deploy(app, claim, running(logger))
	s.provider("kill", nodes[1])
	s.awaitLost(nodes[1])
	took := timed(func() {
		s.taint(nodes[1], "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
		s.awaitOn(app, nodes[1], false)
	})
	if err := client.AppsV1().Deployments(s.name).Delete(s.ctx, app, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	s.provider("start", nodes[1])
	s.taint(nodes[1], "node.kubernetes.io/out-of-service-")
	s.awaitReady(nodes[1])
	return took
}

// peer is Debian's tgt, in the network that the suite runs in.
type peer struct{ portal, iqn string }

func startPeer(t *testing.T) peer {
	t.Helper()
	p := peer{portal: os.Getenv("E2E_PEER_PORTAL"), iqn: "iqn.2026-11.io.csi-ietd.test:peer"}
	if p.portal == "" {
		t.Fatal("E2E_PEER_PORTAL names no ip:port of this machine that the nodes reach; the lab's is 10.77.0.1:3260")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	const control = "77"
	tgtd := exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+p.portal)
	tgtd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the suite be killed
	if err := tgtd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tgtd.Process.Kill(); _ = tgtd.Wait() })
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + p.iqn,
		"--op new --mode logicalunit --tid 1 --lun 1 -b " + disk,
		"--op bind --mode target --tid 1 -I ALL",
	} {
		await(t, func() error {
			_, err := output(exec.Command("tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, strings.Fields(args)...)...))
			return err
		})
	}
	return p
}
