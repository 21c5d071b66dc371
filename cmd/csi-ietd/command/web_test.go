package command

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// page is what HTTP says to a GET.
func page(t *testing.T, address, path string) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(shortly(t), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func wantPages(t *testing.T, address string, pages map[string][]string) {
	t.Helper()
	for path, words := range pages {
		code, text := page(t, address, path)
		if code != http.StatusOK {
			t.Errorf("%s = %d %s", path, code, text)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s has no %q:\n%s", path, w, text)
			}
		}
	}
}

func TestControllerHTTP(t *testing.T) {
	address, portal := freePortal(t), freePortal(t)
	c := startController(t, t.TempDir(), "--listen-address="+portal, "--http-address="+address, "--allow-from=192.0.2.0/24")
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
	v, err := c.CreateVolume(shortly(t), &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{capability},
		CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Dial("tcp", portal)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := stranger.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger's connection stays: %d, %v", n, err)
	}
	stranger.Close()
	id := v.GetVolume().GetVolumeId()
	wantPages(t, address, map[string][]string{
		"/healthz": {"ok"}, "/readyz": {"ok"}, "/debug/sessions": {"[]"},
		"/metrics": {
			"csi_ietd_build_info", "go_goroutines", `csi_ietd_volumes{state="exported"} 1`, "csi_ietd_pool_size_bytes",
			`csi_ietd_volume_size_bytes{volume="` + id + `"} 1.048576e+06`, "csi_ietd_portal_listeners 1",
			`csi_ietd_portal_connections_rejected_total{reason="address"} 1`,
			`csi_ietd_csi_call_duration_seconds_count{code="OK",method="CreateVolume"} 1`,
		},
	})
	c.stop()
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("HTTP is served after the end")
	}
}

func TestNodeHTTP(t *testing.T) {
	address := freePortal(t)
	n := startNode(t, t.TempDir(), "--http-address="+address)
	node := csi.NewNodeClient(unixClient(t, n.csiSocket))
	if _, err := node.NodeGetInfo(shortly(t), &csi.NodeGetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	wantPages(t, address, map[string][]string{
		"/healthz": {"ok"},
		"/metrics": {"csi_ietd_node_staged_volumes 0", `csi_ietd_node_sessions{state="failed"} 0`, `method="NodeGetInfo"`},
	})
}

func TestHTTPPortTaken(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	n := startNode(t, t.TempDir(), "--http-address="+busy.Addr().String())
	if err := <-n.done; err == nil || !strings.Contains(err.Error(), "--http-address") {
		t.Errorf("%v", err)
	}
}

// TestHTTPBeforeAndAfter: while a role opens and closes it is alive and not
// ready, and its error is the command's.
func TestHTTPBeforeAndAfter(t *testing.T) {
	address := freePortal(t)
	w, err := newWeb(address, "unix:///nobody/there.sock")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err = w.during(t.Context(), func(context.Context) error {
		if code, text := page(t, address, "/healthz"); code != http.StatusOK {
			t.Errorf("/healthz = %d %s", code, text)
		}
		if code, text := page(t, address, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "starting") {
			t.Errorf("/readyz = %d %s", code, text)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
