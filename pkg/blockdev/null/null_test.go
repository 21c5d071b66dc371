package null

import (
	"bytes"
	"errors"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestDevice(t *testing.T) {
	d, err := New(8192, 512)
	if err != nil {
		t.Fatal(err)
	}
	if d.Size() != 8192 || d.BlockSize() != 512 {
		t.Errorf("%d bytes in blocks of %d", d.Size(), d.BlockSize())
	}
	p := bytes.Repeat([]byte{0xff}, 1024)
	if n, err := d.WriteAt(p, 7168); n != len(p) || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := d.WriteAtSync(p, 0); err != nil {
		t.Error(err)
	}
	for name, read := range map[string]func([]byte, int64) (int, error){"ReadAt": d.ReadAt, "ReadAtNowait": d.ReadAtNowait} {
		got := bytes.Repeat([]byte{0xff}, 1024)
		if n, err := read(got, 7168); n != len(got) || err != nil || !bytes.Equal(got, make([]byte, 1024)) {
			t.Errorf("%s: %d, %v, %x...", name, n, err, got[:8])
		}
	}
	for name, err := range map[string]error{
		"read":  second(d.ReadAt(p, 7169)),
		"write": second(d.WriteAt(p, -1)),
		"sync":  d.WriteAtSync(p, 1<<62),
		"zeros": d.WriteZeroes(8192, 1),
	} {
		if !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("%s beyond the end: %v", name, err)
		}
	}
	if err := errors.Join(d.Sync(), d.WriteZeroes(0, 8192), d.Close()); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"read": second(d.ReadAt(p, 0)), "write": second(d.WriteAt(p, 0)), "sync": d.Sync(), "close": d.Close(),
	} {
		if !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("%s of a closed one: %v", name, err)
		}
	}
}

func second(_ int, err error) error { return err }

func TestNewRefuses(t *testing.T) {
	for _, of := range []struct {
		size  int64
		block int
	}{{0, 512}, {-512, 512}, {513, 512}, {8192, 8192}, {1536, 1024}, {512, 4096}, {8192, 0}} {
		if _, err := New(of.size, of.block); !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("%+v: %v", of, err)
		}
	}
}
