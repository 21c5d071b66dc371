package driver

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
)

func parameters(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// TestParameters: what a node must know comes back in volume_context, from
// every call that describes the volume, and what is for people does not.
func TestParameters(t *testing.T) {
	r := newControllerRig(t)
	req := &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{mountCapability("xfs")},
		Parameters: parameters("replacementTimeout", "90s", "mkfsOptions", "-m reflink=0",
			"csi.storage.k8s.io/pvc/namespace", "shop", "csi.storage.k8s.io/pvc/name", "db", "csi.storage.k8s.io/pv/name", "pvc-1")}
	want := parameters("replacementTimeout", "90s", "mkfsOptions", "-m reflink=0")
	for range 2 {
		resp, err := r.CreateVolume(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, resp.GetVolume().GetVolumeContext()); diff != "" {
			t.Errorf("volume_context (-want +got):\n%s", diff)
		}
	}
	list, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if diff := cmp.Diff(want, list.GetEntries()[0].GetVolume().GetVolumeContext()); diff != "" {
		t.Errorf("volume_context of ListVolumes (-want +got):\n%s", diff)
	}
	all, err := r.volumes.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if got := all[0].Whom(); got.Claim != "db" || got.Namespace != "shop" || got.PersistentVolume != "pvc-1" {
		t.Errorf("the record says it is for %+v", got)
	}
	req.Parameters["replacementTimeout"] = "91s"
	_, err = r.CreateVolume(t.Context(), req)
	wantCode(t, "other parameters", err, codes.AlreadyExists)
}

func TestParametersRefused(t *testing.T) {
	r := newControllerRig(t)
	create := func(c *csi.VolumeCapability, p map[string]string) error {
		_, err := r.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: []*csi.VolumeCapability{c}, Parameters: p})
		return err
	}
	for what, c := range map[string]struct {
		parameters map[string]string
		words      []string
	}{
		"unknown":        {parameters("replacementTimeOut", "90s"), []string{"replacementTimeOut", "mkfsOptions, replacementTimeout"}},
		"no duration":    {parameters("replacementTimeout", "90"), []string{"replacementTimeout", "90s or 10m"}},
		"empty duration": {parameters("replacementTimeout", ""), []string{"replacementTimeout"}},
		"too short":      {parameters("replacementTimeout", "4s"), []string{"5s"}},
		"too long":       {parameters("replacementTimeout", "25h"), []string{"24h"}},
		"not whole":      {parameters("replacementTimeout", "5500ms"), []string{"whole seconds"}},
		"negative":       {parameters("replacementTimeout", "-90s"), []string{"replacementTimeout"}},
		"a device":       {parameters("mkfsOptions", "-i 8192 /dev/sda"), []string{"mkfsOptions", "/dev/sda"}},
		"force":          {parameters("mkfsOptions", "-F"), []string{"mkfsOptions", "-F"}},
		"other fs's":     {parameters("mkfsOptions", "-m reflink=0"), []string{"mkfsOptions", "-m"}},
	} {
		err := create(mountCapability("ext4"), c.parameters)
		wantCode(t, what, err, codes.InvalidArgument)
		for _, w := range c.words {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q in it", what, err, w)
			}
		}
	}
	// The class may be there for file systems too.
	block := blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	if err := create(block, parameters("mkfsOptions", "-i 8192")); err != nil {
		t.Errorf("a block volume: %v", err)
	}
}

// TestStageHeedsParameters: from the volume_context, with keys of others in it.
func TestStageHeedsParameters(t *testing.T) {
	r := newNodeRig(t)
	req := r.stageRequest()
	req.VolumeContext = parameters("replacementTimeout", "90s", "mkfsOptions", "-i 8192 -E stride=16",
		"storage.kubernetes.io/csiProvisionerIdentity", "1-2-csi-ietd.io")
	if _, err := r.NodeStageVolume(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got, want := r.w.mkfsOptions, []string{"-i", "8192", "-E", "nodiscard,stride=16"}; !slices.Equal(got, want) {
		t.Errorf("mkfs options %q, want %q", got, want)
	}
	if r.w.replacement != 90*time.Second {
		t.Errorf("replacement timeout %v", r.w.replacement)
	}
}

func TestStageRefusesParameters(t *testing.T) {
	for _, context := range []map[string]string{
		parameters("mkfsOptions", "-F"), parameters("replacementTimeout", "soon"),
	} {
		r := newNodeRig(t)
		req := r.stageRequest()
		req.VolumeContext = context
		_, err := r.NodeStageVolume(t.Context(), req)
		if got := errorCode(err); got != codes.InvalidArgument {
			t.Errorf("%v: %v", context, err)
		}
		r.gone()
	}
}

// The users' table has our parameters, and no other.
func TestDocumentedParameters(t *testing.T) {
	doc, err := os.ReadFile("../../docs/storageclass.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `parameters\\.(\\w+)` \\|").FindAllSubmatch(doc, -1) {
		documented = append(documented, string(m[1]))
	}
	if diff := cmp.Diff(knownParameters, documented); diff != "" {
		t.Errorf("docs/storageclass.md has others (-known +documented):\n%s", diff)
	}
}

// TestCallLogSaysForWhom a volume is made.
func TestCallLogSaysForWhom(t *testing.T) {
	req := &csi.CreateVolumeRequest{Name: "pvc-1", VolumeCapabilities: []*csi.VolumeCapability{mountCapability("ext4")},
		Parameters: parameters("csi.storage.k8s.io/pvc/namespace", "shop", "csi.storage.k8s.io/pvc/name", "db", "csi.storage.k8s.io/pv/name", "pv-1")}
	_, log, err := chained(t, req, func(context.Context, any) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`namespace="shop"`, `persistentvolumeclaim="db"`, `persistentvolume="pv-1"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}
