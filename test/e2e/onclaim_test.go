package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// otherDisk is a class with one volume, a directory of the storage node by
// Kubernetes' own local source, which a pod makes first.
const otherDisk = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: e2e-disk}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: e2e-disk}
spec:
  storageClassName: e2e-disk
  capacity: {storage: 4Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {path: /var/lib/csi-ietd/e2e-disk}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchFields: [{key: metadata.name, operator: In, values: [NODE]}]
---
apiVersion: v1
kind: Pod
metadata: {name: e2e-disk, namespace: default}
spec:
  nodeName: NODE
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  initContainers:
    - name: make
      image: IMAGE
      command: [sh, -c, "rm -rf /host/e2e-disk; mkdir -p /host/e2e-disk"]
      volumeMounts: [{name: disk, mountPath: /host}]
  containers:
    - name: main
      image: IMAGE
      command: [sleep, infinity]
      volumeMounts: [{name: disk, mountPath: /host}]
  volumes: [{name: disk, hostPath: {path: /var/lib/csi-ietd, type: DirectoryOrCreate}}]
`

// onClaim installs with the pool on another driver's volume, as docs/install.md
// says, and with what the chart leaves off by default: nodes keep the startup taint.
func onClaim(ctx context.Context) (err error) {
	if strings.Contains(os.Getenv("E2E_VALUES"), "node.hostProc=") {
		fmt.Println("a pool on a claim: not here, the host's iscsid reaches no Service of these nodes")
		return nil
	}
	began := time.Now()
	disk := strings.NewReplacer("NODE", storageNode, "IMAGE", image).Replace(otherDisk)
	if _, err := kubectl(ctx, disk, "apply", "-f", "-"); err != nil {
		return err
	}
	defer func() {
		_, e := kubectl(ctx, "", "-n", "default", "exec", "e2e-disk", "--", "rm", "-rf", "/host/e2e-disk")
		_, e2 := kubectl(ctx, disk, "delete", "-f", "-", "--timeout=4m")
		err = errors.Join(err, e, e2)
	}()
	if _, err := kubectl(ctx, "", "-n", "default", "wait", "--for=condition=Ready", "pod/e2e-disk", "--timeout=4m"); err != nil {
		return err
	}

	// The lab's last node reaches no Service from its iscsid. The startup taint
	// keeps pods off the others.
	const taint = driverName + "/agent-not-ready"
	for _, n := range nodes[1:] {
		if _, err := kubectl(ctx, "", "taint", "node", n, taint+"=:NoSchedule"); err != nil {
			return err
		}
	}
	values := "E2E_VALUES=" + os.Getenv("E2E_VALUES") + " --set node.removeStartupTaint=false"
	for _, label := range []string{"claim", "first"} {
		if err := documented(ctx, "install.md", label, values, "CLASS=e2e-disk", "SIZE=4Gi"); err != nil {
			return err
		}
	}

	if err := documented(ctx, "install.md", "first-away"); err != nil {
		return err
	}
	for _, n := range nodes[1:] { // fails where the taint is gone
		if _, err := kubectl(ctx, "", "taint", "node", n, taint+"-"); err != nil {
			return fmt.Errorf("with node.removeStartupTaint=false: %w", err)
		}
	}
	fmt.Printf("installed with the pool on a claim, and a first volume, in %.1f s\n", time.Since(began).Seconds())
	return uninstall(ctx, "install.md", "uninstall")
}
