package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	image        = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2"
	storageClass = "csi-ietd" // the chart's default

	// patience is for what a busy machine may make slow, not for what is
	// measured.
	patience = 4 * time.Minute
)

// space is a test's own namespace.
type space struct {
	*testing.T
	name string
	ctx  context.Context // of the test and its cleanups
}

// newSpace makes a namespace; the test waits until its pods and volumes are
// gone.
func newSpace(t *testing.T) *space {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &space{t, ns.Name, context.WithoutCancel(t.Context())}
	t.Cleanup(s.end)
	return s
}

func (s *space) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.Failed() {
		s.tell(ctx)
	}
	err := s.deleteNamespace(ctx)
	if err == nil {
		err = poll(ctx, func() error { return s.gone(ctx) })
	}
	if err != nil {
		s.Error(err)
	}
}

// deleteNamespace begins the end of all that the test made, if it has not begun.
func (s *space) deleteNamespace(ctx context.Context) error {
	err := client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// leave is the last call of a test that has had the cluster for itself: what it
// made goes while the next such test begins, and whether it went is seen when
// the last of them is over.
func (s *space) leave() {
	s.Helper()
	if err := s.deleteNamespace(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.Parallel()
}

// undo returns a function that calls f once; the test's end does it too.
func (s *space) undo(f func()) func() {
	var once sync.Once
	do := func() { once.Do(f) }
	s.Cleanup(do)
	return do
}

// gone reports what is left. The namespace itself takes Kubernetes another 5 s,
// in which the next test has begun.
func (s *space) gone(ctx context.Context) error {
	pods, err := client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(pods.Items) > 0 {
		return fmt.Errorf("pod %s of namespace %s is still there", pods.Items[0].Name, s.name)
	}
	claims, err := client.CoreV1().PersistentVolumeClaims(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(claims.Items) > 0 {
		return fmt.Errorf("claim %s of namespace %s is still there", claims.Items[0].Name, s.name)
	}
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if ref := v.Spec.ClaimRef; ref != nil && ref.Namespace == s.name && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			return fmt.Errorf("volume %s of %s is still %s", v.Name, ref.Name, v.Status.Phase)
		}
	}
	return nil
}

// tell logs what someone would look at after a failure.
func (s *space) tell(ctx context.Context) {
	for _, args := range [][]string{
		{"-n", s.name, "get", "pods,pvc", "-o", "wide"},
		{"-n", s.name, "get", "events", "--sort-by=.lastTimestamp"},
		{"get", "pv,volumeattachments,nodes"},
		{"-n", system, "get", "pods", "-o", "wide"},
	} {
		out, err := kubectl(ctx, "", args...)
		s.Logf("kubectl %s:\n%s\n%v", strings.Join(args, " "), out, err)
	}
}

// poll tries until there is no error or ctx ends.
func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// await polls with patience and ends the test when that is over.
func await(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := poll(ctx, try); err != nil {
		t.Fatal(err)
	}
}

// claim makes a PersistentVolumeClaim; change may alter it first.
func (s *space) claim(name, size string, change ...func(*corev1.PersistentVolumeClaimSpec)) {
	s.Helper()
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: claimSpec(size)}
	for _, c := range change {
		c(&pvc.Spec)
	}
	if _, err := client.CoreV1().PersistentVolumeClaims(s.name).Create(s.ctx, pvc, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func claimSpec(size string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: ptr.To(storageClass),
		Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}
}

func blockMode(c *corev1.PersistentVolumeClaimSpec) {
	c.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
}

func ofClass(name string) func(*corev1.PersistentVolumeClaimSpec) {
	return func(c *corev1.PersistentVolumeClaimSpec) { c.StorageClassName = &name }
}

func accessMode(mode corev1.PersistentVolumeAccessMode) func(*corev1.PersistentVolumeClaimSpec) {
	return func(c *corev1.PersistentVolumeClaimSpec) { c.AccessModes = []corev1.PersistentVolumeAccessMode{mode} }
}

// source is where a claim's volume is.
func (s *space) source(claim string) *corev1.CSIPersistentVolumeSource {
	s.Helper()
	pvc, err := client.CoreV1().PersistentVolumeClaims(s.name).Get(s.ctx, claim, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	pv, err := client.CoreV1().PersistentVolumes().Get(s.ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pv.Spec.CSI
}

// static makes a static volume and a claim for it.
func (s *space) static(name string, mode corev1.PersistentVolumeAccessMode, source corev1.PersistentVolumeSource) {
	s.Helper()
	volume := s.name + "-" + name
	_, err := client.CoreV1().PersistentVolumes().Create(s.ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volume},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("256Mi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{mode},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        source,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = client.CoreV1().PersistentVolumes().Delete(s.ctx, volume, metav1.DeleteOptions{}) })
	s.claim(name, "256Mi", accessMode(mode), func(c *corev1.PersistentVolumeClaimSpec) {
		c.StorageClassName, c.VolumeName = ptr.To(""), volume
	})
}

// class makes a StorageClass that ends with the test.
func (s *space) class(parameters map[string]string, change ...func(*storagev1.StorageClass)) string {
	s.Helper()
	sc := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{GenerateName: s.name + "-"}, Provisioner: driverName, Parameters: parameters,
		AllowVolumeExpansion: ptr.To(true), VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate),
	}
	for _, c := range change {
		c(sc)
	}
	sc, err := client.StorageV1().StorageClasses().Create(s.ctx, sc, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = client.StorageV1().StorageClasses().Delete(context.Background(), sc.Name, metav1.DeleteOptions{})
	})
	return sc.Name
}

// podSpec is a pod that has a claim's volume at /data, or as /dev/data.
func podSpec(claim string, change ...func(*corev1.PodSpec)) corev1.PodSpec {
	spec := corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []corev1.Container{{
			Name: "main", Image: image, Command: []string{"sh", "-c", "trap exit TERM; sleep infinity & wait"},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
		Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
	}
	for _, c := range change {
		c(&spec)
	}
	return spec
}

func onNode(name string) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{corev1.LabelHostname: name} }
}

