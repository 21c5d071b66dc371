package e2e

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// TestVolume keeps one claim's data through the ends of its pod, the node
// plugin, the controller and the node's change.
func TestVolume(t *testing.T) {
	s := newSpace(t)
	s.claim("data", "1Gi")
	s.pod("writer", "data", onNode(nodes[1]))
	s.shell("writer", "dd if=/dev/urandom of=/data/random bs=1M count=16; cd /data; sha256sum random >sum; sync random sum")
	check := func(pod string) {
		t.Helper()
		s.shell(pod, "cd /data; sha256sum -c sum")
	}

	t.Run("node-plugin", func(t *testing.T) {
		restart(t, "component=node")
		check("writer")
	})
	t.Run("controller", func(t *testing.T) {
		restart(t, "component=storage")
		check("writer")
		s.shell("writer", "cp /data/random /data/copy; sync /data/copy; cmp /data/random /data/copy")
	})
	s.delete("writer") // its node has outages to come
	t.Parallel()       // what follows disturbs nobody
	t.Run("pod", func(t *testing.T) {
		s.pod("again", "data", onNode(nodes[1]))
		check("again")
	})
	t.Run("other-node", func(t *testing.T) {
		s.delete("again")
		s.pod("elsewhere", "data", onNode(storageNode))
		check("elsewhere")
	})
}

// restart deletes csi-ietd's pods of a kind and waits for new ones.
func restart(t *testing.T, component string) {
	t.Helper()
	selector := "app.kubernetes.io/name=csi-ietd,app.kubernetes.io/" + component
	old := podIDs(t, selector)
	if len(old) == 0 {
		t.Fatalf("no pods of %s", selector)
	}
	err := client.CoreV1().Pods(system).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		fresh := podIDs(t, selector)
		if len(fresh) != len(old) {
			return fmt.Errorf("%d of %d pods of %s", len(fresh), len(old), selector)
		}
		for id, ready := range fresh {
			if _, same := old[id]; same || !ready {
				return fmt.Errorf("pod %s of %s is not new and ready", id, selector)
			}
		}
		return nil
	})
}

// podIDs returns whether each pod is ready.
func podIDs(t *testing.T, selector string) map[types.UID]bool {
	t.Helper()
	pods, err := client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[types.UID]bool{}
	for _, p := range pods.Items {
		ids[p.UID] = false
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ids[p.UID] = true
			}
		}
	}
	return ids
}

// TestStatefulSet has a volume a replica, which comes back to it.
func TestStatefulSet(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	labels := map[string]string{"app": "db"}
	spec := podSpec("")
	spec.Volumes = nil
	_, err := client.AppsV1().StatefulSets(s.name).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](2), ServiceName: "db", PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: claimSpec("256Mi")}},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"db-0", "db-1"} {
		s.awaitRunning(pod)
		s.shell(pod, "hostname >/data/name; sync /data/name")
	}
	s.restart("db-0")
	if got := s.shell("db-0", "cat /data/name"); got != "db-0" {
		t.Errorf("db-0 has the volume of %q", got)
	}
}

