// Package driver is the CSI edge of csi-ietd (Container Storage Interface
// v1.13): the Identity, Controller and Node services and the gRPC server that
// carries them on a unix socket.
//
// The edge translates and checks; the work is done below it, by package volume
// on the storage node and by packages initiator and mount on the consumer.
// What every call needs is in one place each: fields are checked in
// validate.go, errors get their codes in status.go, and interceptors.go logs
// one line a call, without secrets.
//
// The life of a volume, and where each part is:
//
//   - CreateVolume (controller.go) → volume.Manager.Create: a directory in the
//     pool with data and record (blockdev/file), exported as a target.
//   - ControllerPublishVolume (controller_publish.go) → Manager.Attach: a
//     generation on stable storage, then the node is let in; what it needs goes
//     sealed into publish_context (publishcontext.go).
//   - NodeStageVolume (node_stage.go): stage file (node_state.go), login
//     (initiator/attach.go), identity check, mkfs and mount (mount/).
//     NodePublishVolume (node_publish.go) binds it into the pod.
//   - I/O is the target's: see package iscsitarget/internal/session.
//   - ControllerExpandVolume, then NodeExpandVolume (node_usage.go).
//   - NodeUnpublishVolume, NodeUnstageVolume (node_unstage.go): mounts, device,
//     session, record. What a reboot or a killed plugin left is taken off by
//     Node.Reconcile (node_reconcile.go); I/O of a volume that was given to
//     another node is ended by Node.EndShutOut (node_shutout.go).
//   - ControllerUnpublishVolume → Manager.Detach, which is the fence.
//   - DeleteVolume → Manager.Delete.
package driver
