package conformance

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

const isnsConf = `SourceName = %s
ServerAddress = ` + portal + `:3205
PIDFile = %[2]s/pid
ControlSocket = %[2]s/control
LocalRegistry = %[2]s/%[3]s
Security = 0
SLPRegister = 0
DefaultDiscoveryDomain = 0
`

// testISNS: with iSNSAccessControl a real server's discovery domains decide. libiscsi does
// not speak iSNS: open-isns' tool registers its names, and looks for the targets.
func testISNS(t *testing.T, s *site) {
	const stranger = "iqn.2026-11.io.csi-ietd.test:stranger"
	d := &daemon{site: s, dir: t.TempDir()} // for the files
	for name, source := range map[string]string{"server": "iqn.2026-11.io.csi-ietd.test:isns", "host": initiator, "stranger": stranger} {
		conf := fmt.Sprintf(isnsConf, source, d.dir, name+".registry")
		if name == "server" {
			conf += "BindAddress = " + portal + ":3205\n"
		}
		d.write(t, name+".conf", conf)
	}
	server := within(context.Background(), s.storage, "/usr/sbin/isnsd", "-f", "-4", "-c", d.path("server.conf"))
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // killed
	})
	eventually(t, "isnsd to listen", func() bool {
		return strings.Contains(tool(t, "nsenter", "-t", s.storage, "-n", "ss", "-Hltn", "sport", "=", ":3205"), portal)
	})
	isns := func(who string, args ...string) string {
		t.Helper()
		namespace := s.host
		if who == "server" {
			namespace, args = s.storage, append([]string{"--local"}, args...)
		}
		return tool(t, "nsenter", append([]string{"-t", namespace, "-n", "isnsadm", "-c", d.path(who + ".conf")}, args...)...)
	}
	isns("host", "--register", "initiator="+initiator)
	isns("stranger", "--register", "initiator="+stranger)
	s.start(t, "iSNSServer "+portal+"\niSNSAccessControl Yes\n"+two(""), "-a", portal)
	s.refuses(t, notFound, at(portal, disk)) // in no domain
	// A second name has come to the domain, of which the server tells, when the first has
	// gone, of which it does not.
	isns("server", "--dd-register", "dd-name=ours", "member-name="+disk, "member-name="+initiator)
	admitted := func(name string) bool {
		out, err := s.serial(name, at(portal, disk))
		return err == nil && out == "DISK"
	}
	eventually(t, "the domain to count", func() bool { return admitted(initiator) })
	s.refuses(t, notFound, at(portal, other)) // not in it
	if nodes := isns("host", "--list", "nodes"); !strings.Contains(nodes, disk) || strings.Contains(nodes, other) {
		t.Errorf("the server shows %s", nodes)
	}
	if portals := isns("host", "--list", "portals"); !strings.Contains(portals, portal) {
		t.Errorf("the server shows %s", portals)
	}
	if admitted(stranger) {
		t.Error("one that shares no domain is admitted")
	}
	isns("server", "--dd-deregister", "1", "member-name="+initiator)
	isns("server", "--dd-register", "dd-id=1", "member-name="+stranger)
	eventually(t, "the other name to count", func() bool { return admitted(stranger) })
	s.refuses(t, notFound, at(portal, disk))
}