// restart deletes a pod that somebody makes anew, and returns when the new one runs.
func (s *space) restart(pod string) {
	s.Helper()
	pods := client.CoreV1().Pods(s.name)
	old, err := pods.Get(s.ctx, pod, metav1.GetOptions{})
	if err == nil {
		err = pods.Delete(s.ctx, pod, metav1.DeleteOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
	await(s.T, func() error {
		p, err := pods.Get(s.ctx, pod, metav1.GetOptions{})
		if err == nil && p.UID == old.UID {
			err = fmt.Errorf("pod %s is still the old one", pod)
		}
		return err
	})
	s.awaitRunning(pod)
}

// TestBlock gives pods the disk itself, on two nodes at once.
func TestBlock(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.claim("raw", "64Mi", blockMode, accessMode(corev1.ReadWriteMany))
	s.pod("one", "raw", asDevice, onNode(nodes[1]))
	sum := s.shell("one", `dd if=/dev/urandom of=/tmp/x bs=1M count=8 2>/dev/null
dd if=/tmp/x of=/dev/data bs=1M conv=fsync 2>/dev/null; sha256sum </tmp/x`)
	if size := s.shell("one", "blockdev --getsize64 /dev/data"); size != fmt.Sprint(64<<20) {
		t.Errorf("the device has %s bytes", size)
	}
	s.pod("looker", "raw", asDevice, readOnly, onNode(nodes[1]))
	if out, err := kubectl(s.ctx, "", "-n", s.name, "exec", "looker", "--", "dd", "if=/dev/zero", "of=/dev/data", "count=1"); err == nil {
		t.Errorf("a pod that has the device read-only wrote to it: %s", out)
	}
	s.delete("looker")
	s.pod("other", "raw", asDevice, onNode(storageNode))
	if got := s.shell("other", "dd if=/dev/data bs=1M count=8 2>/dev/null | sha256sum"); got != sum {
		t.Errorf("read %s on the other node, written %s", got, sum)
	}
	sum = s.shell("other", `dd if=/dev/urandom of=/tmp/x bs=1M count=8 2>/dev/null
dd if=/tmp/x of=/dev/data bs=1M conv=fsync 2>/dev/null; sha256sum </tmp/x`)
	if got := s.shell("one", "dd if=/dev/data iflag=direct bs=1M count=8 2>/dev/null | sha256sum"); got != sum {
		t.Errorf("read %s on the first node, the other has written %s", got, sum)
	}
}

// TestGrow grows a file system and a block device under their pods.
func TestGrow(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.claim("files", "256Mi")
	s.claim("raw", "64Mi", blockMode)
	s.pod("files", "files", onNode(nodes[1]))
	s.pod("raw", "raw", asDevice, onNode(nodes[1]))
	s.shell("files", "echo before >/data/file; sync /data/file")
	s.grow("files", "512Mi")
	s.grow("raw", "128Mi")
	s.awaitCapacity("files", "512Mi")
	s.awaitCapacity("raw", "128Mi")
	var kib int
	blocks := s.shell("files", "df -Pk /data | awk 'NR == 2 {print $2}'")
	if _, err := fmt.Sscan(blocks, &kib); err != nil || kib < 450<<10 {
		t.Errorf("the file system has %s KiB: %v", blocks, err)
	}
	if size := s.shell("raw", "blockdev --getsize64 /dev/data"); size != fmt.Sprint(128<<20) {
		t.Errorf("the device has %s bytes", size)
	}
	if got := s.shell("files", "cat /data/file"); got != "before" {
		t.Errorf("the file holds %q", got)
	}
}

// awaitCapacity waits until a claim says that it has that size: the node has
// grown what it holds.
func (s *space) awaitCapacity(claim, want string) {
	s.Helper()
	await(s.T, func() error {
		pvc, err := client.CoreV1().PersistentVolumeClaims(s.name).Get(s.ctx, claim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := pvc.Status.Capacity.Storage().String(); got != want {
			return fmt.Errorf("claim %s says %s", claim, got)
		}
		return nil
	})
}

func (s *space) grow(claim, size string) {
	s.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"resources":{"requests":{"storage":%q}}}}`, size)
	_, err := client.CoreV1().PersistentVolumeClaims(s.name).Patch(s.ctx, claim, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// TestEphemeral has a volume that lives as long as its pod.
func TestEphemeral(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	spec := podSpec("")
	spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimSpec("128Mi")}}}
	s.createPod("scratch", spec)
	s.awaitRunning("scratch")
	s.shell("scratch", "echo x >/data/x; sync /data/x")
	pvc, err := client.CoreV1().PersistentVolumeClaims(s.name).Get(t.Context(), "scratch-data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.delete("scratch")
	await(t, func() error {
		_, err := client.CoreV1().PersistentVolumes().Get(t.Context(), pvc.Spec.VolumeName, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("volume %s is still there", pvc.Spec.VolumeName)
		}
		return nil
	})
}

// TestAccessModes: a ReadWriteOncePod volume is one pod's; a ReadWriteOnce
// volume is several pods' of one node.
func TestAccessModes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.claim("rwop", "64Mi", accessMode(corev1.ReadWriteOncePod))
	s.claim("rwo", "64Mi")
	s.pod("only", "rwop", onNode(nodes[1]))
	s.createPod("second", podSpec("rwop", onNode(nodes[1])))
	s.awaitEvent("second", "ReadWriteOncePod")
	s.delete("only")
	s.awaitRunning("second")

	s.pod("one", "rwo", onNode(nodes[1]))
	s.shell("one", "echo shared >/data/file; sync /data/file")
	s.pod("two", "rwo", onNode(nodes[1]))
	if got := s.shell("two", "cat /data/file"); got != "shared" {
		t.Errorf("the second pod reads %q", got)
	}
	s.createPod("three", podSpec("rwo", onNode(storageNode)))
	s.awaitEvent("three", "already used by pod")
}

// TestReadOnlyMany: what one node has written is read on all of them, and written on none.
func TestReadOnlyMany(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.claim("one", "256Mi")
	s.pod("writer", "one", onNode(nodes[1]))
	s.shell("writer", "echo for all >/data/file; sync /data/file")
	s.static("many", corev1.ReadOnlyMany, corev1.PersistentVolumeSource{CSI: s.source("one")})
	s.delete("writer")
	for i, node := range nodes[:2] {
		reader := fmt.Sprint("reader-", i)
		s.pod(reader, "many", onNode(node))
		if got := s.shell(reader, "cat /data/file"); got != "for all" {
			t.Errorf("%s reads %q", node, got)
		}
		if out, err := kubectl(s.ctx, "", "-n", s.name, "exec", reader, "--", "touch", "/data/file"); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("touch on %s: %s %v", node, out, err)
		}
	}
}

// TestCapacity: the scheduler knows what the pool has left, and a claim that
// no pool can hold says so.
func TestCapacity(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	await(t, func() error {
		list, err := client.StorageV1().CSIStorageCapacities(system).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, c := range list.Items {
			if c.StorageClassName == storageClass && c.Capacity.Sign() > 0 {
				t.Logf("%s has %s left", c.StorageClassName, c.Capacity)
				return nil
			}
		}
		return fmt.Errorf("no CSIStorageCapacity of %s with something left", storageClass)
	})
	s.claim("late", "100Ti")
	s.createPod("late", podSpec("late"))
	s.awaitEvent("late", "not have enough free storage")
	s.claim("now", "100Ti", ofClass(s.class(nil)))
	s.awaitEvent("now", "OutOfRange", "the pool holds")
}

// TestBadInput: what is wrong is said where the user looks.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.claim("typo", "64Mi", ofClass(s.class(map[string]string{"mkfsOption": "-m0"})))
	s.awaitEvent("typo", "mkfsOption", "mkfsOptions")
	s.claim("secretless", "64Mi", ofClass(s.class(map[string]string{
		"csi.storage.k8s.io/provisioner-secret-name":      "nobody",
		"csi.storage.k8s.io/provisioner-secret-namespace": s.name,
	})))
	s.awaitEvent("secretless", "error getting secret nobody")
	s.claim("many", "64Mi", accessMode(corev1.ReadWriteMany), ofClass(s.class(nil)))
	s.awaitEvent("many", "InvalidArgument")

	out, err := helm(t.Context(), "upgrade", release, root+"/charts/csi-ietd", "--namespace", system, "--reuse-values", "--dry-run",
		"--set", "storage.nodeName=3")
	if err == nil || !strings.Contains(err.Error(), "got number, want string") {
		t.Errorf("a number for storage.nodeName: %s, %v", out, err)
	}
	out, err = helm(t.Context(), "install", "another", root+"/charts/csi-ietd", "--namespace", s.name, "--set", "storage.nodeName="+nodes[1])
	if err == nil || !strings.Contains(err.Error(), driverName) {
		t.Errorf("a second driver of the same name: %s, %v", out, err)
	}
}
