package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// Volumes is what a storage node knows of its volumes: [volume.Manager].
type Volumes interface {
	List(context.Context) ([]volume.Volume, error)
	Capacity(context.Context) (c blockdev.Capacity, available int64, err error)
	Refused() int
}

// Target is what the iSCSI target knows of itself: [iscsitarget.Server].
type Target interface{ Stats() iscsitarget.Stats }

// Controller collects the figures of a storage node.
type Controller struct {
	volumes Volumes
	target  Target
	timeout time.Duration
}

var _ prometheus.Collector = (*Controller)(nil)

// NewController returns the collector of a storage node.
func NewController(volumes Volumes, target Target) *Controller {
	return &Controller{volumes, target, figureTimeout}
}

var (
	poolTotal     = desc("pool_size_bytes", "What the pool could ever hold.")
	poolFree      = desc("pool_free_bytes", "What is free on the pool's disk now.")
	poolPromised  = desc("pool_promised_bytes", "The sum of the volumes' sizes.")
	poolAllocated = desc("pool_allocated_bytes", "What the volumes occupy now.")
	poolAvailable = desc("pool_available_bytes", "The largest volume that can be made now.")

	volumeCount    = desc("volumes", "Volumes in the pool: exported, not exported, or refused because their records cannot be relied on.", "state")
	volumeInfo     = desc("volume_info", "Whom a volume was made for, as Kubernetes told at its creation; always 1.", "volume", "persistentvolume", "namespace", "persistentvolumeclaim")
	volumeSize     = desc("volume_size_bytes", "Size of a volume.", "volume")
	volumeNodes    = desc("volume_attachments", "Nodes that a volume is published to.", "volume")
	volumeSessions = desc("volume_sessions", "iSCSI sessions that a volume has now.", "volume")
	volumeCommands = desc("volume_commands_total", "SCSI commands to a volume since the controller started.", "volume", "kind")
	volumeBytes    = desc("volume_bytes_total", "Bytes that initiators read from and wrote to a volume since the controller started.", "volume", "direction")
	volumeLost     = desc("volume_lost_stages", "Stagings of a volume that get errors, because acknowledged writes of theirs are lost, until they are staged anew.", "volume")

	sessionCount     = desc("sessions", "iSCSI sessions now.", "kind")
	portalListeners  = desc("portal_listeners", "Listeners that accept iSCSI connections now.")
	portalConns      = desc("portal_connections", "iSCSI connections now, logged in or not.")
	portalAccepted   = desc("portal_connections_accepted_total", "iSCSI connections that were let begin a login.")
	portalRejected   = desc("portal_connections_rejected_total", "iSCSI connections that were closed unread, because of their address or for want of room.", "reason")
	loginCount       = desc("logins_total", "iSCSI logins that succeeded.")
	loginRefusals    = desc("logins_refused_total", "iSCSI logins that came to nothing.", "reason")
	controllerMetric = []*prometheus.Desc{
		poolTotal, poolFree, poolPromised, poolAllocated, poolAvailable,
		volumeCount, volumeInfo, volumeSize, volumeNodes, volumeSessions, volumeCommands, volumeBytes, volumeLost,
		sessionCount, portalListeners, portalConns, portalAccepted, portalRejected, loginCount, loginRefusals,
	}
)

// Describe implements prometheus.Collector.
func (c *Controller) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range controllerMetric {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Controller) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	stats := c.target.Stats()
	collectPortal(ch, stats)
	c.collectVolumes(ctx, ch, stats.Targets)
	c.collectPool(ctx, ch)
}

func (c *Controller) collectPool(ctx context.Context, ch chan<- prometheus.Metric) {
	figures, available, err := c.volumes.Capacity(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(poolTotal, err)
		return
	}
	gauge(ch, poolTotal, figures.Total)
	gauge(ch, poolFree, figures.Free)
	gauge(ch, poolPromised, figures.Promised)
	gauge(ch, poolAllocated, figures.Allocated)
	gauge(ch, poolAvailable, available)
}

func (c *Controller) collectVolumes(ctx context.Context, ch chan<- prometheus.Metric, targets []iscsitarget.TargetStats) {
	all, err := c.volumes.List(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(volumeCount, err)
		return
	}
	byName := make(map[string]iscsitarget.TargetStats, len(targets))
	for _, t := range targets {
		byName[t.Name] = t
	}
	exported := 0
	for _, v := range all {
		collectVolume(ch, v)
		if t, ok := byName[volume.TargetName(v.UUID)]; ok {
			exported++
			collectExport(ch, v.ID, t)
		}
	}
	gauge(ch, volumeCount, exported, "exported")
	gauge(ch, volumeCount, len(all)-exported, "not_exported")
	gauge(ch, volumeCount, c.volumes.Refused(), "refused")
}

func collectVolume(ch chan<- prometheus.Metric, v volume.Volume) {
	whom := v.Whom()
	gauge(ch, volumeInfo, 1, v.ID, whom.PersistentVolume, whom.Namespace, whom.Claim)
	gauge(ch, volumeSize, v.Size, v.ID)
	gauge(ch, volumeNodes, len(v.Attachments), v.ID)
}

func collectExport(ch chan<- prometheus.Metric, id string, t iscsitarget.TargetStats) {
	gauge(ch, volumeSessions, t.Sessions, id)
	gauge(ch, volumeLost, t.LostStages, id)
	counter(ch, volumeCommands, t.Traffic.Reads, id, "read")
	counter(ch, volumeCommands, t.Traffic.Writes, id, "write")
	// The three are read one after the other, so the sum may be ahead.
	counter(ch, volumeCommands, t.Traffic.Commands-min(t.Traffic.Commands, t.Traffic.Reads+t.Traffic.Writes), id, "other")
	counter(ch, volumeBytes, t.Traffic.BytesRead, id, "read")
	counter(ch, volumeBytes, t.Traffic.BytesWritten, id, "written")
}

func collectPortal(ch chan<- prometheus.Metric, s iscsitarget.Stats) {
	normal := 0
	for _, t := range s.Targets {
		normal += t.Sessions
	}
	gauge(ch, sessionCount, normal, "normal")
	gauge(ch, sessionCount, s.DiscoverySessions, "discovery")
	gauge(ch, portalListeners, s.Listeners)
	gauge(ch, portalConns, s.Connections)
	counter(ch, portalAccepted, s.ConnectionsAccepted)
	counter(ch, portalRejected, s.ConnectionsDenied, "address")
	counter(ch, portalRejected, s.ConnectionsDropped, "no_room")
	counter(ch, loginCount, s.Logins)
	for reason, n := range s.LoginsRefused {
		counter(ch, loginRefusals, n, string(reason))
	}
}
