package fd

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAlign(t *testing.T) {
	tests := []struct{ off, n, unit, first, last int64 }{
		{0, 4096, 1, 0, 4096},
		{3, 5, 1, 3, 8},
		{0, 4096, 4096, 0, 4096},
		{0, 8191, 4096, 0, 4096},
		{1, 8191, 4096, 4096, 8192},
		{1, 8192, 4096, 4096, 8192},
		{1, 100, 4096, 101, 101},
		{1, 4096, 4096, 4097, 4097},
		{4095, 2, 4096, 4097, 4097},
		{4096, 0, 4096, 4096, 4096},
		{100, 0, 4096, 100, 100},
	}
	for _, tt := range tests {
		if first, last := align(tt.off, tt.n, tt.unit); first != tt.first || last != tt.last {
			t.Errorf("align(%d, %d, %d) = [%d, %d), want [%d, %d)", tt.off, tt.n, tt.unit, first, last, tt.first, tt.last)
		}
	}
}

func TestZeroing(t *testing.T) {
	refuse := func(int, uint32, int64, int64) error { return unix.EOPNOTSUPP }
	ranges := [][2]int64{{0, testSize}, {0, 0}, {512, 512}, {1, 4095}, {4095, 2}, {4096, 8192}, {100, 300000}, {testSize - 1, 1}}
	for name, c := range map[string]Calls{"kernel": {}, "written": {Fallocate: refuse}} {
		for _, alignment := range []int64{1, 512, 4096} {
			for _, r := range ranges {
				t.Run(fmt.Sprintf("%s/%d/%d+%d", name, alignment, r[0], r[1]), func(t *testing.T) {
					testZero(t, c, alignment, r[0], r[1], (*Device).Punch)
					testZero(t, c, alignment, r[0], r[1], (*Device).WriteZeroes)
				})
			}
		}
	}
}

func testZero(t *testing.T, c Calls, alignment, off, n int64, zero func(*Device, int64, int64) error) {
	t.Helper()
	d := open(t, c)
	d.o.Alignment = alignment
	want := bytes.Repeat([]byte{0xa5}, testSize)
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := zero(d, off, n); err != nil {
		t.Fatal(err)
	}
	clear(want[off : off+n])
	got := make([]byte, testSize)
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("other bytes than the range's are zero")
	}
}

// fallocate on a block device refuses what is not aligned to its blocks.
func TestZeroingKeepsToAlignment(t *testing.T) {
	var calls int
	d := open(t, Calls{Fallocate: func(_ int, _ uint32, off, n int64) error {
		calls++
		if off%4096 != 0 || n%4096 != 0 || n == 0 {
			t.Errorf("fallocate(%d, %d)", off, n)
		}
		return nil
	}})
	d.o.Alignment = 4096
	for _, r := range [][2]int64{{1, 4096}, {1, 10000}, {4096, 4096}, {0, 0}, {4095, 4098}} {
		if err := d.Punch(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 3 {
		t.Fatalf("%d calls, want 3", calls)
	}
}

func TestZeroingErrors(t *testing.T) {
	d := open(t, Calls{Fallocate: func(int, uint32, int64, int64) error { return unix.EIO }})
	wantError(t, "Punch", d.Punch(0, 4096), unix.EIO)
	wantError(t, "WriteZeroes", d.WriteZeroes(0, 4096), unix.EIO)
}
