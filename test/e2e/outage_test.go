package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// logger appends the number of each line that it has made stable, a few times a
// second, says it, and goes on where the file ends.
const logger = `trap exit TERM
n=$(tail -n 1 /data/log 2>/dev/null || echo 0)
while :; do n=$((n + 1)); echo $n >>/data/log; sync /data/log; echo $n; sleep 0.2; done`

// deploy makes a Deployment of one pod with a claim's volume that prefers the
// second node, and returns when it runs there.
func (s *space) deploy(name, claim string, change ...func(*corev1.PodSpec)) {
	s.Helper()
	labels := map[string]string{"app": name}
	spec := podSpec(claim, append([]func(*corev1.PodSpec){prefer(nodes[1])}, change...)...)
	_, err := client.AppsV1().Deployments(s.name).Create(s.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.awaitOn(name, nodes[1], true)
}

func prefer(node string) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) {
		p.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 100,
				Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}}
	}
}

// awaitOn waits for a running pod of a Deployment, on the node or anywhere
// else, and returns its name.
func (s *space) awaitOn(app, node string, there bool) string {
	s.Helper()
	var name string
	await(s.T, func() error {
		pods, err := client.CoreV1().Pods(s.name).List(s.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil && (p.Spec.NodeName == node) == there {
				name = p.Name
				return nil
			}
		}
		return fmt.Errorf("no running pod of %s (on %s: %v)", app, node, there)
	})
	return name
}

// lines checks that the log of a pod's volume is whole, and returns its
// length.
func (s *space) lines(pod string) int {
	s.Helper()
	var count int
	out := s.shell(pod, `awk '$1 != NR {print "line", NR, "is", $0; exit 1} END {print NR}' /data/log`)
	if _, err := fmt.Sscan(out, &count); err != nil {
		s.Fatalf("the log is broken: %s", out)
	}
	return count
}

// more checks that a pod's log went on. What the pod says costs its node less than to
// look into its volume again and again.
func (s *space) more(pod string, than int) error {
	s.Helper()
	logs := client.CoreV1().Pods(s.name).GetLogs(pod, &corev1.PodLogOptions{TailLines: ptr.To[int64](1)})
	last, err := logs.DoRaw(s.ctx)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscan(string(last), &n); err != nil || n < than+10 {
		return fmt.Errorf("its last line is %q, %d before", last, than)
	}
	if n = s.lines(pod); n < than+10 {
		return fmt.Errorf("%d lines, %d before", n, than)
	}
	return nil
}

// TestDrain moves a writing pod away from its node as an administrator does.
func TestDrain(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "256Mi")
	s.deploy("logger", "data", running(logger))
	before := s.lines(s.awaitOn("logger", nodes[1], true))
	uncordon := s.undo(func() {
		if _, err := kubectl(s.ctx, "", "uncordon", nodes[1]); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	out, err := kubectl(s.ctx, "", "drain", nodes[1], "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=3m")
	if err != nil {
		t.Fatal(err)
	}
	pod := s.awaitOn("logger", nodes[1], false)
	t.Logf("drained and Running elsewhere in %.1f s", time.Since(began).Seconds())
	if n := s.lines(pod); n < before {
		t.Errorf("%d lines of %d\n%s", n, before, out)
	}
	uncordon()
	s.leave()
}

func (s *space) taint(node, taint string) {
	s.Helper()
	_, err := kubectl(s.ctx, "", "taint", "node", node, taint, "--overwrite="+fmt.Sprint(!strings.HasSuffix(taint, "-")))
	if err != nil && !strings.Contains(err.Error(), "not found") {
		s.Error(err)
	}
}

func (s *space) ready(node string) bool {
	n, err := client.CoreV1().Nodes().Get(s.ctx, node, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// awaitReady waits until the node is Ready and its plugin registered.
func (s *space) awaitReady(node string) {
	s.Helper()
	await(s.T, func() error {
		if !s.ready(node) {
			return fmt.Errorf("%s is not Ready", node)
		}
		csi, err := client.StorageV1().CSINodes().Get(s.ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, d := range csi.Spec.Drivers {
			if d.Name == driverName {
				return nil
			}
		}
		return fmt.Errorf("%s is not registered on %s", driverName, node)
	})
}

// TestStartupTaint: a new node takes no pod before its plugin is there, and
// loses the taint when it is.
func TestStartupTaint(t *testing.T) {
	const taint = driverName + "/agent-not-ready"
	s := newSpace(t)
	s.taint(nodes[1], taint+"=:NoExecute")
	t.Cleanup(func() { s.taint(nodes[1], taint+"-") })
	restart(t, "component=node")
	await(t, func() error {
		n, err := client.CoreV1().Nodes().Get(s.ctx, nodes[1], metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, x := range n.Spec.Taints {
			if x.Key == taint {
				return fmt.Errorf("%s still has %s", nodes[1], taint)
			}
		}
		return nil
	})
}

// TestNodePluginsReach: who has taken over a node has its plugin's account, and
// gets at no other node by it, nor at anything of its own but the taint.
func TestNodePluginsReach(t *testing.T) {
	t.Parallel()
	c := rest.CopyConfig(config)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + system + ":" + release + "-node",
		Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {nodes[1]}},
	}
	plugin, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, attack := range map[string]struct{ node, patch, want string }{
		"another node":    {nodes[0], `{"metadata":{"annotations":{"x":"y"}}}`, "its own node alone"},
		"a label":         {nodes[1], `{"metadata":{"labels":{"x":"y"}}}`, "change nothing else"},
		"an annotation":   {nodes[1], `{"metadata":{"annotations":{"x":"y"}}}`, "change nothing else"},
		"another taint":   {nodes[1], `{"spec":{"taints":[{"key":"x","effect":"NoExecute"}]}}`, "change nothing else"},
		"unschedulable":   {nodes[1], `{"spec":{"unschedulable":true}}`, "change nothing else"},
		"the node status": {nodes[1], `{"status":{"phase":"Running"}}`, ""},
	} {
		var subresources []string
		if name == "the node status" {
			subresources = []string{"status"}
		}
		_, err := plugin.CoreV1().Nodes().Patch(t.Context(), attack.node, types.MergePatchType, []byte(attack.patch), metav1.PatchOptions{}, subresources...)
		if err == nil || !strings.Contains(err.Error(), attack.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := plugin.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("secrets: %v", err)
	}
}
