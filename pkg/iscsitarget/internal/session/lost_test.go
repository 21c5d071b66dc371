package session

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// A command that was not acknowledged when its connection was lost, since others were
// to come before it, did not come: the initiator sends it again over another one.
func TestEarlyCommandOfALostConnectionComesAgain(t *testing.T) {
	for _, p := range []uint32{0, 2} {
		params := level(p)
		a := newSite(t).join(params)
		b := a.another(8)
		gap := a.CmdSN
		a.CmdSN++
		early := iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Immediate: block}
		sn := a.CmdSN
		b.Start(early)
		b.Alive()
		b.lost()
		good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &gap}))
		early.CmdSN = &sn
		good(t, a.Do(early))
		a.holds(0, early.Out)
		a.keepsNothingEarly()
	}
}
