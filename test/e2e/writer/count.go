package main

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sector is what a file system on a volume may align a block to, if not to the
// block's own size: ext4 takes 1 KiB on small volumes.
const sector = 512

// count returns how many blocks of a seed are in a file, without reading its
// holes.
func count(path string, seed int64) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, end := 0, int64(0)
	for {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data from here on
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
		start -= start % sector
		part, err := countIn(io.NewSectionReader(f, start, end-start), seed)
		if err != nil {
			return 0, err
		}
		n += part
	}
}

func countIn(r io.Reader, seed int64) (int, error) {
	buf, n := make([]byte, batch*blockSize), 0
	for {
		got, err := io.ReadFull(r, buf)
		for p := buf[:got]; len(p) > 0; p = p[min(len(p), sector):] {
			if bytes.HasPrefix(p, []byte(mark(seed))) {
				n++
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
