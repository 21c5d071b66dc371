package conformance

import (
	"slices"
	"strings"
	"testing"
)

// suites are libiscsi's, with how many tests each has in version 1.19. SANITIZE
// has a test of its own. MultipathIO comes first, as it takes a block for zero
// that it has not zeroed.
var suites = []struct {
	name  string
	tests int
}{
	{"ALL.MultipathIO", 4},
	{"ALL.CompareAndWrite", 5},
	{"ALL.ExtendedCopy", 6},
	{"ALL.GetLBAStatus", 3},
	{"ALL.Inquiry", 7},
	{"ALL.Mandatory", 1},
	{"ALL.ModeSense6", 5},
	{"ALL.OrWrite", 6},
	{"ALL.Prefetch10", 4},
	{"ALL.Prefetch16", 4},
	{"ALL.PrinReadKeys", 2},
	{"ALL.PrinReportCapabilities", 1},
	{"ALL.PrinServiceactionRange", 1},
	{"ALL.ProutClear", 1},
	{"ALL.ProutPreempt", 1},
	{"ALL.ProutRegister", 1},
	{"ALL.ProutReserve", 13},
	{"ALL.Read6", 2},
	{"ALL.Read10", 6},
	{"ALL.Read12", 5},
	{"ALL.Read16", 5},
	{"ALL.ReadCapacity10", 1},
	{"ALL.ReadCapacity16", 4},
	{"ALL.ReadDefectData10", 1},
	{"ALL.ReadDefectData12", 1},
	{"ALL.ReceiveCopyResults", 2},
	{"ALL.ReportSupportedOpcodes", 4},
	{"ALL.Reserve6", 7},
	{"ALL.TestUnitReady", 1},
	{"ALL.Unmap", 3},
	{"ALL.Verify10", 8},
	{"ALL.Verify12", 8},
	{"ALL.Verify16", 8},
	{"ALL.Write10", 6},
	{"ALL.Write12", 5},
	{"ALL.Write16", 5},
	{"ALL.WriteAtomic16", 6},
	{"ALL.WriteSame10", 10},
	{"ALL.WriteSame16", 10},
	{"ALL.WriteVerify10", 6},
	{"ALL.WriteVerify12", 6},
	{"ALL.WriteVerify16", 6},
	{"iSCSI.iSCSIResiduals", 10},
	{"iSCSI.iSCSIcmdsn", 2},
	{"iSCSI.iSCSIdatasn", 1},
	{"iSCSI.iSCSITMF", 2},
}

// onePerPhysical is what libiscsi leaves out where a physical block has one
// logical block, as ietd's have. Where it has more, GetLBAStatus.UnmapSingle asks
// for one block and expects to be told of another.
const onePerPhysical = "[SKIPPED] LBPPB < 2. Skipping test"

func TestLibiscsi(t *testing.T) {
	d := startIetd(t)
	for _, target := range []string{writeBack, writeThrough} {
		for _, s := range suites {
			t.Run(target[len(target)-2:]+"/"+s.name, func(t *testing.T) { d.cunit(t, target, 0, s.name, s.tests, onePerPhysical) })
		}
	}
}

// A disk's blocks may be of any length that ietd.conf has. WriteAtomic16 wants 256
// blocks at once, whatever length VPD page B0h allows.
func TestLibiscsiBlockSize(t *testing.T) {
	d := startIetd(t)
	for _, s := range suites {
		switch s.name {
		case "ALL.Read10", "ALL.Write16", "ALL.Unmap", "ALL.WriteSame16", "ALL.CompareAndWrite", "ALL.GetLBAStatus", "ALL.OrWrite", "ALL.Verify10", "ALL.ReadCapacity16":
			t.Run(s.name, func(t *testing.T) { d.cunit(t, writeBack, 2, s.name, s.tests, onePerPhysical) })
		}
	}
}

