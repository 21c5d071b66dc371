package driver

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
)

const taintedNode, taintedNodeID = "n1", "id-1"

func taintNode(taints ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: taintedNode}}
	for _, key := range taints {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute})
	}
	return node
}

func csiNode(name string, drivers ...storagev1.CSINodeDriver) *storagev1.CSINode {
	return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: drivers}}
}

// taintWorld is a cluster with the taint's remover at work, in fake time.
type taintWorld struct {
	*fake.Clientset
	t     *testing.T
	ready atomic.Bool
	stop  context.CancelFunc
	done  chan error
}

// inTaintWorld runs a test in a cluster with these objects; the remover begins
// with start.
func inTaintWorld(t *testing.T, objects []runtime.Object, test func(w *taintWorld, start func())) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
		w := &taintWorld{Clientset: fake.NewClientset(objects...), t: t, stop: stop, done: make(chan error, 1)}
		w.ready.Store(true)
		taint := StartupTaint{Nodes: w.CoreV1().Nodes(), CSINodes: w.StorageV1().CSINodes(), NodeName: taintedNode, NodeID: taintedNodeID, Ready: w.isReady}
		defer synctest.Wait()
		defer stop()
		test(w, func() {
			go func() { w.done <- taint.Remove(ctx) }()
			synctest.Wait()
		})
	})
}

func (w *taintWorld) isReady(context.Context) (bool, error) {
	if !w.ready.Load() {
		return false, errors.New("iscsid is not running")
	}
	return true, nil
}

// finished is Remove's error, once it has returned.
func (w *taintWorld) finished(within time.Duration) error {
	w.t.Helper()
	select {
	case err := <-w.done:
		return err
	case <-time.After(within):
		w.t.Fatalf("not done in %v", within)
		return nil
	}
}

// fails makes calls of the API server fail: those for which it returns an error.
func (w *taintWorld) fails(verb, resource string, with func() error) {
	w.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		err := with()
		return err != nil, nil, err
	})
	w.PrependWatchReactor(resource, func(clienttesting.Action) (bool, watch.Interface, error) {
		if verb != "watch" {
			return false, nil, nil
		}
		err := with()
		return err != nil, nil, err
	})
}

