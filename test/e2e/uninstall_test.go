package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// uninstall takes csi-ietd away as a document says and looks for what it may
// have left.
func uninstall(ctx context.Context, document, label string) error {
	if err := documented(ctx, document, label); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return poll(ctx, func() error { return nothingLeft(ctx) })
}

// leftovers are the kinds whose objects of ours a cluster might still have.
const leftovers = "csidrivers,storageclasses,clusterroles,clusterrolebindings,priorityclasses,persistentvolumes,volumeattachments,csistoragecapacities," +
	"validatingadmissionpolicies,validatingadmissionpolicybindings"

// marks are what an object of ours has: its name, the chart's label, or the
// driver or class that Kubernetes made it for.
const marks = `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.labels.app\.kubernetes\.io/name} ` +
	`{.spec.csi.driver} {.spec.attacher} {.storageClassName}{"\n"}{end}`

func nothingLeft(ctx context.Context) error {
	_, err := client.CoreV1().Namespaces().Get(ctx, system, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("namespace %s is still there: %w", system, err)
	}
	out, err := kubectl(ctx, "", "get", leftovers, "-A", "-o", marks)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "csi-ietd") {
			return fmt.Errorf("left behind: %s", line)
		}
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		if err := cleanNode(ctx, &n); err != nil {
			return err
		}
	}
	return nil
}

// cleanNode: kubelet has forgotten the driver, and nothing of ours marks the
// node.
func cleanNode(ctx context.Context, n *corev1.Node) error {
	csi, err := client.StorageV1().CSINodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, d := range csi.Spec.Drivers {
		if d.Name == driverName {
			return fmt.Errorf("%s is still registered on %s", driverName, n.Name)
		}
	}
	for _, t := range n.Spec.Taints {
		if strings.HasPrefix(t.Key, driverName+"/") {
			return fmt.Errorf("node %s still has the taint %s", n.Name, t.Key)
		}
	}
	if os.Getenv("E2E_PROVIDER") == "" {
		return nil
	}
	out, err := provider(ctx, "exec", n.Name, "sh", "-c", leftOnMachine)
	if err == nil && out != "" {
		err = fmt.Errorf("left on %s:\n%s", n.Name, out)
	}
	return err
}

// leftOnMachine prints sessions, records of targets, mounts and sockets of
// csi-ietd. docs/install.md says what else stays.
const leftOnMachine = `ls /sys/class/iscsi_session
find /etc/iscsi/nodes /var/lib/iscsi/nodes -name 'iqn.2026-11.io.csi-ietd*' 2>/dev/null
grep -E '/csi-ietd\.io/|kubernetes\.io~csi/' /proc/1/mounts
find /var/lib/kubelet/plugins_registry /var/lib/kubelet/plugins/csi-ietd.io -type s
true`

func hasNoScheduleTaint(taints []corev1.Taint) bool {
	for _, t := range taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !strings.HasPrefix(t.Key, driverName+"/") {
			return true
		}
	}
	return false
}
