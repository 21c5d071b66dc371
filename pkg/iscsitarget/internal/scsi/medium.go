package scsi

// ReadAt performs a part of a command of kind Read.
func (c *Command) ReadAt(p []byte, off int64) Status { return SenseInternalTargetFailure }

// ReadAtNowait is ReadAt where that does not block.
func (c *Command) ReadAtNowait(p []byte, off int64) (Status, bool) { return StatusGood, false }

// WriteAt performs a part of a command of kind Write.
func (c *Command) WriteAt(p []byte, off int64) Status { return SenseInternalTargetFailure }

// Finish ends a command of kind Write.
func (c *Command) Finish() Status { return SenseInternalTargetFailure }

// Decode decodes.
func (n *Nexus) Decode(lun [8]byte, cdb []byte) Command {
	return Command{Status: SenseInternalTargetFailure}
}
