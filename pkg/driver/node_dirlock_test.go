package driver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLockPluginDir: a directory has one plugin at a time.
func TestLockPluginDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plugins", Name)
	release, err := LockPluginDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockPluginDir(dir); !errors.Is(err, ErrSecondPlugin) || !strings.Contains(err.Error(), "stop it") {
		t.Errorf("a second plugin: %v", err)
	}
	release()
	release, err = LockPluginDir(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	release()
	assertMode(t, dir, 0o700)
	assertMode(t, filepath.Join(dir, nodeLockName), 0o600)
}

func TestLockPluginDirRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, nodeLockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := LockPluginDir(dir); err == nil {
		t.Error("a lock that is a symbolic link was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LockPluginDir(filepath.Join(dir, "file")); err == nil || !strings.Contains(err.Error(), "--plugin-dir") {
		t.Errorf("a file as directory: %v", err)
	}
}
