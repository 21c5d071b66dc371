package metrics

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// fakeStorage is a storage node with figures of the test's choice.
type fakeStorage struct {
	volumes  []volume.Volume
	capacity error
	stats    iscsitarget.Stats
	sessions []iscsitarget.SessionStatus
}

func (f fakeStorage) List(context.Context) ([]volume.Volume, error) { return f.volumes, nil }
func (f fakeStorage) Capacity(context.Context) (blockdev.Capacity, int64, error) {
	return blockdev.Capacity{Total: 1000, Free: 600, Promised: 500, Allocated: 400}, 300, f.capacity
}
func (f fakeStorage) Refused() int                          { return 2 }
func (f fakeStorage) Stats() iscsitarget.Stats              { return f.stats }
func (f fakeStorage) Sessions() []iscsitarget.SessionStatus { return f.sessions }

func busyStorage() fakeStorage {
	return fakeStorage{
		volumes: []volume.Volume{
			{ID: "p.a", UUID: "a", Size: 100, Attachments: make([]volume.Attachment, 2), Parameters: map[string]string{
				"csi.storage.k8s.io/pv/name": "pvc-1", "csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pvc/name": "db",
			}},
			{ID: "p.b", UUID: "b", Size: 400},
		},
		stats: iscsitarget.Stats{
			Listeners: 1, Connections: 5, ConnectionsAccepted: 50, ConnectionsDenied: 6, ConnectionsDropped: 7,
			DiscoverySessions: 1, Logins: 40, LoginsRefused: map[iscsitarget.Refusal]uint64{iscsitarget.RefusedNotPermitted: 3},
			Targets: []iscsitarget.TargetStats{{
				Name: volume.TargetName("a"), Sessions: 2, LostStages: 1,
				Traffic: iscsitarget.Traffic{Commands: 10, Reads: 4, Writes: 5, BytesRead: 4096, BytesWritten: 8192},
			}},
		},
	}
}

// scrape returns the lines that /metrics has of ours, and the status.
func scrape(t *testing.T, r *prometheus.Registry) (lines map[string]string, code int) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(r, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	lines = map[string]string{}
	s := bufio.NewScanner(w.Body)
	for s.Scan() {
		if at := strings.LastIndexByte(s.Text(), ' '); strings.HasPrefix(s.Text(), "csi_ietd_") {
			lines[strings.TrimPrefix(s.Text()[:at], "csi_ietd_")] = s.Text()[at+1:]
		}
	}
	return lines, w.Code
}

