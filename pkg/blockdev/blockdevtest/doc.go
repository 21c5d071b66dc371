// Package blockdevtest is the conformance suite of package blockdev: every
// backend runs [DeviceSuite] and, if it has a pool, [PoolSuite].
//
//	func TestDevice(t *testing.T) {
//		blockdevtest.DeviceSuite{
//			Open: func(t *testing.T, size int64, blockSize int) blockdev.Device { ... },
//			Has:  blockdevtest.Unmaps | blockdevtest.Zeroes,
//		}.Run(t)
//	}
package blockdevtest
