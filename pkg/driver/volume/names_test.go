package volume

import (
	"testing"

	"github.com/google/uuid"
)

// TestNamesAreForEver pins what is in users' clusters. A failure here is a
// change that strands their volumes.
func TestNamesAreForEver(t *testing.T) {
	const (
		pool   = "0b5c8f9a-3b7e-4d9e-9f5e-0a1b2c3d4e5f"
		volume = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
	)
	if got, want := ID(pool, volume), pool+"."+volume; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
	if got, want := TargetName(volume), "iqn.2026-11.io.csi-ietd:6ba7b810-9dad-41d1-80b4-00c04fd430c8"; got != want {
		t.Errorf("TargetName = %s, want %s", got, want)
	}
	if got, want := InitiatorName(nodeA), "iqn.2026-11.io.csi-ietd:node.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; got != want {
		t.Errorf("InitiatorName = %s, want %s", got, want)
	}
	// printf %s 6ba7b810-9dad-41d1-80b4-00c04fd430c8 | sha256sum
	if got, want := formatNAA(NAA(volume)), "32a64f8555ae9446"; got != want {
		t.Errorf("NAA = %s, want %s", got, want)
	}
	if Vendor != "CSI-IETD" || Product != "PV" {
		t.Errorf("identity is %s %s", Vendor, Product)
	}
}

func TestNAAType(t *testing.T) {
	for range 100 {
		if naa := NAA(uuid.NewString()); naa>>60 != 3 {
			t.Fatalf("NAA %016x is not of type 3h", naa)
		}
	}
}

func TestParseID(t *testing.T) {
	const pool, v = "pool", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
	if got, err := parseID(pool, pool+"."+v); err != nil || got != v {
		t.Fatalf("parseID = %s, %v", got, err)
	}
	for _, id := range []string{
		"", ".", v, "other." + v, pool + v, pool + "." + v + "x", pool + ".", pool + ".6BA7B810-9DAD-41D1-80B4-00C04FD430C8",
		pool + ".6ba7b8109dad41d180b400c04fd430c8", pool + ".{" + v + "}", pool + ".urn:uuid:" + v, pool + "." + v[:35] + "/", "fake-vol-id",
	} {
		if got, err := parseID(pool, id); err == nil {
			t.Errorf("parseID(%q) = %s, want ErrNotFound", id, got)
		}
	}
}