func TestController(t *testing.T) {
	r := prometheus.NewRegistry()
	storage := busyStorage()
	r.MustRegister(NewController(storage, storage))
	got, code := scrape(t, r)
	if code != http.StatusOK {
		t.Errorf("status %d", code)
	}
	want := map[string]string{
		"pool_size_bytes": "1000", "pool_free_bytes": "600", "pool_promised_bytes": "500",
		"pool_allocated_bytes": "400", "pool_available_bytes": "300",
		`volumes{state="exported"}`: "1", `volumes{state="not_exported"}`: "1", `volumes{state="refused"}`: "2",
		`volume_info{namespace="shop",persistentvolume="pvc-1",persistentvolumeclaim="db",volume="p.a"}`: "1",
		`volume_info{namespace="",persistentvolume="",persistentvolumeclaim="",volume="p.b"}`:            "1",
		`volume_size_bytes{volume="p.a"}`: "100", `volume_size_bytes{volume="p.b"}`: "400",
		`volume_attachments{volume="p.a"}`: "2", `volume_attachments{volume="p.b"}`: "0",
		`volume_sessions{volume="p.a"}`: "2", `volume_lost_stages{volume="p.a"}`: "1",
		`volume_commands_total{kind="read",volume="p.a"}`: "4", `volume_commands_total{kind="write",volume="p.a"}`: "5",
		`volume_commands_total{kind="other",volume="p.a"}`:     "1",
		`volume_bytes_total{direction="read",volume="p.a"}`:    "4096",
		`volume_bytes_total{direction="written",volume="p.a"}`: "8192",
		`sessions{kind="normal"}`:                              "2", `sessions{kind="discovery"}`: "1",
		"portal_listeners": "1", "portal_connections": "5", "portal_connections_accepted_total": "50",
		`portal_connections_rejected_total{reason="address"}`: "6", `portal_connections_rejected_total{reason="no_room"}`: "7",
		"logins_total": "40", `logins_refused_total{reason="not_permitted"}`: "3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	problems, err := testutil.GatherAndLint(r)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestControllerWithoutAPool: a disk that does not answer takes its own figures
// along and no others.
func TestControllerWithoutAPool(t *testing.T) {
	r := prometheus.NewRegistry()
	storage := busyStorage()
	storage.capacity = errors.New("stuck")
	r.MustRegister(NewController(storage, storage))
	got, code := scrape(t, r)
	if _, has := got["pool_size_bytes"]; has || got[`volume_sessions{volume="p.a"}`] != "2" || code != http.StatusOK {
		t.Errorf("status %d, %v", code, got)
	}
}

func TestCommandsNeverFallBelowZero(t *testing.T) {
	r := prometheus.NewRegistry()
	storage := busyStorage()
	storage.stats.Targets[0].Traffic = iscsitarget.Traffic{Commands: 1, Reads: 1, Writes: 1}
	r.MustRegister(NewController(storage, storage))
	if got, _ := scrape(t, r); got[`volume_commands_total{kind="other",volume="p.a"}`] != "0" {
		t.Errorf("%v", got)
	}
}

type fakeNode struct {
	sessions map[string]int
	err      error
}

func (f fakeNode) Staged() (int, error)              { return 3, f.err }
func (f fakeNode) Sessions() (map[string]int, error) { return f.sessions, nil }

func TestNode(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(NewNode(fakeNode{sessions: map[string]int{"LOGGED_IN": 2, "FAILED": 1, "": 1, "INVENTED": 1}}))
	got, _ := scrape(t, r)
	want := map[string]string{
		"node_staged_volumes": "3", `node_sessions{state="logged_in"}`: "2", `node_sessions{state="failed"}`: "1",
		`node_sessions{state="free"}`: "0", `node_sessions{state="other"}`: "2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	r = prometheus.NewRegistry()
	r.MustRegister(NewNode(fakeNode{err: io.ErrUnexpectedEOF}))
	if got, _ := scrape(t, r); len(got) != 4 {
		t.Errorf("without stages: %v", got)
	}
}

func TestCalls(t *testing.T) {
	r := prometheus.NewRegistry()
	calls := NewCalls(r)
	refused := status.Error(codes.NotFound, "no")
	for _, result := range []error{nil, nil, refused} {
		_, err := calls.Intercept(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Controller/DeleteVolume"},
			func(context.Context, any) (any, error) { return nil, result })
		if !errors.Is(err, result) {
			t.Errorf("the error became %v", err)
		}
	}
	got, _ := scrape(t, r)
	if got[`csi_call_duration_seconds_count{code="OK",method="DeleteVolume"}`] != "2" ||
		got[`csi_call_duration_seconds_count{code="NotFound",method="DeleteVolume"}`] != "1" {
		t.Errorf("%v", got)
	}
}

func TestRegistry(t *testing.T) {
	got, code := scrape(t, NewRegistry("v1.2.3"))
	if code != http.StatusOK || len(got) != 1 {
		t.Errorf("status %d, %v", code, got)
	}
	for name := range got {
		if !strings.Contains(name, `version="v1.2.3"`) {
			t.Errorf("%s", name)
		}
	}
}

func TestSessionsHandler(t *testing.T) {
	list := func(f fakeStorage) (got []map[string]any) {
		w := httptest.NewRecorder()
		SessionsHandler(f).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/sessions", nil))
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got == nil {
			t.Errorf("%s: %v", w.Body, err)
		}
		return got
	}
	if got := list(fakeStorage{}); len(got) != 0 {
		t.Errorf("none: %v", got)
	}
	got := list(fakeStorage{sessions: []iscsitarget.SessionStatus{{
		Target: "iqn.t", Initiator: "iqn.i", ISID: "00", TSIH: 7, Since: time.Unix(0, 0).UTC(), BytesRead: 1, BytesWritten: 2, Commands: 3,
		Connections: []iscsitarget.ConnectionStatus{{Remote: "192.0.2.1:9"}},
	}}})
	want := []map[string]any{{
		"target": "iqn.t", "initiator": "iqn.i", "isid": "00", "tsih": 7.0, "since": "1970-01-01T00:00:00Z",
		"bytesRead": 1.0, "bytesWritten": 2.0, "commands": 3.0, "remote": []any{"192.0.2.1:9"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
