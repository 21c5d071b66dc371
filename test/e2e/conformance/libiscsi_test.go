package conformance

import (
	"strings"
	"testing"
)

// suites are libiscsi's, with how many tests each has in version 1.19.
var suites = []struct {
	name  string
	tests int
}{
	{"ALL.Inquiry", 7},
	{"ALL.TestUnitReady", 1},
	{"ALL.ReadCapacity10", 1},
	{"ALL.ReadCapacity16", 4},
	{"ALL.Read6", 2},
	{"ALL.Read10", 6},
	{"ALL.Read12", 5},
	{"ALL.Read16", 5},
	{"ALL.Write10", 6},
	{"ALL.Write12", 5},
	{"ALL.Write16", 5},
	{"ALL.Unmap", 3},
	{"ALL.WriteSame10", 10},
	{"ALL.WriteSame16", 10},
	{"ALL.Mandatory", 1},
	{"ALL.ModeSense6", 5},
	{"iSCSI.iSCSIResiduals", 10},
	{"iSCSI.iSCSIcmdsn", 2},
	{"iSCSI.iSCSIdatasn", 1},
	{"iSCSI.iSCSITMF", 2},
}

func TestLibiscsi(t *testing.T) {
	d := startIetd(t)
	for _, target := range []string{writeBack, writeThrough} {
		for _, s := range suites {
			t.Run(target[len(target)-2:]+"/"+s.name, func(t *testing.T) {
				out := tool(t, "iscsi-test-cu", "-d", "-t", s.name, d.url(target, 0))
				r, err := parseReport(out)
				if err == nil {
					err = r.check(s.tests)
				}
				if err != nil {
					t.Errorf("%v\n%s", err, out[max(0, len(out)-3000):])
				}
			})
		}
	}
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
