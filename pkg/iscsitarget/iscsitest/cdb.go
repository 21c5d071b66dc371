package iscsitest

import "encoding/binary"

// TestUnitReady is the CDB of TEST UNIT READY.
func TestUnitReady() []byte { return make([]byte, 6) }

// Read is the CDB of READ(10).
func Read(lba, blocks int) []byte { return ten(0x28, lba, blocks) }

// Write is the CDB of WRITE(10).
func Write(lba, blocks int) []byte { return ten(0x2a, lba, blocks) }

// SynchronizeCache is the CDB of SYNCHRONIZE CACHE(10) for the whole medium.
func SynchronizeCache() []byte { return ten(0x35, 0, 0) }

// WriteSame is the CDB of WRITE SAME(10).
func WriteSame(lba, blocks int) []byte { return ten(0x41, lba, blocks) }

// Inquiry is the CDB of INQUIRY for standard data.
func Inquiry(allocation int) []byte {
	return []byte{0x12, 0, 0, byte(allocation >> 8), byte(allocation), 0}
}

// ReportLUNs is the CDB of REPORT LUNS.
func ReportLUNs(allocation int) []byte {
	cdb := make([]byte, 12)
	cdb[0] = 0xa0
	binary.BigEndian.PutUint32(cdb[6:], uint32(allocation))
	return cdb
}

func ten(op byte, lba, blocks int) []byte {
	cdb := make([]byte, 10)
	cdb[0] = op
	binary.BigEndian.PutUint32(cdb[2:], uint32(lba))
	binary.BigEndian.PutUint16(cdb[7:], uint16(blocks))
	return cdb
}

// LUN is a logical unit number in single-level peripheral addressing, 0 to 255.
func LUN(n byte) [8]byte { return [8]byte{0, n} }

// Ready takes the unit attentions that wait for a new session.
func (c *Client) Ready() {
	c.tb.Helper()
	for range 8 {
		if r := c.Do(Command{CDB: TestUnitReady()}); r.Status == 0 {
			return
		}
	}
	c.tb.Fatal("iscsitest: the unit does not get ready")
}
