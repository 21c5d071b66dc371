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
		if _, err := m.Inspect(t.Context(), device, "btrfs"); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s as btrfs: %v", fsType, err)
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

// What is sound is mounted without another look: everything that blkid would
// know the device by beside the file system must spoil it.
func TestSoundSuperblock(t *testing.T) {
	sectors := func(fsType string) []string {
		if fsType == "xfs" {
			return []string{"", "-ssize=512", "-ssize=4096"}
		}
		return []string{"", "-b1024", "-b4096"}
	}
	for _, fsType := range []string{"ext4", "xfs"} {
		for _, option := range sectors(fsType) {
			m := New(nil, quiet())
			device := disk(t, 512<<20, "", 0)
			var options []string
			if option != "" {
				options = []string{option}
			}
			if err := m.Format(t.Context(), device, fsType, options); err != nil {
				t.Fatal(err)
			}
			sound := func() bool {
				s, err := m.Inspect(t.Context(), device, fsType)
				return err == nil && s.Sound
			}
			if !sound() {
				t.Errorf("%s %s: fresh and not sound", fsType, option)
			}
			for name, spoil := range map[string]struct {
				data   string
				offset int64
			}{
				"partition table": {"\x55\xaa", 510}, "LVM's label in sector 0": {"LABELONE", 0},
				"LVM's label in sector 1": {"LABELONE", 512}, "LVM's label in sector 2": {"LABELONE", 1024},
				"LVM's label in sector 3": {"LABELONE", 1536}, "LUKS": {"LUKS\xba\xbe", 0},
				"swap": {"SWAPSPACE2", 4086}, "a torn superblock": {"torn", map[string]int64{"ext4": 1024 + 0x78, "xfs": 108}[fsType]},
			} {
				old := overwrite(t, device, spoil.data, spoil.offset)
				if sound() {
					t.Errorf("%s %s: sound with %s", fsType, option, name)
				}
				overwrite(t, device, old, spoil.offset)
			}
			if !sound() {
				t.Errorf("%s %s: not sound any more", fsType, option)
			}
		}
	}
}

// overwrite returns what was there before.
func overwrite(t *testing.T, device, data string, offset int64) string {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old := make([]byte, len(data))
	if _, err := f.ReadAt(old, offset); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(data), offset); err != nil {
		t.Fatal(err)
	}
	return string(old)
}

// A file system without checksums is one, and proves nothing.
func TestOldExt4IsNotSound(t *testing.T) {
	m := New(nil, quiet())
	device := disk(t, 64<<20, "", 0)
	if err := m.Format(t.Context(), device, "ext4", []string{"-O", "^metadata_csum"}); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Inspect(t.Context(), device, "ext4"); err != nil || s.Sound || !s.Clean {
		t.Errorf("got %+v, %v", s, err)
	}
}
