package kernel

import (
	"context"
	"fmt"
	"testing"
)

// startISNS starts a real iSNS server on the storage machine; domain 1 has all that are in
// no discovery domain see each other. It returns a command of the host's that is to be
// followed by what it must find there.
func (r *daemonRig) startISNS(t *testing.T, domain int) (finds string) {
	t.Helper()
	must(t, r.storage.WriteFile(t.Context(), "/tmp/isnsd.conf", fmt.Appendf(nil, `SourceName = iqn.2026-11.io.csi-ietd.lab:isns
BindAddress = %s:3205
PIDFile = /tmp/isnsd.pid
ControlSocket = /tmp/isnsd.control
LocalRegistry = /tmp/isnsd.registry
Security = 0
SLPRegister = 0
DefaultDiscoveryDomain = %d
`, r.storage.Storage, domain), 0o600))
	r.on(t, "/usr/sbin/isnsd -4 -c /tmp/isnsd.conf")
	t.Cleanup(func() {
		_, _ = r.storage.Shell(context.WithoutCancel(t.Context()), "kill $(cat /tmp/isnsd.pid); while ss -Hltn sport = :3205 | grep -q .; do sleep 0.1; done")
	})
	db := "iscsiadm -m discoverydb -t isns -p " + r.storage.Storage + ":3205 -I lab "
	return db + "--op new >/dev/null 2>&1; " + db + "--discover 2>/dev/null | grep -q "
}

// testISNSAccess: with iSNSAccessControl the server's discovery domains decide who is
// admitted to what.
func testISNSAccess(t *testing.T, r *daemonRig) {
	finds := r.startISNS(t, 0)
	r.configure(t, "iSNSServer "+r.storage.Storage+"\niSNSAccessControl Yes\n", daemonConf)
	r.reload(t)
	// The host's name is to stay at the server: iscsiadm takes it away when it has looked.
	must(t, r.host.WriteFile(t.Context(), "/tmp/isnsadm.conf", []byte("SourceName = "+hostName+"\nServerAddress = "+r.storage.Storage+":3205\nLocalRegistry = /tmp/isns.registry\nSecurity = 0\n"), 0o600))
	shell(t, r.host.Machine, "isnsadm -c /tmp/isnsadm.conf --register initiator="+hostName+"; ! { "+finds+"lab:; }")
	r.refused(t, daemonDisk)
	r.on(t, "isnsadm -c /tmp/isnsd.conf --local --dd-register dd-name=ours member-name="+daemonDisk+" member-name="+hostName)
	waitFor(t, r.host.Machine, lateness, "the target of the domain at the iSNS server", finds+daemonDisk+" && ! { "+finds+daemonOther+"; }")
	const noRecords = "iscsiadm -m node --op delete >/dev/null 2>&1 || true\n" // of discoveries: with two of a target it logs in twice
	waitFor(t, r.host.Machine, lateness, "the domain to count", noRecords+r.node(daemonDisk)+" --op new >/dev/null; "+r.node(daemonDisk)+" --login >/dev/null")
	r.logout(t, daemonDisk)
	r.refused(t, daemonOther)
}
