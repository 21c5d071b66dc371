package scsi

// decodeORWrite is ORWRITE(16), SBC-3 section 5.5: what comes is ORed into what
// the medium holds.
func decodeORWrite(r request) Command {
	c := decodeWrite(r)
	c.or = c.Kind == Write
	return c
}

// orAt ORs p into the medium, and has the blocks for itself meanwhile. That each
// part of the command does so by itself makes no difference to the outcome.
func (c *Command) orAt(p []byte, at int64) Status {
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	for len(p) > 0 {
		n := min(len(p), stepBytes)
		if st := c.orStep((*buffer)[:n], p[:n], at); st.code != Good {
			return st
		}
		p, at = p[n:], at+int64(n)
	}
	return StatusGood
}

func (c *Command) orStep(buffer, p []byte, at int64) Status {
	u := c.itl.unit
	u.guard.own(at, int64(len(p)))
	defer u.guard.disown(at, int64(len(p)))
	if n, err := u.device.ReadAt(buffer, at); n < len(buffer) && err != nil {
		return u.readFailed(err, at+int64(n))
	}
	for i := range buffer {
		buffer[i] |= p[i]
	}
	return c.changeAlone(at, int64(len(p)), func() error {
		_, err := u.device.WriteAt(buffer, at)
		return err
	})
}