// cunit runs a suite of iscsi-test-cu, through two sessions.
func (d *ietd) cunit(t *testing.T, target string, lun int, suite string, tests int, allowed ...string) {
	t.Helper()
	url := d.url(target, lun)
	out := tool(t, "iscsi-test-cu", "-d", "-S", "-t", suite, url, url)
	r, err := parseReport(out)
	if err == nil {
		r.skips = slices.DeleteFunc(r.skips, func(s string) bool { return slices.Contains(allowed, s) })
		err = r.check(tests)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out[max(0, len(out)-3000):])
	}
}

// TestLibiscsiSanitize runs the tests of SANITIZE one by one: Reservations
// leaves a reservation of its second session behind. Reset wants a disk that takes
// longer than five seconds, and looks once a minute whether it is done; it answers no
// NOP-In meanwhile, which ietd sends only if it is told to.
func TestLibiscsiSanitize(t *testing.T) {
	t.Parallel()
	d := startIetd(t)
	for _, name := range []string{
		"BlockErase", "BlockEraseReserved", "CryptoErase", "CryptoEraseReserved", "ExitFailureMode", "InvalidServiceAction",
		"Overwrite", "OverwriteReserved", "Readonly", "Reservations", "Reset",
	} {
		t.Run(name, func(t *testing.T) {
			lun := 1
			if name == "Reset" {
				lun = 0
			}
			d.cunit(t, writeBack, lun, "ALL.Sanitize."+name, 1,
				"[SKIPPED] SANITIZE CRYPTO_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES.")
		})
	}
}

// TestLibiscsiCannot has the suites that need another kind of disk: they find
// that out, and pass.
func TestLibiscsiCannot(t *testing.T) {
	d := startIetd(t)
	for _, s := range []struct {
		name  string
		tests int
		skip  []string
	}{
		{"ALL.NoMedia", 1, nil},
		{"ALL.PreventAllow", 8, []string{"[SKIPPED] Logical unit is not removable. Skipping test."}},
		{"ALL.StartStopUnit", 3, []string{"[SKIPPED] Media is not removable.", "[SKIPPED] Logical unit is not removable. Skipping test."}},
		{"ALL.ReadOnly", 1, []string{"[SKIPPED] Logical unit is not write-protected. Skipping test."}},
	} {
		t.Run(s.name, func(t *testing.T) { d.cunit(t, writeBack, 0, s.name, s.tests, s.skip...) })
	}
}

// TestLibiscsiReadOnly has the suite that the disks of the others cannot run.
func TestLibiscsiReadOnly(t *testing.T) {
	startIetd(t).cunit(t, readOnly, 0, "ALL.ReadOnly", 1, "[SKIPPED] UNMAP is not implemented.") // of a disk that is never written
}

func TestLibiscsiTools(t *testing.T) {
	d := startIetd(t)
	for _, tt := range []struct {
		tool string
		args []string
		want []string
	}{
		{"iscsi-inq", []string{d.url(writeBack, 0)}, []string{"Peripheral Device Type:DIRECT_ACCESS", "iSCSI", "SBC-3"}},
		{"iscsi-inq", []string{"-e", "1", "-c", "128", d.url(writeBack, 0)}, []string{"WB-0"}},
		{"iscsi-inq", []string{"-e", "1", "-c", "131", d.url(writeBack, 0)}, []string{"LOGICAL_UNIT", writeBack}},
		{"iscsi-inq", []string{"-e", "1", "-c", "176", d.url(writeBack, 0)}, []string{"maximum unmap"}},
		{"iscsi-readcapacity16", []string{d.url(writeBack, 0)}, []string{"LOGICAL BLOCK LENGTH IN BYTES:512", "LBPME:1 LBPRZ:1", "Total size:2147483648"}},
		{"iscsi-readcapacity16", []string{"-s", d.url(writeBack, 1)}, []string{"67108864"}},
		{"iscsi-swp", []string{d.url(writeBack, 0)}, []string{"SWP:0"}},
		{"iscsi-ls", []string{"-s", "iscsi://" + d.addr}, []string{"Target:" + writeBack, "Target:" + writeThrough, "Lun:1"}},
	} {
		t.Run(tt.tool+" "+strings.Join(tt.args[:len(tt.args)-1], " "), func(t *testing.T) {
			out := tool(t, tt.tool, tt.args...)
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}
