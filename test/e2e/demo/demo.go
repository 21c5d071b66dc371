package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

const (
	gibibyte = 1 << 30
	pod1     = "11111111-1111-4111-8111-111111111111"
	pod2     = "22222222-2222-4222-8222-222222222222"
)

// act is the demo in progress.
type act struct {
	*stage
	narrator
	volume   *lab.Volume
	path     string // of the volume in the pod that has it
	checksum string
}

func demo(ctx context.Context) (err error) {
	fmt.Println("csi-ietd: a volume's life, on two machines with Linux kernels of their own")
	a := &act{narrator: narrator{began: time.Now()}}
	err = a.tell("boot two guests, start controller and nodes", func() (string, error) {
		a.stage, err = setUp(ctx, 2)
		if err != nil {
			return "", err
		}
		kernel, err := a.nodes[0].Guest.Output(ctx, "uname", "-sr")
		return kernel + " in both", err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.lab.Close()) }()
	for _, step := range []struct {
		title string
		play  func(context.Context) (string, error)
	}{
		{"create a volume of 1 GiB", a.create},
		{"publish it to node-1", a.publish(0)},
		{"stage and mount it there", a.mount(0, pod1)},
		{"write 64 MiB and take a checksum", a.write},
		{"unmount, unstage and unpublish", a.leave},
		{"publish it to node-2", a.publish(1)},
		{"stage and mount it there", a.mount(1, pod2)},
		{"read and compare", a.compare},
		{"grow to 2 GiB while it is mounted", a.grow},
		{"the target's sessions now", a.sessions},
		{"unmount, unstage, unpublish and delete", a.remove},
	} {
		if err := a.tell(step.title, func() (string, error) { return step.play(ctx) }); err != nil {
			return err
		}
	}
	fmt.Printf("Done in %.1f s.\n", time.Since(a.began).Seconds())
	return nil
}

func (a *act) create(ctx context.Context) (string, error) {
	var err error
	a.volume, err = a.controller.Create(ctx, lab.Claim{Name: "pvc-demo", Size: gibibyte, FSType: "ext4"})
	if err != nil {
		return "", err
	}
	if a.volume.Size != gibibyte {
		return "", fmt.Errorf("got %d bytes", a.volume.Size)
	}
	return a.volume.ID, nil
}

func (a *act) publish(node int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		n := a.nodes[node]
		if err := a.volume.Publish(ctx, n); err != nil {
			return "", err
		}
		context := a.volume.PublishContext(n)
		return fmt.Sprintf("%s at %s", context["targetName"], context["portals"]), nil
	}
}

func (a *act) mount(node int, pod string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		n := a.nodes[node]
		if err := a.volume.Stage(ctx, n); err != nil {
			return "", err
		}
		var err error
		if a.path, err = a.volume.Mount(ctx, n, pod); err != nil {
			return "", err
		}
		return n.Guest.Output(ctx, "findmnt", "-nro", "SOURCE,FSTYPE,SIZE", a.path)
	}
}

func (a *act) write(ctx context.Context) (string, error) {
	sum, err := a.nodes[0].Guest.Shell(ctx, `cd `+a.path+`
dd if=/dev/urandom of=data bs=1M count=64 conv=fsync status=none
sha256sum data`)
	a.checksum, _, _ = strings.Cut(sum, " ")
	return "sha256 " + short(a.checksum), err
}

func (a *act) leave(ctx context.Context) (string, error) {
	n := a.nodes[0]
	if err := a.volume.Detach(ctx, n, pod1); err != nil {
		return "", err
	}
	return noSessions(ctx, n)
}

// noSessions checks that a node has let go of everything.
func noSessions(ctx context.Context, n *lab.Node) (string, error) {
	left, err := n.Guest.Shell(ctx, "ls /sys/class/iscsi_session /etc/iscsi/nodes; lsblk -nSo NAME")
	if left != "/etc/iscsi/nodes:\n\n/sys/class/iscsi_session:" && err == nil {
		err = fmt.Errorf("something is left on %s:\n%s", n.Guest.Name, left)
	}
	return "no session, record or disk left on " + n.Guest.Name, err
}

func (a *act) compare(ctx context.Context) (string, error) {
	sum, err := a.nodes[1].Guest.Output(ctx, "sha256sum", a.path+"/data")
	if err != nil {
		return "", err
	}
	if sum, _, _ = strings.Cut(sum, " "); sum != a.checksum || sum == "" {
		return "", fmt.Errorf("wrote %s, read %s", a.checksum, sum)
	}
	return "sha256 " + short(a.checksum) + ", the same", nil
}

func short(sum string) string { return sum[:min(len(sum), 12)] + "…" }

func (a *act) grow(ctx context.Context) (string, error) {
	n := a.nodes[1]
	if err := a.volume.Expand(ctx, 2*gibibyte, map[*lab.Node]string{n: pod2}); err != nil {
		return "", err
	}
	usage, err := a.volume.Stats(ctx, n, pod2)
	if err != nil {
		return "", err
	}
	total := usage[0].GetTotal()
	// The file system's own tables take their share of the 2 GiB.
	if total < 2*gibibyte*9/10 {
		return "", fmt.Errorf("the file system says %d bytes", total)
	}
	size, err := n.Guest.Output(ctx, "findmnt", "-nro", "FSTYPE,SIZE,AVAIL", a.path)
	return size + " free, by the file system", err
}

// sessions shows what the target knows of its sessions.
func (a *act) sessions(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+httpAddress+"/debug/sessions", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var sessions []struct {
		Target, Initiator       string
		BytesRead, BytesWritten uint64
		Remote                  []string
	}
	if err := json.NewDecoder(answer.Body).Decode(&sessions); err != nil {
		return "", err
	}
	if len(sessions) != 1 || len(sessions[0].Remote) != 1 || !strings.HasPrefix(sessions[0].Remote[0], a.nodes[1].Guest.Storage+":") {
		return "", fmt.Errorf("want one session, from node-2, got %+v", sessions)
	}
	s := sessions[0]
	return fmt.Sprintf("%s from %s on %s: %d KiB read, %d KiB written", s.Initiator, s.Remote[0], s.Target,
		s.BytesRead>>10, s.BytesWritten>>10), nil
}

func (a *act) remove(ctx context.Context) (string, error) {
	if err := a.volume.Detach(ctx, a.nodes[1], pod2); err != nil {
		return "", err
	}
	if err := a.volume.Delete(ctx); err != nil {
		return "", err
	}
	volumes, err := a.controller.ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err == nil && len(volumes.Entries) != 0 {
		err = fmt.Errorf("%d volumes left", len(volumes.Entries))
	}
	return "the pool is empty", err
}
