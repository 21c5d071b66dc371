package ietconf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxLUN       = 0x3fff
	maxLUNOption = 2048 // bytes of the options of one Lun
	maxScsiID    = 16
	maxScsiSN    = 32
)

// lunOption sets one option of a Lun; the error says what would be right.
type lunOption func(l *LUN, value string) error

// lunOptions by their name in lower case.
var lunOptions = map[string]lunOption{
	"path":      func(l *LUN, v string) error { l.Path = v; return nil },
	"type":      setType,
	"iomode":    setIOMode,
	"scsiid":    setScsiID,
	"scsisn":    setScsiSN,
	"blocksize": setBlockSize,
	"blocks":    setBlocks,
	"sectors":   setBlocks, // its name up to 1.4.19
}

// parseLUN reads "Lun N Path=P,Type=T,...".
func parseLUN(p *parser, args []string) {
	n, err := strconv.ParseUint(args[0], 0, 64)
	if err != nil || n > maxLUN {
		p.fail("%.64q, want a number from 0 to %d", args[0], maxLUN)
		return
	}
	for _, other := range p.target().LUNs {
		if other.Number == uint16(n) {
			p.fail("%d is there already, in line %d", n, other.Line)
			return
		}
	}
	l := LUN{Number: uint16(n), Type: FileIO, IOMode: WriteThrough, Line: p.line}
	if err := l.set(args[1]); err != nil {
		p.fail("%d: %v", n, err)
		return
	}
	if err := l.check(); err != nil {
		p.fail("%d: %v", n, err)
		return
	}
	p.target().LUNs = append(p.target().LUNs, l)
}

// set takes the list of options.
func (l *LUN) set(list string) error {
	if len(list) > maxLUNOption {
		return fmt.Errorf("options of %d bytes, at most %d are allowed", len(list), maxLUNOption)
	}
	seen := map[string]bool{}
	for _, word := range strings.Split(list, ",") {
		name, value, ok := strings.Cut(word, "=")
		if !ok || value == "" {
			return fmt.Errorf("%.64q, want Option=Value, with commas between and no blanks", word)
		}
		name = strings.ToLower(name)
		set, known := lunOptions[name]
		if !known {
			return fmt.Errorf("no option %.64q; there are Path, Type, IOMode, ScsiId, ScsiSN, BlockSize and Blocks", name)
		}
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		if err := set(l, value); err != nil {
			return err
		}
	}
	return nil
}

// check wants what the type of the LUN needs.
func (l *LUN) check() error {
	switch {
	case l.Type == NullIO && l.Path != "":
		return errors.New("a Path, which Type=nullio does not have")
	case l.Type != NullIO && l.Path == "":
		return fmt.Errorf("no Path: want Path=FILE,Type=%s", l.Type)
	case l.Type != NullIO && l.Blocks != 0:
		return errors.New("option Blocks is for Type=nullio alone")
	}
	return nil
}

func setType(l *LUN, v string) error {
	switch t := Type(strings.ToLower(v)); t {
	case FileIO, BlockIO, NullIO:
		l.Type = t
		return nil
	}
	return fmt.Errorf("option Type=%.64q, want fileio, blockio or nullio", v)
}

func setIOMode(l *LUN, v string) error {
	switch m := IOMode(strings.ToLower(v)); m {
	case WriteThrough, WriteBack, ReadOnly:
		l.IOMode = m
		return nil
	}
	return fmt.Errorf("option IOMode=%.64q, want wt, wb or ro", v)
}

func setScsiID(l *LUN, v string) error {
	if len(v) > maxScsiID {
		return fmt.Errorf("option ScsiId has %d bytes, at most %d are allowed", len(v), maxScsiID)
	}
	l.ScsiID = v
	return nil
}

func setScsiSN(l *LUN, v string) error {
	if len(v) > maxScsiSN || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("option ScsiSN of %d bytes, want at most %d printable ASCII characters", len(v), maxScsiSN)
	}
	l.ScsiSN = v
	return nil
}

func setBlockSize(l *LUN, v string) error {
	n, err := strconv.ParseInt(v, 0, 32)
	if err != nil || n < 512 || n > 4096 || n&(n-1) != 0 {
		return fmt.Errorf("option BlockSize=%.64q, want 512, 1024, 2048 or 4096", v)
	}
	l.BlockSize = int(n)
	return nil
}

// maxBlocks keeps the size in bytes within 63 bits at any block size.
const maxBlocks = 1 << 50

func setBlocks(l *LUN, v string) error {
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil || n < 1 || n > maxBlocks {
		return fmt.Errorf("option Blocks=%.64q, want a number from 1 to %d", v, int64(maxBlocks))
	}
	l.Blocks = n
	return nil
}
