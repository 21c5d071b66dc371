package mount

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

func TestInspect(t *testing.T) {
	for fsType, size := range map[string]int64{"ext4": 64 << 20, "xfs": 512 << 20} {
		m := New(nil, quiet())
		device := disk(t, size, "", 0)
		if _, err := m.Inspect(t.Context(), device, fsType); !errors.Is(err, ErrOtherFilesystem) {
			t.Errorf("%s: blank: %v", fsType, err)
		}
		if err := m.Format(t.Context(), device, fsType, nil); err != nil {
			t.Fatal(err)
		}
		s, err := m.Inspect(t.Context(), device, fsType)
		if err != nil || s.Bytes > size || s.Bytes <= size-s.BlockBytes || !s.Clean {
			t.Errorf("%s: got %+v, %v", fsType, s, err)
		}
		for other := range filesystems {
			if _, err := m.Inspect(t.Context(), device, other); other != fsType && !errors.Is(err, ErrOtherFilesystem) {
				t.Errorf("%s as %s: %v", fsType, other, err)
			}
		}
		if err := os.Truncate(device, 2*size); err != nil {
			t.Fatal(err)
		}
		if s, err = m.Inspect(t.Context(), device, fsType); err != nil || s.Bytes+s.BlockBytes > 2*size {
			t.Errorf("%s: grown device: %+v, %v", fsType, s, err)
		}
	}
}

func TestInspectOfExt4WithErrors(t *testing.T) {
	m := New(nil, quiet())
	device := disk(t, 64<<20, "", 0)
	if err := m.Format(t.Context(), device, "ext4", nil); err != nil {
		t.Fatal(err)
	}
	for command, clean := range map[string]bool{"ssv state 0": false, "ssv state 2": false, "ssv state 1": true} {
		if out, err := exec.Command("debugfs", "-w", "-R", command, device).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if s, err := m.Inspect(t.Context(), device, "ext4"); err != nil || s.Clean != clean {
			t.Errorf("%s: %+v, %v", command, s, err)
		}
	}
}
