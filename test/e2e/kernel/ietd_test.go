package kernel

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
	"github.com/csi-ietd/csi-ietd/test/e2e/ietdconf"
	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

const ietdTarget = "iqn.2026-11.io.csi-ietd.lab:disks"

// image is the sparse file of a LUN: its number is its place in the list.
type image struct {
	size    int64  // bytes
	options string // of the Lun directive, behind a comma
}

// ietd is `csi-ietd ietd` outside the guests, with a target of its own.
type ietd struct {
	machine *lab.Machine
	portal  string
	dir     string // has the images and, across restarts, the state
	command agent.Command
	process *agent.Process
}

// newIetd starts one that serves images. It ends with the lab.
func newIetd(t *testing.T, l *lab.Lab, images ...image) *ietd {
	t.Helper()
	binary, err := l.Binary(l.Outside, lab.Driver)
	must(t, err)
	d := &ietd{machine: l.Outside, portal: l.Outside.Storage + ":3260", dir: l.Dir() + "/ietd"}
	conf := "Target " + ietdTarget + "\n" + ietdconf.Generous
	script := "mkdir " + d.dir + "\n"
	for i, image := range images {
		script += fmt.Sprintf("truncate -s %d %s\n", image.size, d.image(i))
		conf += fmt.Sprintf("Lun %d Path=%s,Type=fileio,Identity=modern%s\n", i, d.image(i), image.options)
	}
	shell(t, d.machine, script)
	must(t, d.machine.WriteFile(t.Context(), d.dir+"/ietd.conf", []byte(conf), 0o600))
	d.command = agent.Command{
		Args: []string{binary, "ietd", "-f", "-c", d.dir + "/ietd.conf", "-a", l.Outside.Storage, "-p", "3260", "--state-dir", d.dir + "/state"},
		Log:  l.Dir() + "/outside/ietd.log",
	}
	d.start(t)
	return d
}

// image is the file of a LUN.
func (d *ietd) image(lun int) string { return fmt.Sprintf("%s/lun%d.img", d.dir, lun) }

func (d *ietd) start(t *testing.T) {
	t.Helper()
	var err error
	d.process, err = d.machine.Start(t.Context(), d.command)
	must(t, err)
	waitFor(t, d.machine, 20*time.Second, "ietd to listen", "ss -Hltn src "+d.portal+" | grep -q .")
}

// kill is kill -9.
func (d *ietd) kill(t *testing.T) {
	t.Helper()
	must(t, d.process.Signal(t.Context(), syscall.SIGKILL))
	_, err := d.process.Wait(t.Context())
	must(t, err)
}

// record is iscsiadm on the target's record, or on what has it open.
func (d *ietd) record() string {
	return "iscsiadm -m node -T " + ietdTarget + " -p " + d.portal + " -I lab"
}

// setting is a line of the initiator's record.
type setting struct{ name, value string }

// login logs a guest in, under a name of its own since guests share theirs as
// cloned machines do.
func (d *ietd) login(t *testing.T, g *lab.Guest, settings ...setting) {
	t.Helper()
	var update strings.Builder
	if len(settings) > 0 {
		update.WriteString(d.record() + " --op update")
	}
	for _, s := range settings {
		fmt.Fprintf(&update, " -n '%s' -v '%s'", s.name, s.value)
	}
	shell(t, g.Machine, `
		iscsiadm -m iface -I lab >/dev/null 2>&1 || {
			iscsiadm -m iface -I lab --op new
			iscsiadm -m iface -I lab --op update -n iface.initiatorname -v iqn.2026-11.io.csi-ietd.lab:`+g.Name+`
		} >/dev/null
		`+d.record()+` --op new >/dev/null
		`+update.String()+`
		`+d.record()+` --login >/dev/null
		udevadm settle`)
}

func (d *ietd) logout(t *testing.T, g *lab.Guest) {
	t.Helper()
	shell(t, g.Machine, d.record()+" --logout >/dev/null")
}

// disk is a LUN in a guest.
func (d *ietd) disk(lun int) string {
	return fmt.Sprintf("/dev/disk/by-path/ip-%s-iscsi-%s-lun-%d", d.portal, ietdTarget, lun)
}
