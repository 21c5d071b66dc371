package iscsitarget_test

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// Statuses of who comes while an ACA condition stands.
const (
	busy      = 0x08
	acaActive = 0x30
)

// PREEMPT AND ABORT gets past the ACA condition of the nexus that it preempts, and
// clears it (SAM-5 section 5.10.5): a cluster can throw a member out that holds the
// others up.
func TestPreemptAndAbortGetsPastACA(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a, b := r.login(1), r.login(2)
	good(t, a.Do(reserveOut(prRegister, 0, 0, 1)))
	good(t, b.Do(reserveOut(prRegister, 0, 0, 2)))
	good(t, a.Do(reserveOut(prReserve, exclusiveAccess, 1, 0)))
	hold := r.stuck(a, 0)
	a.Start(iscsitest.Command{CDB: iscsitest.Read(1, 1), In: block, Attr: 2})
	a.Alive()
	beyond := read(1 << 30)
	beyond.CDB[9] = 1 << 2 // NACA
	wantStatus(t, "the fault", a.Do(beyond), 2, 0x052100)
	wantStatus(t, "a command of the other", b.Do(ready()), busy, 0)
	wantStatus(t, "a command of its own", a.Do(ready()), acaActive, 0)
	preempt := b.Start(reserveOut(prPreemptAndAbort, exclusiveAccess, 2, 1))
	b.Alive()
	hold.Release()
	good(t, b.Wait(preempt))
	good(t, b.Do(read(0)))
	wantStatus(t, "what the preempted is told", a.Do(ready()), 2, 0x062A05)
	wantStatus(t, "and of its commands", a.Do(ready()), 2, 0x062F00)
	good(t, a.Do(ready()))
}
