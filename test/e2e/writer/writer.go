package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 4096
	// batch is the largest number of blocks in one system call.
	batch = 256
)

// extent is a range of blocks with the seed of what is in them.
type extent struct{ first, count, seed int64 }

// writer is one open file or device.
type writer struct {
	file *os.File
	// want and got are aligned to pages, as O_DIRECT asks for.
	want, got []byte
}

func open(path string, direct bool) (*writer, error) {
	flags := os.O_RDWR | os.O_CREATE
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	buf, err := unix.Mmap(-1, 0, 2*batch*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &writer{f, buf[:batch*blockSize], buf[batch*blockSize:]}, nil
}

// fill makes the blocks of r, which are batch at most: a line of text that
// names the block, so that it is found wherever it lies, and then noise.
func fill(p []byte, r extent) []byte {
	p = p[:r.count*blockSize]
	for i := range r.count {
		block := p[i*blockSize : (i+1)*blockSize]
		head := copy(block, fmt.Sprintf("%sblock=%08x\n\x00\x00", mark(r.seed), r.first+i))
		noise := rand.NewPCG(uint64(r.seed), uint64(r.first+i))
		for rest := block[head:]; len(rest) >= 8; rest = rest[8:] {
			binary.LittleEndian.PutUint64(rest, noise.Uint64())
		}
	}
	return p
}

func mark(seed int64) string { return fmt.Sprintf("seed=%08x ", seed) }

// batches calls f with parts of r that fit a buffer.
func (r extent) batches(f func(extent) error) error {
	for r.count > 0 {
		part := extent{r.first, min(r.count, batch), r.seed}
		if err := f(part); err != nil {
			return err
		}
		r.first, r.count = r.first+part.count, r.count-part.count
	}
	return nil
}

func (w *writer) write(r extent) error {
	return r.batches(func(part extent) error {
		_, err := w.file.WriteAt(fill(w.want, part), part.first*blockSize)
		return err
	})
}

// check reads what is on the device: clean pages are dropped first. Pages that
// are dirty stay, and are compared too.
func (w *writer) check(r extent) error {
	if err := unix.Fadvise(int(w.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("fadvise: %w", err)
	}
	return r.batches(func(part extent) error {
		want := fill(w.want, part)
		got := w.got[:len(want)]
		if n, err := w.file.ReadAt(got, part.first*blockSize); err != nil && err != io.EOF {
			return err
		} else if n < len(got) {
			return fmt.Errorf("block %d: end of file", part.first+int64(n/blockSize))
		}
		return part.compare(got, want)
	})
}

// compare names the first block that differs.
func (r extent) compare(got, want []byte) error {
	for i := range r.count {
		if a, b := got[i*blockSize:][:blockSize], want[i*blockSize:][:blockSize]; !bytes.Equal(a, b) {
			return fmt.Errorf("block %d is %.32q, want %.32q", r.first+i, a, b)
		}
	}
	return nil
}

// writeout leaves every page clean, and nothing flushed.
func (w *writer) writeout() error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(int(w.file.Fd()), 0, 0, all); err != nil {
		return fmt.Errorf("sync_file_range: %w", err)
	}
	return nil
}

func (w *writer) datasync() error {
	if err := unix.Fdatasync(int(w.file.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	return nil
}