func asDevice(p *corev1.PodSpec) {
	c := &p.Containers[0]
	c.VolumeMounts, c.VolumeDevices = nil, []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
}

// readOnly takes the claim's volume read-only.
func readOnly(p *corev1.PodSpec) { p.Volumes[0].PersistentVolumeClaim.ReadOnly = true }

func running(script string) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) { p.Containers[0].Command = []string{"sh", "-ec", script} }
}

// pod makes a pod and returns when it runs.
func (s *space) pod(name, claim string, change ...func(*corev1.PodSpec)) {
	s.Helper()
	s.createPod(name, podSpec(claim, change...))
	s.awaitRunning(name)
}

func (s *space) createPod(name string, spec corev1.PodSpec) {
	s.Helper()
	_, err := client.CoreV1().Pods(s.name).Create(s.ctx,
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *space) awaitRunning(name string) {
	s.Helper()
	await(s.T, func() error {
		p, err := client.CoreV1().Pods(s.name).Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.ContainerStatuses {
			if p.Status.Phase == corev1.PodRunning && c.Ready && p.DeletionTimestamp == nil {
				return nil
			}
		}
		return fmt.Errorf("pod %s is %s", name, p.Status.Phase)
	})
}

// delete deletes a pod and returns when it is gone.
func (s *space) delete(pod string) {
	s.Helper()
	if err := client.CoreV1().Pods(s.name).Delete(s.ctx, pod, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	await(s.T, func() error {
		_, err := client.CoreV1().Pods(s.name).Get(s.ctx, pod, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("pod %s is still there: %w", pod, err)
		}
		return nil
	})
}

// shell runs a script in a pod and returns what it prints.
func (s *space) shell(pod, script string) string {
	s.Helper()
	out, err := kubectl(s.ctx, "", "-n", s.name, "exec", pod, "--", "sh", "-ec", script)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// awaitEvent returns when an object of the namespace has an event whose text
// holds all of words.
func (s *space) awaitEvent(object string, words ...string) {
	s.Helper()
	await(s.T, func() error {
		events, err := client.CoreV1().Events(s.name).List(s.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + object})
		if err != nil {
			return err
		}
		var all bytes.Buffer
		for _, e := range events.Items {
			if holds(e.Message, words) {
				return nil
			}
			fmt.Fprintf(&all, "\n  %s: %s", e.Reason, e.Message)
		}
		return fmt.Errorf("no event of %s says %q; they say:%s", object, words, all.String())
	})
}

func holds(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
