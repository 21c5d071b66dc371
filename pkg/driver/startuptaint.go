package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	storagev1client "k8s.io/client-go/kubernetes/typed/storage/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// StartupTaintKey is the taint that keeps pods off a node until its volumes can
// be staged there. Whoever makes nodes sets it; StartupTaint removes it.
const StartupTaintKey = Name + "/agent-not-ready"

const (
	// readyInterval is how often the node is looked at while it lacks
	// something: no event tells that iscsid was started.
	readyInterval = 2 * time.Second
	// taintPatience is how long one answer of the API server may take.
	taintPatience = 30 * time.Second
)

// taintBackoff paces the attempts at an API server that fails or refuses.
var taintBackoff = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: .2, Cap: time.Minute, Steps: 16}

// taintBackoffReset is after how long the pauses are short again: about as long
// as a watch lasts that nothing is wrong with.
const taintBackoffReset = 30 * time.Minute

// StartupTaint removes this node's startup taint.
type StartupTaint struct {
	Nodes    corev1client.NodeInterface
	CSINodes storagev1client.CSINodeInterface
	// NodeName is the Kubernetes node, NodeID what our NodeGetInfo says of
	// it: an entry in CSINode with another id was left by another plugin.
	NodeName, NodeID string
	// Ready says whether volumes can be staged here.
	Ready func(context.Context) (bool, error)
}

// Remove waits until the scheduler may send pods here, which is when kubelet
// has entered the driver in the node's CSINode and the node lacks nothing, and
// then removes the taint, once. It goes on through errors until it has done so
// or ctx ends.
func (t StartupTaint) Remove(ctx context.Context) error {
	steps := []func(context.Context) error{t.awaitRegistered, t.awaitReady, t.untaint}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return fmt.Errorf("startup taint of node %s: %w", t.NodeName, err)
		}
	}
	return nil
}

// awaitRegistered watches the node's CSINode until the driver is in it.
func (t StartupTaint) awaitRegistered(ctx context.Context) error {
	return t.insist(ctx, "Cannot watch this node's CSINode", t.watchRegistered)
}

// watchRegistered looks, and then watches what changes since, until the driver
// is in the node's CSINode; a watch that the API server ended is errWatchEnded.
func (t StartupTaint) watchRegistered(ctx context.Context) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, t.NodeName).String()}
	list, err := t.CSINodes.List(ctx, only)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list.Items, t.registeredIn) {
		return nil
	}
	only.ResourceVersion = list.ResourceVersion
	changes, err := t.CSINodes.Watch(ctx, only)
	if err != nil {
		return err
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-changes.ResultChan():
			switch node, _ := e.Object.(*storagev1.CSINode); {
			case !ok:
				return errWatchEnded
			case e.Type == watch.Error:
				return apierrors.FromObject(e.Object)
			case node != nil && e.Type != watch.Deleted && t.registeredIn(*node):
				return nil
			}
		}
	}
}

// errWatchEnded is how every watch ends after a while.
var errWatchEnded = errors.New("the API server ended the watch")

// insist tries until it succeeds or ctx ends, with growing pauses.
func (t StartupTaint) insist(ctx context.Context, complaint string, try func(context.Context) error) error {
	pauses := taintBackoff.DelayWithReset(clock.RealClock{}, taintBackoffReset)
	return pauses.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		err := try(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errWatchEnded) {
			klog.FromContext(ctx).Info(complaint+" yet", "taint", StartupTaintKey, "node", t.NodeName, "reason", err.Error())
		}
		return err == nil, nil
	})
}

func (t StartupTaint) registeredIn(node storagev1.CSINode) bool {
	return node.Name == t.NodeName && slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
		return d.Name == Name && d.NodeID == t.NodeID
	})
}

func (t StartupTaint) awaitReady(ctx context.Context) error {
	return wait.PollUntilContextCancel(ctx, readyInterval, true, func(ctx context.Context) (bool, error) {
		ready, err := t.Ready(ctx)
		return ready && err == nil, nil // what is missing is told by Probe
	})
}

// untaint removes the taint: others change the node all the time, so the first
// attempt may not be the last.
func (t StartupTaint) untaint(ctx context.Context) error {
	return t.insist(ctx, "Cannot remove the startup taint", t.tryUntaint)
}

func (t StartupTaint) tryUntaint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, taintPatience)
	defer cancel()
	node, err := t.Nodes.Get(ctx, t.NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	patch, err := untaintPatch(node.Spec.Taints)
	if patch == nil || err != nil {
		return err
	}
	if _, err := t.Nodes.Patch(ctx, t.NodeName, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Removed the startup taint", "taint", StartupTaintKey, "node", t.NodeName)
	return nil
}

// untaintPatch is a JSON patch (RFC 6902) that leaves the startup taint out of
// the node's taints, and fails where they are not these any more; nil where
// they do not hold it. One key may be there with several effects.
func untaintPatch(taints []corev1.Taint) ([]byte, error) {
	left := slices.DeleteFunc(slices.Clone(taints), func(taint corev1.Taint) bool { return taint.Key == StartupTaintKey })
	if len(left) == len(taints) {
		return nil, nil
	}
	type operation struct {
		Op    string         `json:"op"`
		Path  string         `json:"path"`
		Value []corev1.Taint `json:"value"`
	}
	patch, err := json.Marshal([]operation{
		{"test", "/spec/taints", taints},
		{"replace", "/spec/taints", left},
	})
	return patch, err
}
