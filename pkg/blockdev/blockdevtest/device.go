package blockdevtest

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Capability is a set of the optional interfaces of a Device.
type Capability uint16

// The optional interfaces.
const (
	Unmaps       Capability = 1 << iota // blockdev.Unmapper
	Zeroes                              // blockdev.Zeroer
	ReadsNowait                         // blockdev.NowaitReader
	WritesSync                          // blockdev.SyncWriter
	Marks                               // blockdev.VolatileMarker
	Maps                                // blockdev.Mapper
	Prefetches                          // blockdev.Prefetcher
	Spaces                              // blockdev.Spacer
	Keeps                               // blockdev.StateKeeper
	Copies                              // blockdev.RangeCopier
	WritesAtomic                        // blockdev.AtomicWriter
)

// All is every optional interface.
const All = Unmaps | Zeroes | ReadsNowait | WritesSync | Marks | Maps | Prefetches | Spaces | Keeps | Copies | WritesAtomic

// capabilities returns what d offers.
func capabilities(d blockdev.Device) Capability {
	return offers[blockdev.Unmapper](d, Unmaps) |
		offers[blockdev.Zeroer](d, Zeroes) |
		offers[blockdev.NowaitReader](d, ReadsNowait) |
		offers[blockdev.SyncWriter](d, WritesSync) |
		offers[blockdev.VolatileMarker](d, Marks) |
		offers[blockdev.Mapper](d, Maps) |
		offers[blockdev.Prefetcher](d, Prefetches) |
		offers[blockdev.Spacer](d, Spaces) |
		offers[blockdev.StateKeeper](d, Keeps) |
		offers[blockdev.RangeCopier](d, Copies) |
		offers[blockdev.AtomicWriter](d, WritesAtomic)
}

// offers is c where d has the interface T, and nothing where it has not.
func offers[T any](d blockdev.Device, c Capability) Capability {
	if _, ok := d.(T); ok {
		return c
	}
	return 0
}

// DeviceSuite is what a backend gives to have its Device tested.
type DeviceSuite struct {
	// Open makes a fresh device that reads as zeros and is closed when the
	// test ends, unless the suite closed it. It must be one that a test
	// may write all of: the suite asks for 8 MiB at most.
	Open func(t *testing.T, size int64, blockSize int) blockdev.Device
	// Has is what the device must offer, no more and no less.
	Has Capability
	// CopyUnit is that of ranges that CopyFrom must copy: others it may refuse. 0 is 1.
	CopyUnit int64
	// Grow makes an open device larger; nil for a backend that cannot.
	Grow func(t *testing.T, d blockdev.Device, size int64)
	// FailSync makes the device's next Sync fail as a disk that loses
	// writes does.
	FailSync func(t *testing.T, d blockdev.Device)
	// Reopen closes the device and opens it anew; nil for a backend that
	// forgets everything at Close.
	Reopen func(t *testing.T, d blockdev.Device) blockdev.Device
}

const testSize = 2 << 20

// Run runs the suite.
func (s DeviceSuite) Run(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T)
		off  bool // the backend said that it cannot
	}{
		{"Shape", s.testShape, false},
		{"ZerosAtFirst", s.testZerosAtFirst, false},
		{"ReadWrite", s.testReadWrite, false},
		{"Bounds", s.testBounds, false},
		{"Concurrency", s.testConcurrency, false},
		{"NoTearing", s.testNoTearing, false},
		{"Model", s.testModel, false},
		{"Closed", s.testClosed, false},
		{"SyncErrorSticks", s.testSyncErrorSticks, false},
		{"Unmap", s.testUnmap, s.Has&Unmaps == 0},
		{"WriteZeroes", s.testWriteZeroes, s.Has&Zeroes == 0},
		{"ReadAtNowait", s.testNowait, s.Has&ReadsNowait == 0},
		{"WriteAtSync", s.testWriteAtSync, s.Has&WritesSync == 0},
		{"VolatileMark", s.testMark, s.Has&Marks == 0},
		{"Mapped", s.testMapped, s.Has&Maps == 0},
		{"Space", s.testSpace, s.Has&Spaces == 0},
		{"Prefetch", s.testPrefetch, s.Has&Prefetches == 0},
		{"State", s.testState, s.Has&Keeps == 0},
		{"StateInvalid", s.testStateInvalid, s.Has&Keeps == 0},
		{"CopyFrom", s.testCopy, s.Has&Copies == 0},
		{"CopyFromBounds", s.testCopyBounds, s.Has&Copies == 0},
		{"CopyFromClosed", s.testCopyClosed, s.Has&Copies == 0},
		{"WriteAtomic", s.testAtomic, s.Has&WritesAtomic == 0},
		{"WriteAtomicBounds", s.testAtomicBounds, s.Has&WritesAtomic == 0},
		{"WriteAtomicConcurrency", s.testAtomicConcurrency, s.Has&WritesAtomic == 0},
		{"WriteAtomicAfterLoss", s.testAtomicAfterLoss, s.Has&WritesAtomic == 0},
		{"Grow", s.testGrow, s.Grow == nil},
		{"Reopen", s.testReopen, s.Reopen == nil},
	}
	for _, tt := range tests {
		if !tt.off {
			t.Run(tt.name, tt.run)
		}
	}
}

// testShape checks size, block size and the optional interfaces.
func (s DeviceSuite) testShape(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		d := s.Open(t, testSize, blockSize)
		if d.Size() != testSize || d.BlockSize() != blockSize {
			t.Errorf("size %d, block size %d; want %d, %d", d.Size(), d.BlockSize(), testSize, blockSize)
		}
		if got := capabilities(d); got != s.Has {
			t.Errorf("optional interfaces %06b, want %06b", got, s.Has)
		}
		if u, ok := d.(blockdev.Unmapper); ok && u.UnmapGranularity() < 512 {
			t.Errorf("unmap granularity %d", u.UnmapGranularity())
		}
	}
}

func (s DeviceSuite) testZerosAtFirst(t *testing.T) {
	d := s.Open(t, testSize, 512)
	equal(t, d, 0, make([]byte, testSize))
}
