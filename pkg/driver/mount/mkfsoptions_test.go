package mount

import (
	"errors"
	"strings"
	"testing"
)

func TestParseMkfsOptions(t *testing.T) {
	for _, c := range []struct{ fsType, options, want string }{
		{"ext4", "", ""},
		{"ext4", "  \t\n ", ""},
		{"ext4", "-i 8192", "-i 8192"},
		{"ext4", "-O ^has_journal,metadata_csum_seed  -m 5", "-O ^has_journal,metadata_csum_seed -m 5"},
		{"ext4", "-E stride=16,stripe_width=64,packed_meta_blocks=1", "-E nodiscard,stride=16,stripe_width=64,packed_meta_blocks=1"},
		{"ext4", "-E root_owner=1000:1000", "-E nodiscard,root_owner=1000:1000"},
		{"ext4", "-J size=64 -T largefile4 -b 4096 -I 512", "-J size=64 -T largefile4 -b 4096 -I 512"},
		{"xfs", "-m reflink=0,rmapbt=1 -d su=64k,sw=4 -i size=1024", "-m reflink=0,rmapbt=1 -d su=64k,sw=4 -i size=1024"},
		{"xfs", "-d noalign -b size=4k", "-d noalign -b size=4k"},
	} {
		got, err := ParseMkfsOptions(c.fsType, c.options)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s %q: %q, %v; want %q", c.fsType, c.options, got, err, c.want)
		}
	}
}

func TestParseMkfsOptionsRefuses(t *testing.T) {
	for fsType, all := range map[string][]string{
		"ext4": {
			"/dev/sda", "-i", "-i 8192 /dev/sda", "-i 8192 10G", "-F -i 1", "-F", "-n", "-S", "-c", "-d /etc", "-d .", "-l list",
			"-L all", "-U random", "-z /var/undo", "-M /", "-o hurd", "-t ext2", "-V", "-q", "--help", "--", "-", "-i8192",
			"-i /dev/sda", "-i ../x", "-i -F", "-i $(reboot)", "-i `id`", "-i 1;2", "-i 1|2", "-i '1'", `-i "1"`, `-i \1`, "-i 1\x002",
			"-J device=UUID", "-J device=/dev/sdb", "-J location=1", "-J size=", "-J size=/x", "-J size=1,device=x",
			"-O journal_dev", "-O ^journal_dev", "-O a,,b", "-O a=b", "-O", "-O /x",
			"-E offset=1", "-E test_fs", "-E stride=1,offset=2", "-E discard", "-E no_copy_xattrs=/x", "-E =1", "-E assume_storage_prezeroed=1",
			"-m reflink=1", "-b size=4096", "-e panic", strings.Repeat("-i 1 ", 200), "-i é",
		},
		"xfs": {
			"/dev/sda", "-f", "-N", "-p proto", "-c options=/etc/x", "-r rtdev=/dev/x", "-L x", "-q", "-K", "-V",
			"-d size=1g", "-d name=/dev/sda", "-d file", "-d file=1", "-d agcount=4,size=1g", "-l logdev=/dev/x", "-l internal=0",
			"-l name=x", "-l file=1", "-m uuid=00000000-0000-0000-0000-000000000000", "-i 8192", "-b 4096", "-d daxinherit=1",
		},
		"vfat": {"", "-n x"},
	} {
		for _, options := range all {
			if got, err := ParseMkfsOptions(fsType, options); !errors.Is(err, ErrUnsupported) || got != nil {
				t.Errorf("%s %.60q: %q, %v", fsType, options, got, err)
			}
		}
	}
}

func FuzzParseMkfsOptions(f *testing.F) {
	f.Add("-i 8192 -O ^has_journal")
	f.Add("-m reflink=0")
	f.Fuzz(func(t *testing.T, options string) {
		for _, fsType := range []string{"ext4", "xfs"} {
			args, err := ParseMkfsOptions(fsType, options)
			if err != nil {
				continue
			}
			for i, arg := range args {
				isFlag := len(arg) == 2 && arg[0] == '-'
				if isFlag != (i%2 == 0) || strings.ContainsAny(arg, "/ \t\n\x00'\"`$;&|<>\\") || arg == "" {
					t.Errorf("%q became %q", options, args)
				}
			}
		}
	})
}

// TestMkfsOptionsForReal: the real tools take them, and what they shape is so.
func TestMkfsOptionsForReal(t *testing.T) {
	for _, c := range []struct{ fsType, options string }{
		{"ext4", "-i 1048576 -m 5 -E stride=16 -J size=16 -O ^metadata_csum"},
		{"ext4", "-b 4096 -I 512 -O fast_commit -E lazy_itable_init=0"},
		{"xfs", "-m reflink=0,rmapbt=0 -i size=1024 -d agcount=2 -n ftype=1 -l version=2 -b size=4k -s size=512"},
	} {
		m := New(nil, quiet())
		device := disk(t, 512<<20, "", 0)
		args, err := ParseMkfsOptions(c.fsType, c.options)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Format(t.Context(), device, c.fsType, args); err != nil {
			t.Errorf("%s %s: %v", c.fsType, c.options, err)
		}
		if got, err := m.Filesystem(t.Context(), device); got != c.fsType || err != nil {
			t.Errorf("%s: %q, %v", c.fsType, got, err)
		}
	}
}

// TestFormatArguments: the options come before the device, after our own.
func TestFormatArguments(t *testing.T) {
	run := &fakeRunner{}
	_ = New(run, quiet()).Format(t.Context(), "/dev/sda", "ext4", []string{"-i", "8192"}) // it proves what mkfs made: nothing
	want := "mkfs.ext4 -q -m 0 -E nodiscard -i 8192 /dev/sda"
	if len(run.calls) == 0 || run.calls[0] != want {
		t.Errorf("ran %q, want %q", run.calls, want)
	}
}
