package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	testDeb     = "the bytes of a package"
	testPool    = "/debian/pool/main/t/tool_1_amd64.deb"
	testArchive = "/debian/20260102T030405Z/pool/main/t/tool_1_amd64.deb"
)

// fetch runs rootfs --fetch with a lock of one package against a server of
// some paths; it returns what it said, and the cache.
func fetch(t *testing.T, served map[string]string) (out, cached string, err error) {
	t.Helper()
	dir, cache := t.TempDir(), t.TempDir()
	script, err := os.ReadFile(filepath.Join(nodeDir, "rootfs"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "rootfs"), script, 0o755))
	sum := sha256.Sum256([]byte(testDeb))
	hash := hex.EncodeToString(sum[:])
	lock := "# snapshot 20260102T030405Z\namd64 tool 1 " + hash + " " + testPool[1:] + "\n"
	must(t, os.WriteFile(filepath.Join(dir, "packages.lock"), []byte(lock), 0o600))

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, ok := served[r.URL.Path]; ok {
			_, _ = w.Write([]byte(body))
			return
		}
		http.NotFound(w, r)
	}))
	defer server.Close()
	cmd := exec.Command(filepath.Join(dir, "rootfs"), "--fetch", "amd64")
	cmd.Env = slices.Concat(os.Environ(), []string{
		"XDG_CACHE_HOME=" + cache, "DEBIAN_MIRROR=" + server.URL, "DEBIAN_SNAPSHOT=" + server.URL + "/snapshot"})
	said, err := cmd.CombinedOutput()
	kept, _ := os.ReadFile(filepath.Join(cache, "csi-ietd/debian", hash+".deb"))
	return string(said), string(kept), err
}

func TestFetch(t *testing.T) {
	for name, test := range map[string]struct {
		served map[string]string
		ok     bool
	}{
		"the mirror has it":           {map[string]string{testPool: testDeb}, true},
		"only the snapshots have it":  {map[string]string{"/snapshot" + testArchive: testDeb}, true},
		"the mirror's is another one": {map[string]string{testPool: "THE bytes of a package", "/snapshot" + testArchive: testDeb}, true},
		"both are others":             {map[string]string{testPool: "x", "/snapshot" + testArchive: "y"}, false},
		"it has vanished":             {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			out, kept, err := fetch(t, test.served)
			if test.ok {
				if err != nil || kept != testDeb {
					t.Errorf("%v, the cache has %q\n%s", err, kept, out)
				}
				return
			}
			if err == nil || kept != "" {
				t.Errorf("it was taken: error %v, the cache has %q", err, kept)
			}
			if !strings.Contains(out, testPool[1:]) || !strings.Contains(out, "make image-lock") {
				t.Errorf("the error names neither the package nor the way out:\n%s", out)
			}
		})
	}
}
