package kernel

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

var full = flag.Bool("full", false, "take the whole matrix of negotiations in place of every pair")

// What the target wants, whatever is offered.
const (
	targetFirstBurst = 64 << 10
	targetMaxBurst   = 1 << 20
	targetSegment    = 256 << 10
)

// factor is a key of login with the values that an initiator is made to offer.
type factor struct {
	name   string
	values []string
}

// The longest lengths that open-iscsi takes are rounded down to its words.
var factors = []factor{
	{"node.session.iscsi.InitialR2T", []string{"No", "Yes"}},
	{"node.session.iscsi.ImmediateData", []string{"Yes", "No"}},
	{"node.conn[0].iscsi.HeaderDigest", []string{"None", "CRC32C"}},
	{"node.conn[0].iscsi.DataDigest", []string{"None", "CRC32C"}},
	{"node.session.iscsi.FirstBurstLength", []string{"512", "16777212"}},
	{"node.session.iscsi.MaxBurstLength", []string{"512", "16777212"}},
	{"node.conn[0].iscsi.MaxRecvDataSegmentLength", []string{"512", "16777212"}},
	// What the initiator sends at most: 0 is what the target takes.
	{"node.conn[0].iscsi.MaxXmitDataSegmentLength", []string{"512", "0"}},
}

// point is a choice of one value of each factor, in their order.
type point []string

func (p point) String() string { return strings.Join(p, "-") }

func (p point) settings() (list []setting) {
	for i, f := range factors {
		list = append(list, setting{f.name, p[i]})
	}
	return list
}

// offers returns what the point has in a factor, as a number: Yes and CRC32C
// are 1.
func (p point) offers(name string) int {
	i := slices.IndexFunc(factors, func(f factor) bool { return strings.HasSuffix(f.name, name) })
	if n, err := strconv.Atoi(p[i]); err == nil {
		return n
	}
	return map[string]int{"Yes": 1, "CRC32C": 1}[p[i]]
}

// negotiated is what the initiator's kernel must hold for it, by the names in
// sysfs.
func (p point) negotiated() map[string]string {
	maxBurst := min(p.offers(".MaxBurstLength"), targetMaxBurst)
	send := p.offers(".MaxXmitDataSegmentLength")
	if send == 0 {
		send = targetSegment
	}
	want := map[string]string{}
	for name, n := range map[string]int{
		"initial_r2t":      p.offers(".InitialR2T"),
		"immediate_data":   p.offers(".ImmediateData"),
		"first_burst_len":  min(p.offers(".FirstBurstLength"), maxBurst, targetFirstBurst),
		"max_burst_len":    maxBurst,
		"header_digest":    p.offers(".HeaderDigest"),
		"data_digest":      p.offers(".DataDigest"),
		"max_recv_dlength": p.offers(".MaxRecvDataSegmentLength"),
		"max_xmit_dlength": send,
	} {
		want[name] = strconv.Itoa(n)
	}
	return want
}

// allPoints is the whole matrix.
func allPoints() []point {
	points := []point{nil}
	for _, f := range factors {
		var longer []point
		for _, p := range points {
			for _, v := range f.values {
				longer = append(longer, append(slices.Clone(p), v))
			}
		}
		points = longer
	}
	return points
}

// pair is two factors with a value each.
type pair struct {
	a, b   int
	va, vb string
}

func (p point) pairs() (list []pair) {
	for b := range p {
		for a := range b {
			list = append(list, pair{a, b, p[a], p[b]})
		}
	}
	return list
}

// pairwise picks points in which every two values of two factors meet: the one
// that adds most, again and again.
func pairwise(points []point) (chosen []point) {
	met := map[pair]bool{}
	news := func(p point) (n int) {
		for _, pr := range p.pairs() {
			if !met[pr] {
				n++
			}
		}
		return n
	}
	for {
		best := slices.MaxFunc(points, func(a, b point) int { return news(a) - news(b) })
		if news(best) == 0 {
			return chosen
		}
		chosen = append(chosen, best)
		for _, pr := range best.pairs() {
			met[pr] = true
		}
	}
}

// TestNegotiation logs the kernel's initiator in with what it can be made to
// ask for, compares what its kernel then holds, and has fio write and verify
// under it: through the initiator, and then once more in the target's file.
func TestNegotiation(t *testing.T) {
	points := allPoints()
	if !*full {
		points = pairwise(points)
	}
	l := newPlainLab(t)
	g := boot(t, l, 1, lab.GuestConfig{})[0]
	d := newIetd(t, l, image{size: 64 * mebibyte, options: ",IOMode=wb"})
	for _, p := range points {
		t.Run(p.String(), func(t *testing.T) { testPoint(t, d, g, p) })
	}
	t.Logf("%d of %d points", len(points), len(allPoints()))
}

func testPoint(t *testing.T, d *ietd, g *lab.Guest, p point) {
	start := time.Now()
	// fio's blocks are the same each time: none of them may be there before.
	shell(t, d.machine, "fallocate --punch-hole --length 4M "+d.image(0))
	d.login(t, g, p.settings()...)
	in := time.Now()
	if diff := cmp.Diff(p.negotiated(), negotiated(t, g)); diff != "" {
		t.Errorf("negotiated (-want +got):\n%s", diff)
	}
	_, err := g.Shell(t.Context(), fio("$(readlink -f "+d.disk(0)+")", "--direct=1 --ioengine=libaio --iodepth=8 --do_verify=1 --end_fsync=1"))
	d.logout(t, g)
	must(t, err)
	shell(t, d.machine, fio(d.image(0), "--verify_only"))
	t.Logf("login took %v, the rest %v", in.Sub(start).Round(time.Millisecond), time.Since(in).Round(time.Millisecond))
}

// negotiated is what the guest's kernel holds of its one session.
func negotiated(t *testing.T, g *lab.Guest) map[string]string {
	t.Helper()
	got := map[string]string{}
	out := shell(t, g.Machine, `
		cd /sys/class/iscsi_session/session*
		grep . initial_r2t immediate_data first_burst_len max_burst_len
		cd /sys/class/iscsi_connection/connection*
		grep . header_digest data_digest max_recv_dlength max_xmit_dlength`)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		got[name] = value
	}
	return got
}

// fio writes small blocks in any order and then large ones in a row.
func fio(file, options string) string {
	return fmt.Sprintf(`fio --filename=%s --verify=crc32c --verify_fatal=1 %s \
		--name=small --rw=randwrite --bs=4k --size=512k \
		--name=large --stonewall --rw=write --bs=256k --offset=1m --size=2m 2>&1`, file, options)
}