// taints are the keys of the node's taints now.
func (w *taintWorld) taints() []string {
	node, err := w.CoreV1().Nodes().Get(w.t.Context(), taintedNode, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	keys := []string{}
	for _, taint := range node.Spec.Taints {
		keys = append(keys, taint.Key)
	}
	return keys
}

func (w *taintWorld) want(when string, keys ...string) {
	w.t.Helper()
	if got := w.taints(); !slices.Equal(got, keys) {
		w.t.Errorf("%s: taints %v, want %v", when, got, keys)
	}
}

var ours = storagev1.CSINodeDriver{Name: Name, NodeID: taintedNodeID}

func (w *taintWorld) register(drivers ...storagev1.CSINodeDriver) {
	w.t.Helper()
	if _, err := w.StorageV1().CSINodes().Update(w.t.Context(), csiNode(taintedNode, drivers...), metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// TestStartupTaint waits for our entry in our node's CSINode and for nothing
// else, then for the node to be ready, and leaves other taints alone.
func TestStartupTaint(t *testing.T) {
	objects := []runtime.Object{
		taintNode("a", StartupTaintKey, "b"), csiNode("n2", ours),
		csiNode(taintedNode, storagev1.CSINodeDriver{Name: "other.io", NodeID: taintedNodeID}),
	}
	inTaintWorld(t, objects, func(w *taintWorld, start func()) {
		w.ready.Store(false)
		start()
		w.register(storagev1.CSINodeDriver{Name: Name, NodeID: "a plugin of before"})
		w.want("before kubelet knows us", "a", StartupTaintKey, "b")
		w.register(ours)
		time.Sleep(10 * readyInterval) //nolint:forbidigo // fake time
		synctest.Wait()
		w.want("before the node is ready", "a", StartupTaintKey, "b")
		w.ready.Store(true)
		if err := w.finished(2 * readyInterval); err != nil {
			t.Errorf("Remove: %v", err)
		}
		w.want("at the end", "a", "b")
	})
}

// TestStartupTaintTwice: one key with two effects.
func TestStartupTaintTwice(t *testing.T) {
	inTaintWorld(t, []runtime.Object{taintNode(StartupTaintKey, StartupTaintKey), csiNode(taintedNode, ours)},
		func(w *taintWorld, start func()) {
			start()
			if err := w.finished(time.Second); err != nil {
				t.Errorf("Remove: %v", err)
			}
			w.want("at the end")
		})
}

// TestStartupTaintUnderChange: somebody else changes the taints between our
// look and our patch.
func TestStartupTaintUnderChange(t *testing.T) {
	inTaintWorld(t, []runtime.Object{taintNode(StartupTaintKey), csiNode(taintedNode, ours)},
		func(w *taintWorld, start func()) {
			changed := false
			w.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
				if changed {
					return false, nil, nil
				}
				changed = true
				node := taintNode("node.kubernetes.io/unreachable", StartupTaintKey)
				return false, nil, w.Tracker().Update(corev1.SchemeGroupVersion.WithResource("nodes"), node, "")
			})
			start()
			if err := w.finished(time.Minute); err != nil {
				t.Errorf("Remove: %v", err)
			}
			if !changed {
				t.Error("there was no patch")
			}
			w.want("at the end", "node.kubernetes.io/unreachable")
		})
}

// TestStartupTaintAPIErrors: an API server that is away, refuses or has
// conflicts is asked again, not without pause.
func TestStartupTaintAPIErrors(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	for what, err := range map[string]error{
		"unavailable": apierrors.NewServiceUnavailable("away"),
		"conflict":    apierrors.NewConflict(nodes, taintedNode, errors.New("changed")),
		"forbidden":   apierrors.NewForbidden(nodes, taintedNode, errors.New("no RBAC")),
	} {
		for _, call := range [][2]string{{"list", "csinodes"}, {"watch", "csinodes"}, {"get", "nodes"}, {"patch", "nodes"}} {
			t.Run(what+" "+call[0]+" "+call[1], func(t *testing.T) {
				inTaintWorld(t, []runtime.Object{taintNode(StartupTaintKey), csiNode(taintedNode)},
					func(w *taintWorld, start func()) {
						left := 3
						w.fails(call[0], call[1], func() error {
							if left == 0 {
								return nil
							}
							left--
							return err
						})
						start()
						time.Sleep(10 * time.Minute) //nolint:forbidigo // fake time
						synctest.Wait()
						w.register(ours)
						if err := w.finished(10 * time.Minute); err != nil {
							t.Errorf("Remove: %v", err)
						}
						if left != 0 {
							t.Errorf("the API server was not asked: %d errors left", left)
						}
						w.want("at the end")
					})
			})
		}
	}
}

// TestStartupTaintBackoff: hours of refusals are not thousands of calls.
func TestStartupTaintBackoff(t *testing.T) {
	inTaintWorld(t, []runtime.Object{taintNode(StartupTaintKey), csiNode(taintedNode, ours)},
		func(w *taintWorld, start func()) {
			calls := 0
			w.fails("get", "nodes", func() error { calls++; return apierrors.NewServiceUnavailable("away") })
			start()
			time.Sleep(2 * time.Hour) //nolint:forbidigo // fake time
			synctest.Wait()
			if calls < 60 || calls > 200 {
				t.Errorf("%d calls in two hours", calls)
			}
		})
}

// TestStartupTaintAbsent: no patch where there is no taint, as after a restart
// of the plugin.
func TestStartupTaintAbsent(t *testing.T) {
	inTaintWorld(t, []runtime.Object{taintNode("a"), csiNode(taintedNode, ours)}, func(w *taintWorld, start func()) {
		start()
		if err := w.finished(time.Second); err != nil {
			t.Errorf("Remove: %v", err)
		}
		for _, action := range w.Actions() {
			if action.GetVerb() == "patch" {
				t.Errorf("patched: %v", action)
			}
		}
	})
}

// TestStartupTaintEnds with its context, wherever it is.
func TestStartupTaintEnds(t *testing.T) {
	for name, prepare := range map[string]func(*taintWorld){
		"waiting for kubelet":  func(w *taintWorld) { w.register() },
		"waiting for the node": func(w *taintWorld) { w.ready.Store(false) },
		"waiting for the API": func(w *taintWorld) {
			w.fails("get", "nodes", func() error { return apierrors.NewServiceUnavailable("away") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{taintNode(StartupTaintKey), csiNode(taintedNode, ours)}
			inTaintWorld(t, objects, func(w *taintWorld, start func()) {
				prepare(w)
				start()
				if len(w.done) > 0 {
					t.Errorf("it is done: %v", <-w.done)
				}
				w.stop()
				if err := w.finished(time.Second); err == nil {
					t.Error("Remove says that it removed the taint")
				}
			})
		})
	}
}

// TestStartupTaintWatchEnds: a watch that ends, or says that it cannot go on,
// is begun anew.
func TestStartupTaintWatchEnds(t *testing.T) {
	for name, end := range map[string]func(*watch.FakeWatcher){
		"ended": func(f *watch.FakeWatcher) { f.Stop() },
		"gone": func(f *watch.FakeWatcher) {
			f.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
		},
		"deleted": func(f *watch.FakeWatcher) { f.Delete(csiNode(taintedNode, ours)); f.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			inTaintWorld(t, []runtime.Object{taintNode(StartupTaintKey), csiNode(taintedNode)}, func(w *taintWorld, start func()) {
				first := watch.NewFakeWithChanSize(1, false)
				watches := 0
				w.PrependWatchReactor("csinodes", func(clienttesting.Action) (bool, watch.Interface, error) {
					watches++
					return watches == 1, first, nil
				})
				start()
				end(first)
				time.Sleep(time.Minute) //nolint:forbidigo // fake time
				synctest.Wait()
				if watches != 2 {
					t.Errorf("%d watches", watches)
				}
				w.register(ours)
				if err := w.finished(time.Second); err != nil {
					t.Errorf("Remove: %v", err)
				}
				w.want("at the end")
			})
		})
	}
}
