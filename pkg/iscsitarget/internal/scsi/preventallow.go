package scsi

// decodePreventAllow is PREVENT ALLOW MEDIUM REMOVAL, SPC-4 section 6.17 (SBC-3
// section 5.9): the medium cannot be removed in any case.
func decodePreventAllow(r request) Command {
	if r.cdb[4]&^1 != 0 { // 2 and 3 are obsolete
		return r.fail(invalidField(4, 1))
	}
	return Command{}
}
