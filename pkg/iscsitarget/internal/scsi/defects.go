package scsi

// Bits of READ DEFECT DATA's request and answer (SBC-3 section 5.16).
const (
	primaryList   = 1 << 4
	grownList     = 1 << 3
	defectFormats = 0x07
)

// decodeReadDefects10 is READ DEFECT DATA(10), SBC-3 section 5.16. Both lists are
// there and empty: what is under the medium replaces its own bad blocks.
func decodeReadDefects10(r request) Command {
	wanted := r.cdb[2] & (primaryList | grownList | defectFormats)
	return r.data([]byte{0, wanted, 0, 0}, bigEndian(r.cdb[7:9]))
}

// decodeReadDefects12 is READ DEFECT DATA(12), SBC-3 section 5.17.
func decodeReadDefects12(r request) Command {
	wanted := r.cdb[1] & (primaryList | grownList | defectFormats)
	return r.data([]byte{0, wanted, 0, 0, 0, 0, 0, 0}, bigEndian(r.cdb[6:10]))
}
