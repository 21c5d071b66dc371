package ietconf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	diskTarget = "iqn.2026-11.io.example:disk"
	joe        = "iqn.2026-11.io.example:joe"
)

// accessDir makes a directory with files of access control, by name.
func accessDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content)
	}
	return dir
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// initiator is the decision about joe.
func initiator(t *testing.T, a Access, addr string) bool {
	t.Helper()
	ok, err := a.Initiator(diskTarget, joe, netip.MustParseAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// TestInitiator: joe at 192.0.2.1 asks for the disk, by what the two files
// have; "-" is no file.
func TestInitiator(t *testing.T) {
	tests := []struct {
		name, deny, allow string
		want              bool
	}{
		{"no files", "-", "-", true},
		{"allow matches", "-", "ALL ALL", true},
		{"allow does not match", "-", "ALL 192.0.2.2", false},
		{"allow is empty", "-", "", false},
		{"allow is for others", "-", "iqn.other ALL", false},
		{"deny matches", "ALL ALL", "-", false},
		{"deny does not match", "ALL 192.0.2.2", "-", true},
		{"deny is empty", "", "-", true},
		{"deny is for others", "iqn.other ALL", "-", true},
		{"deny matches, allow too", "ALL ALL", "ALL 192.0.2.1", true},
		{"deny matches, allow does not", "ALL ALL", "ALL 192.0.2.2", false},
		{"deny does not match, nor allow", "ALL 192.0.2.2", "ALL 192.0.2.2", true},
		{"the first line decides: not", "-", diskTarget + " 192.0.2.2\nALL ALL", false},
		{"the first line decides: ALL", "-", "ALL 192.0.2.2\n" + diskTarget + " ALL", false},
		{"the line of others is passed", "-", "iqn.other ALL\n" + diskTarget + " ALL", true},
		{"last line without newline", diskTarget + " ALL", "-", false},
		{"\\r\\n, comments and blank lines", "# ALL ALL\r\n\r\n  # x\r\n\t" + diskTarget + "\tALL\r\n", "-", false},
		{"BOM", "\ufeffALL ALL\n", "-", false},
		{"a comment in the last line", "#ALL ALL", "-", true},
		{"case of a target", strings.ToUpper(diskTarget) + " ALL", "-", false},
		{"case of a name", "ALL IQN.2026-11.io.example:JOE", "-", false},
		{"name", "ALL iqn.2026-11.io.example:joe", "-", false},
		{"name is whole", "ALL iqn.2026-11.io.example:jo", "-", true},
		{"regular expression", `ALL iqn\.2026-11\..*:jo[ef]`, "-", false},
		{"items", "ALL 192.0.2.2,iqn.x ,\t192.0.2.1", "-", false},
		{"comma in an interval", `ALL iqn.x, iqn.*:jo\{0,1\}e`, "-", false},
		{"comma in a bracket expression", "ALL iqn.x[,], iqn.*[,:]joe", "-", false},
		{"prefix", "ALL 192.0.2.0/24", "-", false},
		{"other prefix", "ALL 192.0.3.0/24", "-", true},
	}
	for _, tt := range tests {
		files := map[string]string{}
		if tt.deny != "-" {
			files[initiatorsDeny] = tt.deny
		}
		if tt.allow != "-" {
			files[initiatorsAllow] = tt.allow
		}
		if got := initiator(t, NewAccess(accessDir(t, files)), "192.0.2.1"); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct {
		item     string
		yes, not []string
	}{
		{"192.0.2.1", []string{"192.0.2.1", "::ffff:192.0.2.1"}, []string{"192.0.2.2", "2001:db8::1"}},
		{"192.0.2.1/32", []string{"192.0.2.1"}, []string{"192.0.2.2"}},
		{"192.0.2.0/31", []string{"192.0.2.0", "192.0.2.1"}, []string{"192.0.2.2"}},
		{"0.0.0.0/0", []string{"192.0.2.1", "::ffff:192.0.2.1"}, []string{"::1"}},
		{"[2001:db8::1]", []string{"2001:db8::1"}, []string{"2001:db8::2", "192.0.2.1"}},
		{"2001:DB8::1", []string{"2001:db8::1"}, []string{"2001:db8::2"}},
		{"[2001:db8::]/32", []string{"2001:db8::1", "2001:db8:ffff::"}, []string{"2001:db9::"}},
		{"2001:db8::/127", []string{"2001:db8::1"}, []string{"2001:db8::2"}},
		{"[2001:db8::5]/32", []string{"2001:db8::1"}, []string{"2001:db9::5"}},
		{"[::1]/128", []string{"::1"}, []string{"::2"}},
		{"::/0", []string{"::1", "fe80::1%eth0"}, []string{"192.0.2.1", "::ffff:192.0.2.1"}},
		{"fe80::1", []string{"fe80::1%eth0", "fe80::1"}, []string{"fe80::2%eth0"}},
		{"[::ffff:192.0.2.1]", []string{"192.0.2.1", "::ffff:192.0.2.1"}, []string{"192.0.2.2"}},
		{"[::ffff:192.0.2.0]/120", []string{"192.0.2.1"}, []string{"192.0.3.1", "::1"}},
		{"ALL", []string{"192.0.2.1", "::1"}, nil},
	}
	for _, tt := range tests {
		a := NewAccess(accessDir(t, map[string]string{targetsAllow: "ALL " + tt.item, initiatorsAllow: "ALL " + tt.item}))
		for want, list := range map[bool][]string{true: tt.yes, false: tt.not} {
			for _, addr := range list {
				ip := netip.MustParseAddr(addr)
				if ok, err := a.Portal(diskTarget, ip); ok != want || err != nil {
					t.Errorf("%s at %s: %v, %v", tt.item, addr, ok, err)
				}
				if ok, err := a.Initiator(diskTarget, joe, ip); ok != want || err != nil {
					t.Errorf("%s from %s: %v, %v", tt.item, addr, ok, err)
				}
			}
		}
	}
}

// TestBrokenLine: a line that is wrong denies whom it decides about, whether
// it was to deny or to allow, and says what would be right.
func TestBrokenLine(t *testing.T) {
	tests := []struct{ line, says string }{
		{"ALL", "ALL: no item, want ALL, an address"},
		{diskTarget, diskTarget + ": no item"},
		{"all ALL", `ALL: "all", want ALL in capitals`},
		{"ALL all", `item "all": want ALL in capitals`},
		{"ALL ALL,", `item "": is empty: leave its comma out`},
		{"ALL ,ALL", `item "": is empty`},
		{"ALL ALL ALL", `item "ALL ALL": has a blank or a control character, want commas`},
		{"ALL ALL # all", `item "ALL # all": has a blank`},
		{"ALL,ALL ALL", "want a target's name or ALL, a blank, and items"},
		{"iqn.x, ALL", "want a target's name or ALL"},
		{"iqn\x00 ALL", "want a target's name or ALL"},
		{"ALL iqn\x00", "has a blank or a control character"},
		{"ALL 192.0.2", `item "192.0.2": want an address such as 192.0.2.1 or [2001:db8::1]`},
		{"ALL 192.0.2.256", "want an address"},
		{"ALL 192.0.2.01", "want an address"},
		{"ALL 192.0.2.1/", "want 0 to 32 bits"},
		{"ALL 192.0.2.1/33", "/33, want 0 to 32 bits"},
		{"ALL 192.0.2.1/-1", "want 0 to 32 bits"},
		{"ALL 192.0.2.1/255.255.255.0", "want 0 to 32 bits"},
		{"ALL 192.0.2.1/24", "has bits set after its 24th, want 192.0.2.0/24"},
		{"ALL [192.0.2.1]/24", `item "[192.0.2.1]/24": want an address`},
		{"ALL [192.0.2.1]", "want an address"},
		{"ALL 192.0.2.*", "want an address"},
		{"ALL 192.0.2.1-192.0.2.9", "want an address"},
		{"ALL 192.0.2.1:3260", "want an address"},
		{"ALL 192", "want an address"},
		{"ALL [::1]/129", "/129, want 0 to 128 bits"},
		{"ALL [::1", "want an address"},
		{"ALL ::1]", "want an address"},
		{"ALL [::1]x", "want an address"},
		{"ALL [::1/64]", "want an address"},
		{"ALL [2001:db8:::1]", "want an address"},
		{"ALL fe80::1%eth0", "has a zone: leave it out"},
		{"ALL [fe80::1%eth0]", "has a zone: leave it out"},
		{"ALL [::ffff:0:0]/95", "want an IPv4 address/bits"},
		{`ALL \(a\)\1`, `item "\\(a\\)\\1": has the back-reference \1`},
		{"ALL iqn.[", "has [ without ]"},
		{"ALL iqn.[, ALL", `item "iqn.[, ALL"`},
		{"ALL 192.0.2.1, iqn.[", `item "iqn.[": has [ without ]`},
		{"ALL " + strings.Repeat("a", maxItem+1), "1025 bytes, at most 1024"},
		{strings.Repeat("a", maxLine+1), "a line of 4096 bytes, at most 4095"},
		{"ALL ALL \\", "has a blank"},
	}
	for _, tt := range tests {
		for _, file := range []string{initiatorsDeny, initiatorsAllow} {
			dir := accessDir(t, map[string]string{file: "# x\n" + tt.line + "\nALL ALL\n"})
			a := NewAccess(dir)
			ok, err := a.Initiator(diskTarget, joe, netip.MustParseAddr("192.0.2.1"))
			var p Problem
			if ok || !errors.As(err, &p) {
				t.Errorf("%.80s in %s: %v, %v", tt.line, file, ok, err)
				continue
			}
			if p.File != filepath.Join(dir, file) || p.Line != 2 || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%.80s in %s: %v\nwant %s", tt.line, file, err, tt.says)
			}
			if err2 := a.Check(); err2 == nil || !strings.Contains(err2.Error(), err.Error()) {
				t.Errorf("%.80s in %s: Check says %v", tt.line, file, err2)
			}
		}
	}
}

// A line that is wrong concerns nobody but those that it is for.
func TestBrokenLineOfAnother(t *testing.T) {
	a := NewAccess(accessDir(t, map[string]string{initiatorsAllow: "iqn.other iqn.[\n" + diskTarget + " ALL"}))
	if !initiator(t, a, "192.0.2.1") {
		t.Error("denied")
	}
	if ok, err := a.Initiator("iqn.other", joe, netip.MustParseAddr("192.0.2.1")); ok || err == nil {
		t.Error(ok, err)
	}
	if err := a.Check(); err == nil || strings.Count(err.Error(), "\n") != 0 {
		t.Error(err)
	}
}

// What is broken in initiators.deny is not outweighed by initiators.allow.
func TestBrokenDenyBeatsAllow(t *testing.T) {
	a := NewAccess(accessDir(t, map[string]string{initiatorsDeny: "ALL iqn.[", initiatorsAllow: "ALL ALL"}))
	if ok, err := a.Initiator(diskTarget, joe, netip.MustParseAddr("192.0.2.1")); ok || err == nil {
		t.Error(ok, err)
	}
}

func TestPortal(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	for content, want := range map[string]bool{
		"ALL ALL": true, "ALL 192.0.2.1": true, "ALL 192.0.2.2": false, "": false, "iqn.other ALL": false,
		"iqn.other 192.0.2.2\n" + diskTarget + " 192.0.2.0/24, ::1": true,
	} {
		if ok, err := NewAccess(accessDir(t, map[string]string{targetsAllow: content})).Portal(diskTarget, addr); ok != want || err != nil {
			t.Errorf("%q: %v, %v", content, ok, err)
		}
	}
	if ok, err := NewAccess(accessDir(t, map[string]string{initiatorsDeny: "ALL ALL"})).Portal(diskTarget, addr); !ok || err != nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
	ok, err := NewAccess(accessDir(t, map[string]string{targetsAllow: "ALL eth.*"})).Portal(diskTarget, addr)
	if ok || err == nil || !strings.Contains(err.Error(), `item "eth.*": want an address`) {
		t.Errorf("a regular expression: %v, %v", ok, err)
	}
}

// A peer without an address is denied where addresses count.
func TestNoAddress(t *testing.T) {
	for content, want := range map[string]bool{"ALL ALL": true, "ALL iqn.*": true, "ALL 0.0.0.0/0, ::/0": false} {
		a := NewAccess(accessDir(t, map[string]string{initiatorsAllow: content}))
		if ok, err := a.Initiator(diskTarget, joe, netip.Addr{}); ok != want || (err == nil) != want {
			t.Errorf("allow %s: %v, %v", content, ok, err)
		}
	}
	a := NewAccess(accessDir(t, map[string]string{initiatorsDeny: "ALL 192.0.2.1"}))
	if ok, err := a.Initiator(diskTarget, joe, netip.Addr{}); ok || err == nil {
		t.Errorf("deny: %v, %v", ok, err)
	}
}

func TestZeroAccess(t *testing.T) {
	var a Access
	if ok, err := a.Initiator(diskTarget, joe, netip.Addr{}); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := a.Portal(diskTarget, netip.Addr{}); !ok || err != nil {
		t.Error(ok, err)
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

// Each file comes from the first directory that has it.
func TestDirectories(t *testing.T) {
	second := accessDir(t, map[string]string{initiatorsAllow: "ALL ALL", initiatorsDeny: "ALL ALL"})
	first := accessDir(t, map[string]string{initiatorsAllow: "ALL 192.0.2.2"})
	a := NewAccess(filepath.Join(first, "none"), first, second)
	if initiator(t, a, "192.0.2.1") || !initiator(t, a, "192.0.2.2") {
		t.Error("not the first directory's initiators.allow and the second one's initiators.deny")
	}
	if a := NewAccess(); len(a.dirs) != 2 || a.dirs[0] != "/etc/iet" || a.dirs[1] != "/etc" {
		t.Error(a.dirs)
	}
}

// TestChangeCounts: at the next decision, also of the same length within a
// tick of the file system's clock.
func TestChangeCounts(t *testing.T) {
	dir := accessDir(t, nil)
	path := filepath.Join(dir, initiatorsAllow)
	a := NewAccess(dir)
	for i := range 200 {
		content, want := "ALL 192.0.2.1", true
		if i%2 == 1 {
			content, want = "ALL 192.0.2.2", false
		}
		writeFile(t, path, content)
		if initiator(t, a, "192.0.2.1") != want {
			t.Fatalf("change %d does not count", i)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !initiator(t, a, "192.0.2.1") {
		t.Error("the file's removal does not count")
	}
}

// TestCache: what is old is read once, and a change counts all the same.
func TestCache(t *testing.T) {
	dir := accessDir(t, map[string]string{initiatorsAllow: "ALL 192.0.2.1"})
	path := filepath.Join(dir, initiatorsAllow)
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	a := NewAccess(dir)
	later := time.Now().Add(time.Hour)
	a.cache.now = func() time.Time { return later }
	first, err := a.read(initiatorsAllow)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := a.read(initiatorsAllow); err != nil || second != first {
		t.Errorf("read anew: %v", err)
	}
	// The same length and time of modification: the change's own time and
	// the inode tell them apart.
	other := filepath.Join(dir, "new")
	writeFile(t, other, "ALL 192.0.2.2")
	if err := os.Chtimes(other, past, past); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if initiator(t, a, "192.0.2.1") {
		t.Error("the change does not count")
	}
}

// TestUnreadable: a file that is there and cannot be read denies everybody.
func TestUnreadable(t *testing.T) {
	ways := map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"dead link": func(path string) error { return os.Symlink("nowhere", path) },
		"link loop": func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"too long": func(path string) error {
			return os.WriteFile(path, []byte("ALL ALL\n"+strings.Repeat(" ", maxAccessFile)), 0o600)
		},
		"lines": func(path string) error {
			return os.WriteFile(path, []byte("ALL ALL"+strings.Repeat("\n", maxAccessLines+1)), 0o600)
		},
		"device":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"no such dir": func(path string) error { return os.Symlink("/dev/null/x", path) },
	}
	for name, create := range ways {
		for _, file := range AccessFiles {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := create(path); err != nil {
				t.Fatal(err)
			}
			a := NewAccess(dir)
			addr := netip.MustParseAddr("192.0.2.1")
			ok, err := a.Initiator(diskTarget, joe, addr)
			if file == targetsAllow {
				ok, err = a.Portal(diskTarget, addr)
			}
			if ok || err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %s: %v, %v", file, name, ok, err)
			}
			if err := a.Check(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %s: Check says %v", file, name, err)
			}
		}
	}
}

// A link to a file is followed.
func TestLink(t *testing.T) {
	dir := accessDir(t, map[string]string{"x": "ALL 192.0.2.1"})
	if err := os.Symlink("x", filepath.Join(dir, initiatorsAllow)); err != nil {
		t.Fatal(err)
	}
	a := NewAccess(dir)
	if !initiator(t, a, "192.0.2.1") || initiator(t, a, "192.0.2.2") {
		t.Error("the link is not followed")
	}
}

// Copies decide at once while the file is replaced.
func TestConcurrentDecisions(t *testing.T) {
	dir := accessDir(t, map[string]string{initiatorsAllow: diskTarget + ` .*:jo\(e\|n\)`})
	path := filepath.Join(dir, initiatorsAllow)
	a := NewAccess(dir)
	later := time.Now().Add(time.Hour)
	a.cache.now = func() time.Time { return later }
	var wg sync.WaitGroup
	for range 8 {
		a := a
		wg.Go(func() {
			for range 200 {
				ok, err := a.Initiator(diskTarget, joe, netip.MustParseAddr("192.0.2.1"))
				if !ok || err != nil {
					t.Errorf("%v, %v", ok, err)
					return
				}
			}
		})
	}
	for range 100 {
		writeFile(t, path+".new", diskTarget+` .*:jo[en]`)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// FuzzAccess: whatever the files, nothing panics, an error denies, and a
// decision is the same twice.
func FuzzAccess(f *testing.F) {
	f.Add("ALL ALL", diskTarget+" 192.0.2.0/24, [::1]/64", joe)
	f.Add(`ALL iqn\.\(a\{1,2\}\)*[[:digit:]]`, "# x\nall ALL\r\n", "iqn.a1")
	f.Add("ALL [[.a.]-z]\\|^b$,\\{", "ALL [fe80::1%x]", "")
	dir := f.TempDir()
	addr := netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, deny, allow, name string) {
		for file, content := range map[string]string{initiatorsDeny: deny, initiatorsAllow: allow, targetsAllow: allow} {
			writeFile(t, filepath.Join(dir, file), content)
		}
		a := NewAccess(dir)
		for _, decide := range []func() (bool, error){
			func() (bool, error) { return a.Initiator(diskTarget, name, addr) },
			func() (bool, error) { return a.Portal(diskTarget, addr) },
		} {
			ok, err := decide()
			if ok && err != nil {
				t.Fatalf("admitted in spite of %v", err)
			}
			if again, err2 := decide(); again != ok || (err2 == nil) != (err == nil) {
				t.Fatalf("%v, %v and then %v, %v", ok, err, again, err2)
			}
		}
		// No line takes back what the first one says.
		writeFile(t, filepath.Join(dir, initiatorsDeny), "ALL ALL\n"+deny)
		writeFile(t, filepath.Join(dir, initiatorsAllow), "ALL [::1]\n"+allow)
		if ok, _ := a.Initiator(diskTarget, name, addr); ok {
			t.Fatal("admitted in spite of initiators.deny")
		}
		if err := a.Check(); err != nil && strings.Contains(err.Error(), "\x00") {
			t.Fatalf("%q", err)
		}
	})
}

// FuzzAccessFile: the same for one file, and without the disk.
func FuzzAccessFile(f *testing.F) {
	f.Add("ALL ALL", diskTarget, joe)
	f.Add("# x\r\niqn.x 192.0.2.0/24, [::1]/64\n"+diskTarget+` iqn\.\(a\{1,2\}\)*[[:digit:]],.*`, diskTarget, "iqn.a1")
	f.Add("ALL [[.a.]-z]\\|^b$,\\{", "", "")
	addr := netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, content, target, name string) {
		file := parseAccess(initiatorsDeny, []byte(content))
		ok, err := file.match(target, peer{name, addr})
		var p Problem
		if err != nil && (ok || !errors.As(err, &p) || p.Line < 1 || p.Line > strings.Count(content, "\n")+1) {
			t.Fatalf("%v, %v", ok, err)
		}
		for _, l := range file.lines {
			if err := l.check(file.path); err == nil && len(l.items) == 0 {
				t.Fatalf("line %d says nothing", l.number)
			}
		}
		if ok, err := parseAccess(initiatorsDeny, []byte("ALL ALL\n"+content)).match(target, peer{name, addr}); !ok || err != nil {
			t.Fatalf("behind ALL ALL: %v, %v", ok, err)
		}
	})
}

// What is read while the file changes is read again.
func TestReadStable(t *testing.T) {
	f, err := os.Open(filepath.Join(accessDir(t, map[string]string{"x": "ALL ALL"}), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	now, err := regular(f)
	if err != nil {
		t.Fatal(err)
	}
	b, state, err := readStable(f, fileState{})
	if string(b) != "ALL ALL" || state != now || err != nil {
		t.Errorf("%q, %+v, %v", b, state, err)
	}
}
