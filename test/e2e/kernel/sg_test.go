package kernel

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// sgCase is one of sg3-utils' commands and what it says to a good disk.
type sgCase struct {
	// $D is the disk, $B its block device, $R the read-only one, $P a block of
	// pattern.
	command string
	exit    int
	want    []string
	medium  []extent // what the target's file holds afterwards
}

// extent is a run of blocks with one byte in all of them.
type extent struct {
	lba, blocks int64
	fill        byte
	hole        bool // the file has no data there
}

const (
	sgBlocks = 16 * mebibyte / 512
	pattern  = 0xa5
)

// Exit codes of sg3-utils.
const (
	sgNotReady       = 2
	sgIllegalRequest = 5
	sgAttention      = 6
	sgDataProtect    = 7
	sgInvalidOpcode  = 9
	sgMiscompare     = 14
	sgConflict       = 24
)

var sgInquiry = []sgCase{
	{command: "sg_inq $D", want: []string{"version=0x06  [SPC-4]", "Peripheral device type: disk", "CmdQue=1", "TPGS=3",
		"Vendor identification: IET", "Product identification: VIRTUAL-DISK", "Unit serial number: SN-0"}},
	{command: "sg_inq $B", want: []string{"Unit serial number: SN-0"}},
	{command: "sg_vpd -p bl $D", want: []string{"Maximum compare and write length: 128 blocks", "Maximum transfer length: 524288 blocks",
		"Maximum unmap LBA count: 1048576", "Maximum unmap block descriptor count: 256", "Optimal unmap granularity: 8 blocks", "Maximum write same length: 0x200000 blocks"}},
	{command: "sg_vpd -p lbpv $D", want: []string{"(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "(LBPRZ): 1", "Threshold exponent: 11", "2 (thin provisioned)"}},
	{command: "sg_vpd -p ei $D", want: []string{"SIMPSUP=1", "V_SUP=1", "Maximum supported sense data length=28"}},
	{command: "sg_vpd -p mpp $D", want: []string{"applies to all modes pages and subpages", "Policy: shared"}},
	{command: "sg_vpd -p sp $D", want: []string{"Relative port=1", ietdTarget + ",t,0x0001"}},
	{command: "sg_vpd -p bdc $D", want: []string{"Non-rotating medium", "WABEREQ=1"}},
	{command: "sg_vpd -p 0xb9 $D", exit: 83, want: []string{"fetching VPD page failed"}},
	{command: "sg_luns $D", want: []string{"imples 2 lun entries", "0000000000000000", "0001000000000000"}},
	{command: "sg_luns --select=1 $D", want: []string{"imples 0 lun entries"}},
	{command: "sg_opcodes $D", want: []string{"Compare and write", "Get LBA status(16)", "Persistent reserve out, preempt and abort",
		"Report target port groups", "Sanitize, block erase", "Set timestamp", "Unmap", "Write same(16)"}},
	{command: "sg_opcodes --opcode=0x93 $D", want: []string{"Command is supported", "Usage data: 93 f9 ff"}},
	{command: "sg_opcodes --opcode=0x9e --sa=0x12 $D", want: []string{"Command is supported", "Usage data: 9e 12 ff"}},
	{command: "sg_opcodes --opcode=0x9f --sa=0x11 $D", want: []string{"Command is NOT supported"}},
	{command: "sg_opcodes --tmf $D", want: []string{"Abort task", "Logical unit reset"}},
	{command: "sg_readcap $D", want: []string{"Number of logical blocks=32768", "Device size: 16777216 bytes"}},
	{command: "sg_readcap --16 $B", want: []string{"lbpme=1, lbprz=1", "Number of logical blocks=32768"}},
}

var sgState = []sgCase{
	{command: "sg_turs --number=3 $D", want: []string{"Completed 3 Test Unit Ready commands with 0 errors"}},
	{command: "sg_requests $D", want: []string{"Sense key: No Sense", "No additional sense information"}},
	{command: "sg_modes --all $D", want: []string{"Caching", "Control", "Power condition", "Informational exceptions control", "WP=0, DpoFua=1", "88 12 04"}},
	{command: "sg_modes --all --six $D", want: []string{"MODE SENSE(6)", "Caching", "Informational exceptions control"}},
	{command: "sg_modes --control=1 --page=0xa $D", want: []string{"page_control: changeable", "8a 0a 24 06 08 40"}},
	{command: "sg_modes --page=0xa $R", want: []string{"WP=1"}},
	{command: "sg_wr_mode --page=8 --contents=88,12,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 $D"},
	{command: "sg_modes --page=8 $D", want: []string{"88 12 00 00"}},
	{command: "sg_wr_mode --page=8 --contents=88,12,4,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 $D"},
	{command: "sg_modes --page=8 $D", want: []string{"88 12 04 00"}},
	{command: "sg_logs --all $D", want: []string{"Supported log pages  [0x0]", "Available LBA mapping threshold resource count",
		"Used LBA mapping threshold resource count: 0", "Temperature page  [0xd]", "IE asc = 0x0, ascq = 0x0"}},
	{command: "sg_timestamp --origin $D", want: []string{"Device clock initialized by other method"}},
	{command: "sg_timestamp --milliseconds=1000000000000 $D"},
	{command: "sg_timestamp --origin $D", want: []string{"initialized by SET TIMESTAMP command", "10000000"}},
	{command: "sg_rtpg --decode --extended $D", want: []string{"target port group id : 0x1", "(active/optimized)", "(no status available)", "target port count : 01"}},
	{command: "sg_stpg --standby --tp=1 $D"},
	{command: "sg_turs $D", exit: sgNotReady},
	{command: "sg_rtpg --decode $D", want: []string{"0x02 (standby)", "changed by SET TARGET PORT GROUPS command"}},
	{command: "sg_stpg --unavailable --tp=1 $D"},
	{command: "sg_turs $D", exit: sgNotReady},
	{command: "sg_stpg --optimized --tp=1 $D"},
	{command: "sg_turs $D"},
	{command: "sg_start --stop $D"},
	{command: "sg_turs $D", exit: sgNotReady, want: []string{"device not ready"}},
	{command: "sg_requests $D", want: []string{"Not Ready", "initializing command required"}},
	{command: "sg_start --start $D"},
	{command: "sg_start --pc=3 $D"},
	{command: "sg_requests $D", want: []string{"Standby condition activated by command"}},
	{command: "sg_start --pc=1 $D"},
	{command: "sg_prevent --allow $D"},
	{command: "sg_reset --device $D"},
	{command: "sg_turs $D", exit: sgAttention, want: []string{"Bus device reset function occurred"}},
	{command: "sg_turs $D"},
	{command: "sg_reassign --grown $D", want: []string{"Elements in grown defect list: 0"}},
	{command: "sg_reassign --primary $D", want: []string{"Elements in primary defect list: 0"}},
}

var sgReservations = []sgCase{
	{command: "sg_persist --in --report-capabilities $D", want: []string{"(SIP_C): 1", "(ATP_C): 1", "(PTPL_C): 1", "(PTPL_A): 0", "Write Exclusive, all registrants: 1"}},
	{command: "sg_persist --in --read-keys $D", want: []string{"PR generation=0x0, there are NO registered reservation keys"}},
	{command: "sg_persist --out --reserve --param-rk=1 --prout-type=5 $D", exit: sgConflict},
	{command: "sg_persist --out --register --param-sark=1 $D"},
	{command: "sg_persist --out --reserve --param-rk=1 --prout-type=5 $D"},
	{command: "sg_persist --in --read-keys $D", want: []string{"PR generation=0x1", "1 registered reservation key follows", "0x1"}},
	{command: "sg_persist --in --read-reservation $D", want: []string{"Key=0x1", "type: Write Exclusive, registrants only"}},
	{command: "sg_persist --in --read-full-status $D", want: []string{"<< Reservation holder >>", "iSCSI world wide unique port id: iqn.2026-11.io.csi-ietd.lab:node-1,i,0x"}},
	{command: "sg_persist --out --clear --param-rk=1 $D"},
	{command: "sg_persist --in --read-reservation $D", want: []string{"PR generation=0x2, there is NO reservation held"}},
}

// sgMedium is in the order in which the commands find the medium: empty at
// first.
var sgMedium = []sgCase{
	{command: "sg_get_lba_status --lba=0 $D", want: []string{"blocks:      32768  deallocated"}, medium: []extent{{0, sgBlocks, 0, true}}},
	{command: "sg_write_same --16 --in=$P --lba=100 --num=8 $D", medium: []extent{{0, 100, 0, false}, {100, 8, pattern, false}, {108, 92, 0, false}}},
	{command: "sg_write_same --10 --in=$P --lba=200 --num=16 $D", medium: []extent{{200, 16, pattern, false}, {216, 100, 0, false}}},
	{command: "sg_write_same --32 --in=$P --lba=300 --num=8 $D", exit: sgInvalidOpcode, medium: []extent{{300, 8, 0, false}}},
	{command: "sg_get_lba_status --lba=100 $D", want: []string{"mapped (or unknown)"}},
	{command: "sg_verify --lba=0 --count=100 $D"},
	{command: "sg_verify --16 --lba=100 --count=8 --ebytchk=3 --ndo=512 --in=$P $D"},
	{command: "sg_verify --ebytchk=1 --ndo=512 --in=$P --lba=100 --count=1 $D"},
	{command: "sg_verify --ebytchk=1 --ndo=512 --in=$P --lba=99 --count=1 $D", exit: sgMiscompare, want: []string{"MISCOMPARE"}},
	{command: "sg_write_same --16 --unmap --lba=200 --num=8 $D", medium: []extent{{200, 8, 0, true}, {208, 8, pattern, false}}},
	{command: "sg_write_same --16 --ndob --lba=208 --num=4 $D", medium: []extent{{208, 4, 0, false}, {212, 4, pattern, false}}},
	{command: "(head -c 512 /dev/zero; cat $P) >/tmp/pair; sg_compare_and_write --in=/tmp/pair --lba=400 --num=1 $D", medium: []extent{{400, 1, pattern, false}, {401, 99, 0, false}}},
	{command: "sg_compare_and_write --in=/tmp/pair --lba=400 --num=1 $D", exit: sgMiscompare, want: []string{"Miscompare at byte offset: 0"}, medium: []extent{{400, 1, pattern, false}}},
	{command: "sg_write_x --16 --in=$P --lba=500 --num=1 $D", medium: []extent{{500, 1, pattern, false}, {501, 9, 0, false}}},
	{command: "sg_write_x --or --16 --in=$P --lba=510 --num=1 $D", medium: []extent{{501, 9, 0, false}, {510, 1, pattern, false}}},
	{command: "sg_write_verify --in=$P --lba=520 --num=1 $D", medium: []extent{{520, 1, pattern, false}, {521, 9, 0, false}}},
	{command: "sg_sync $D"},
	{command: "sg_dd if=$D of=/tmp/read bs=512 skip=520 count=1 blk_sgio=1; cmp /tmp/read $P"},
	{command: "sg_unmap --force --lba=96 --num=16 $D", medium: []extent{{96, 16, 0, true}, {400, 1, pattern, false}}},
	{command: "sg_xcopy if=$D of=$D bs=512 skip=400 seek=600 count=1", medium: []extent{{600, 1, pattern, false}, {601, 9, 0, false}}},
	{command: "sg_copy_results --params $D", want: []string{"Supports no list identifier"}},
	{command: "sg_raw --send=512 --infile=$P $R 2a 00 00 00 00 00 00 00 01 00", exit: sgDataProtect, want: []string{"Data Protect", "Write protected"}},
	{command: "sg_sanitize --block --quick --wait $D", medium: []extent{{0, sgBlocks, 0, true}}},
	{command: "sg_sanitize --overwrite --pattern=$P --ipl=512 --quick --wait $D", medium: []extent{{0, sgBlocks, pattern, false}}},
	{command: "sg_sanitize --overwrite --zero --quick --wait $D", medium: []extent{{0, sgBlocks, 0, false}}},
	{command: "sg_sanitize --fail --quick --early $D"},
	{command: "sg_sanitize --crypto --quick --early $D", exit: sgIllegalRequest},
	{command: "sg_write_same --16 --in=$P --lba=0 --num=64 $D", medium: []extent{{0, 64, pattern, false}}},
	// sg_format looks at page 01h unless it is told another one.
	{command: "sg_format --format --mode=8 --quick --wait $D", want: []string{"Number of blocks=32768"}, medium: []extent{{0, sgBlocks, 0, false}}},
}

// TestSg has sg3-utils, in a guest, ask a LUN all that a disk is asked.
func TestSg(t *testing.T) {
	l := newPlainLab(t)
	g := boot(t, l, 1, lab.GuestConfig{})[0]
	const size = sgBlocks * 512
	d := newIetd(t, l, image{size: size, options: ",IOMode=wb,ScsiSN=SN-0"}, image{size: size, options: ",IOMode=ro"})
	d.login(t, g)
	shell(t, g.Machine, `head -c 512 /dev/zero | tr '\0' '\245' >/tmp/pattern`)
	for _, table := range []struct {
		name  string
		cases []sgCase
	}{{"inquiry", sgInquiry}, {"state", sgState}, {"reservations", sgReservations}, {"medium", sgMedium}} {
		t.Run(table.name, func(t *testing.T) {
			for _, c := range table.cases {
				testSg(t, d, g, c)
			}
		})
	}
	t.Run("vpd-pages", func(t *testing.T) { testVPDPages(t, g) })
	d.logout(t, g)
}

// sgNames makes the names of a case's command. Unlike a block device, which udev
// and the kernel look at whenever a writer lets go of it, an sg device is left
// alone.
const sgNames = `
	exec 2>&1
	sg() { echo /dev/$(ls /sys/class/scsi_device/*:$1/device/scsi_generic); }
	D=$(sg 0) R=$(sg 1 2>/dev/null) B=/dev/$(ls /sys/class/scsi_device/*:0/device/block) P=/tmp/pattern
`

func testSg(t *testing.T, d *ietd, g *lab.Guest, c sgCase) {
	t.Helper()
	out, err := g.Shell(t.Context(), sgNames+c.command)
	exit := 0
	if err != nil {
		exit = lab.ExitCode(err)
	}
	if exit != c.exit {
		t.Errorf("%s: exit code %d, want %d\n%s", c.command, exit, c.exit, out)
	}
	for _, want := range c.want {
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", c.command, want, out)
		}
	}
	for _, e := range c.medium {
		if err := e.check(d.image(0)); err != nil {
			t.Errorf("%s: %+v: %v", c.command, e, err)
		}
	}
}

// check reads the target's file.
func (e extent) check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got := make([]byte, e.blocks*512)
	if _, err := f.ReadAt(got, e.lba*512); err != nil {
		return err
	}
	if !bytes.Equal(got, bytes.Repeat([]byte{e.fill}, len(got))) {
		return errors.New("the file holds something else")
	}
	if at, err := unix.Seek(int(f.Fd()), e.lba*512, unix.SEEK_HOLE); e.hole && (err != nil || at != e.lba*512) {
		return errors.New("there is data in the file")
	}
	return nil
}

// testVPDPages has every page of the list decoded.
func testVPDPages(t *testing.T, g *lab.Guest) {
	out := shell(t, g.Machine, sgNames+`
		for page in $(sg_vpd --long $D | sed -n 's/^ *\(0x[0-9a-f]*\) .*/\1/p'); do
			echo "== $page"
			sg_vpd --page=$page $D
		done`)
	pages := strings.Split(out, "== ")[1:]
	for _, page := range pages {
		if code, text, _ := strings.Cut(page, "\n"); !strings.Contains(text, "VPD page") || strings.Count(text, "\n") < 2 {
			t.Errorf("page %s:\n%s", code, text)
		}
	}
	if len(pages) != 10 {
		t.Errorf("%d pages, want 10:\n%s", len(pages), out)
	}
}
