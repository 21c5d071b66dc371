package chart

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// forEveryValues runs a check over what the chart makes of every values file.
func forEveryValues(t *testing.T, check func(t *testing.T, objects []object)) {
	for _, file := range valuesFiles(t) {
		t.Run(file, func(t *testing.T) { check(t, mustRender(t, "-f", file)) })
	}
}

// allContainers are a pod's containers of both kinds.
func allContainers(pod object) []object {
	return append(pod.list("initContainers"), pod.list("containers")...)
}

func forEveryContainer(t *testing.T, check func(t *testing.T, pod, container object)) {
	forEveryValues(t, func(t *testing.T, objects []object) {
		n := 0
		for _, o := range objects {
			for _, c := range allContainers(o.podSpec()) {
				n++
				check(t, o.podSpec(), c)
			}
		}
		if n < 5 {
			t.Errorf("only %d containers", n)
		}
	})
}

func TestImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9.:/-]+(:v[0-9]+\.[0-9]+\.[0-9]+|@sha256:[0-9a-f]{64})$`)
	forEveryContainer(t, func(t *testing.T, _, c object) {
		if image := c.str("image"); !pinned.MatchString(image) {
			t.Errorf("container %s: image %q is not pinned", c.str("name"), image)
		}
	})
}

func TestResources(t *testing.T) {
	forEveryContainer(t, func(t *testing.T, _, c object) {
		for _, resource := range []string{"cpu", "memory"} {
			if c.at("resources", "requests", resource) == nil {
				t.Errorf("container %s requests no %s", c.str("name"), resource)
			}
		}
	})
}

// TestPrivileges: the node plugin alone is privileged; others have a
// capability only where it is named here.
func TestPrivileges(t *testing.T) {
	allowed := map[string]string{
		"own-pool":   "CHOWN DAC_READ_SEARCH FOWNER",
		"controller": "SYS_RESOURCE",
	}
	forEveryContainer(t, func(t *testing.T, pod, c object) {
		name := c.str("name")
		if c.at("securityContext", "readOnlyRootFilesystem") != true {
			t.Errorf("%s can write its root", name)
		}
		if name == "node" {
			return
		}
		drop, add := c.strs("securityContext", "capabilities", "drop"), strings.Join(c.strs("securityContext", "capabilities", "add"), " ")
		if c.at("securityContext", "privileged") != nil || c.at("securityContext", "allowPrivilegeEscalation") != false || !slices.Equal(drop, []string{"ALL"}) {
			t.Errorf("%s has privileges: %v", name, c["securityContext"])
		}
		if add != "" && add != allowed[name] {
			t.Errorf("%s has the capabilities %s", name, add)
		}
		root := fmt.Sprint(pod.at("securityContext", "runAsUser")) == "0"
		if name == "controller" && root != (add != "") {
			t.Errorf("controller: uid 0 is %v with capabilities %q: one goes with the other", root, add)
		}
		if pod.str("securityContext", "seccompProfile", "type") != "RuntimeDefault" {
			t.Errorf("%s has no seccomp profile", name)
		}
	})
}

// TestOwnPool runs the script of own-pool: it gives away an empty directory or a
// pool, for either uid of the controller, and nothing else.
func TestOwnPool(t *testing.T) {
	for flags, uid := range map[string]int{"storage.ioFlusher=false": 65532, "storage.ioFlusher=true": 0} {
		var script string
		for _, o := range mustRender(t, "-f", "testdata/values-hostpath.yaml", "--set", flags) {
			for _, c := range allContainers(o.podSpec()) {
				if c.str("name") == "own-pool" {
					script = c.strs("command")[2]
				}
			}
		}
		for name, c := range map[string]struct {
			files []string
			owner int // of the directory, before
			taken bool
		}{
			"empty":                             {nil, 1000, true},
			"a new disk":                        {[]string{"lost+found"}, 0, true},
			"half a pool":                       {[]string{"lock", "volumes", "staging", "trash", "pool.json.tmp"}, uid, true},
			"a pool of another uid":             {[]string{"pool.json", "lock", "volumes"}, 1000, true},
			"files of others":                   {[]string{"thesis.tex"}, 1000, false},
			"files of root":                     {[]string{"etc"}, 0, false},
			"files in a directory of our uid":   {[]string{"etc"}, 65532, false},
			"a hidden file":                     {[]string{".ssh"}, 0, false},
			"files beside what looks like ours": {[]string{"volumes", "home"}, 0, false},
		} {
			dir := t.TempDir()
			for _, file := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), nil, 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, c.owner, c.owner)); err != nil {
				t.Fatalf("these tests change owners and run as root: %v", err)
			}
			out, err := exec.Command("/bin/sh", "-euc", strings.Replace(script, "/var/lib/csi-ietd/pool", dir, 1)).CombinedOutput()
			info, statErr := os.Stat(dir)
			if statErr != nil {
				t.Fatal(statErr)
			}
			taken := info.Mode().Perm() == 0o700 && int(info.Sys().(*syscall.Stat_t).Uid) == uid
			if (err == nil) != c.taken || taken != c.taken {
				t.Errorf("uid %d, %s: %v: %s, mode %v, taken %v", uid, name, err, out, info.Mode(), taken)
			}
			if !c.taken && (info.Mode().Perm() != 0o755 || !strings.Contains(string(out), "give the pool an empty directory")) {
				t.Errorf("uid %d, %s: mode %v, it says: %s", uid, name, info.Mode(), out)
			}
		}
	}
}

// TestOneUser: the CSI socket is its owner's alone, so the sidecars are who
// the controller is.
func TestOneUser(t *testing.T) {
	forEveryValues(t, func(t *testing.T, objects []object) {
		pod := find(objects, "StatefulSet", storageName(objects)).podSpec()
		if pod.at("securityContext", "runAsUser") == nil {
			t.Error("the pod does not say who it is")
		}
		for _, c := range pod.list("containers") {
			if c.at("securityContext", "runAsUser") != nil || c.at("securityContext", "runAsGroup") != nil {
				t.Errorf("%s is somebody else", c.str("name"))
			}
		}
	})
}

func storageName(objects []object) string {
	for _, o := range objects {
		if o.str("kind") == "StatefulSet" {
			return o.str("metadata", "name")
		}
	}
	return ""
}

// TestRBAC holds the rules as they are: widening one is a decision.
func TestRBAC(t *testing.T) {
	var got bytes.Buffer
	for _, o := range mustRender(t, "-f", "testdata/values-hostpath.yaml") {
		if kind := o.str("kind"); kind != "ClusterRole" && kind != "Role" {
			continue
		}
		for _, rule := range o.list("rules") {
			only := ""
			if names := rule.strs("resourceNames"); names != nil {
				only = fmt.Sprintf(" %v", names)
			}
			fmt.Fprintf(&got, "%s: %q %v%s: %v\n", o.name(), rule.strs("apiGroups"), rule.strs("resources"), only, rule.strs("verbs"))
		}
	}
	for _, word := range []string{"*", "secrets", "escalate", "impersonate", "bind", "configmaps", "pods/exec", "leases"} {
		if regexp.MustCompile(`[\["\s]` + regexp.QuoteMeta(word) + `[\]"\s]`).Match(got.Bytes()) {
			t.Errorf("a role has %s:\n%s", word, &got)
		}
	}
	const golden = "testdata/rbac.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the roles changed; if that is meant, run go test -update and say why in the commit:\n%s", &got)
	}
}

func TestCSIDriver(t *testing.T) {
	forEveryValues(t, func(t *testing.T, objects []object) {
		driver := find(objects, "CSIDriver", "csi-ietd.io")
		got := fmt.Sprint(driver["spec"])
		const want = "map[attachRequired:true fsGroupPolicy:File nodeAllocatableUpdatePeriodSeconds:60 podInfoOnMount:false requiresRepublish:false seLinuxMount:false storageCapacity:true volumeLifecycleModes:[Persistent]]"
		if got != want {
			t.Errorf("CSIDriver\n%s, want\n%s", got, want)
		}
	})
}

// TestSelectors: what selects pods by label finds exactly the ones it is for.
func TestSelectors(t *testing.T) {
	forEveryValues(t, func(t *testing.T, objects []object) {
		for _, o := range objects {
			path := []string{"spec", "selector"}
			switch o.str("kind") {
			case "Service":
			case "StatefulSet", "DaemonSet":
				path = append(path, "matchLabels")
			case "NetworkPolicy":
				path = []string{"spec", "podSelector", "matchLabels"}
			default:
				continue
			}
			selector, _ := o.at(path...).(map[string]any)
			var found []string
			for _, other := range objects {
				if labels, _ := other.at("spec", "template", "metadata", "labels").(map[string]any); labels != nil && matches(selector, labels) {
					found = append(found, other.str("kind"))
				}
			}
			want := "StatefulSet"
			if selector["app.kubernetes.io/component"] == "node" {
				want = "DaemonSet"
			}
			if !slices.Equal(found, []string{want}) {
				t.Errorf("%s selects the pods of %v, want %s", o.name(), found, want)
			}
		}
	})
}

func matches(selector, labels map[string]any) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func TestStorageKeepsIO(t *testing.T) {
	forEveryValues(t, func(t *testing.T, objects []object) {
		set := find(objects, "StatefulSet", storageName(objects))
		if set.str("spec", "updateStrategy", "type") != "OnDelete" {
			t.Error("an upgrade would stop the target by itself")
		}
		if find(objects, "Service", set.str("spec", "serviceName")).str("spec", "clusterIP") != "None" {
			t.Error("the StatefulSet's Service is missing")
		}
		for _, o := range objects {
			if o.str("kind") == "PodDisruptionBudget" {
				t.Errorf("%s keeps the storage node from being drained", o.name())
			}
		}
	})
}

// TestPortal: in each shape the target tells the address that it has there.
func TestPortal(t *testing.T) {
	tests := []struct {
		name, release string
		args          []string
		want          []string
	}{
		{"hostPath", "csi-ietd", []string{"-f", "testdata/values-hostpath.yaml"}, []string{"--listen-address=$(HOST_IP):3260", "--portal=$(HOST_IP):3260"}},
		{"IPv6", "csi-ietd", []string{"--set", "storage.nodeName=n,ipv6=true"}, []string{"--listen-address=[$(HOST_IP)]:3260", "--portal=[$(HOST_IP)]:3260"}},
		{"portals", "csi-ietd", []string{"--set", "storage.nodeName=n,storage.portals={10.0.0.1,10.1.0.1}"}, []string{"--listen-address=:3260", "--portal=10.0.0.1", "--portal=10.1.0.1"}},
		{"Service", "csi-ietd", []string{"-f", "testdata/values-pvc.yaml"}, []string{"--listen-address=:3260", "--portal=$(CSI_IETD_PORTAL_SERVICE_HOST):3260"}},
		{"Service of another release", "my-disks", []string{"-f", "testdata/values-pvc.yaml"}, []string{"--listen-address=:3260", "--portal=$(MY_DISKS_CSI_IETD_PORTAL_SERVICE_HOST):3260"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := renderAs(t.Context(), tt.release, chartDir, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, arg := range containerNamed(t, find(objects, "StatefulSet", storageName(objects)), "controller").strs("args") {
				if strings.HasPrefix(arg, "--portal") || strings.HasPrefix(arg, "--listen") {
					got = append(got, arg)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
			checkPortalService(t, objects, got)
		})
	}
}

// checkPortalService: kubelet makes the variable of a Service's name.
func checkPortalService(t *testing.T, objects []object, args []string) {
	t.Helper()
	for _, arg := range args {
		_, rest, _ := strings.Cut(arg, "$(")
		name, isService := strings.CutSuffix(strings.TrimSuffix(rest, "):3260"), "_SERVICE_HOST")
		service := find(objects, "Service", strings.ToLower(strings.ReplaceAll(name, "_", "-")))
		if isService && service == nil {
			t.Errorf("%s: there is no such Service", arg)
		}
	}
}

func containerNamed(t *testing.T, o object, name string) object {
	t.Helper()
	for _, c := range allContainers(o.podSpec()) {
		if c.str("name") == name {
			return c
		}
	}
	t.Fatalf("%s has no container %s", o.name(), name)
	return nil
}

// TestImageOverride is what a developer installs with.
func TestImageOverride(t *testing.T) {
	objects := mustRender(t, "--set", "storage.nodeName=n,imagePullPolicy=Never,images.controller.tag=dev,images.node.tag=dev")
	n := 0
	for _, o := range objects {
		for _, c := range allContainers(o.podSpec()) {
			n++
			if c.str("imagePullPolicy") != "Never" {
				t.Errorf("%s: %s", c.str("name"), c.str("imagePullPolicy"))
			}
			if strings.HasPrefix(c.str("image"), "ghcr.io/csi-ietd/") && !strings.HasSuffix(c.str("image"), ":dev") {
				t.Errorf("%s: %s", c.str("name"), c.str("image"))
			}
		}
	}
	if n != 7 {
		t.Errorf("%d containers, want 7: init, controller, three sidecars, node, test", n)
	}
}

// TestNames: no name grows too long for what Kubernetes derives of it.
func TestNames(t *testing.T) {
	objects, err := renderAs(t.Context(), strings.Repeat("long-", 10)+"end", chartDir, "-f", "testdata/values-pvc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		// A StatefulSet's pods carry its name, a hyphen and a hash of 10 as a label.
		if name := o.str("metadata", "name"); len(name) > 63-11 {
			t.Errorf("%s: %d characters", o.name(), len(name))
		}
	}
}

func TestBadValues(t *testing.T) {
	tests := []struct{ set, want string }{
		{"storage.port=iscsi", "at '/storage/port': got string, want integer"},
		{"storage.port=70000", "at '/storage/port'"},
		{"storage.nodeNam=n", "'nodeNam' not allowed"},
		{"nodename=n", "'nodename' not allowed"},
		{"storage.pool.type=lvm", "at '/storage/pool/type'"},
		{"storage.pool.hostPath.path=/", "at '/storage/pool/hostPath/path'"},
		{"storage.pool.hostPath.path=/srv/../etc", "at '/storage/pool/hostPath/path'"},
		{"storage.pool.hostPath.path=/srv/$(id)", "at '/storage/pool/hostPath/path'"},
		{"storage.allowedInitiatorCIDRs={10.0.0.1}", "at '/storage/allowedInitiatorCIDRs/0'"},
		{"storage.allowedInitiatorCIDRs={10.0.0.0/33}", "at '/storage/allowedInitiatorCIDRs/0'"},
		{"storage.allowedInitiatorCIDRs=10.0.0.0/8", "at '/storage/allowedInitiatorCIDRs': got string, want array"},
		{"storage.portals={storage.example}", "at '/storage/portals/0'"},
		{"storage.pool.overProvisioningRatio=0", "at '/storage/pool/overProvisioningRatio'"},
		{"node.replacementTimeout=600", "at '/node/replacementTimeout': got number, want string"},
		{"node.replacementTimeout=soon", "at '/node/replacementTimeout'"},
		{"node.maxUnavailable=0", "at '/node/maxUnavailable'"},
		{"images.node.tag=latest", "at '/images/node/tag'"},
		{"images.node.repository=Example/Node", "at '/images/node/repository'"},
		{"imagePullPolicy=Sometimes", "at '/imagePullPolicy'"},
		{"storageClasses[0].parameters.fsType=ext4", "'fsType' not allowed"},
		{"storageClasses[0].reclaimPolicy=Recycle", "at '/storageClasses/0/reclaimPolicy'"},
		{"storage.nodeName=", "storage.nodeName is empty: name the node"},
		{"storage.nodeSelector.a=b", "give one of them"},
		{"storage.pool.type=persistentVolumeClaim,storage.portals={10.0.0.1}", "storage.portals is for pool type hostPath"},
		{"storage.pool.type=persistentVolumeClaim,storage.pool.persistentVolumeClaim.storageClassName=csi-ietd", "must come from another driver"},
		{"metrics.enabled=false,metrics.serviceMonitor.enabled=true", "needs metrics.enabled"},
	}
	for _, tt := range tests {
		t.Run(tt.set, func(t *testing.T) {
			_, err := render(t.Context(), chartDir, "--set", "storage.nodeName=n", "--set", tt.set)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}
