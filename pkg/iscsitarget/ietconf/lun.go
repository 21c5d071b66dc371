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

// lunOption is one option of a Lun.
type lunOption struct {
	name string
	// set takes a value; the error says what would be right.
	set func(l *LUN, value string) error
	// get is the value as it is written; empty: not given.
	get func(l *LUN) string
	// standard is the value where it is not given; empty: none.
	standard string
	// ours is that IET has no such option: it is written only where it is
	// not at its default.
	ours bool
}

// lunOptions are in the order in which they are written.
var lunOptions = []lunOption{
	{name: "Path", set: setPath, get: func(l *LUN) string { return l.Path }},
	{name: "Type", set: setType, get: func(l *LUN) string { return string(l.Type) }, standard: string(FileIO)},
	{name: "IOMode", set: setIOMode, get: func(l *LUN) string { return string(l.IOMode) }, standard: string(WriteThrough)},
	{name: "ScsiId", set: setScsiID, get: func(l *LUN) string { return l.ScsiID }},
	{name: "ScsiSN", set: setScsiSN, get: func(l *LUN) string { return l.ScsiSN }},
	{name: "BlockSize", set: setBlockSize, get: func(l *LUN) string { return given(int64(l.BlockSize)) }},
	{name: "Blocks", set: setBlocks, get: func(l *LUN) string { return given(l.Blocks) }},
	{name: "Identity", set: setIdentity, get: func(l *LUN) string { return string(l.Identity) }, standard: string(IETIdentity), ours: true},
}

// given is a number, or nothing for 0.
func given(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// findLUNOption wants a name, whatever its case.
func findLUNOption(name string) (lunOption, error) {
	if strings.EqualFold(name, "Sectors") {
		name = "Blocks" // Sectors up to 1.4.19
	}
	var names []string
	for _, o := range lunOptions {
		if strings.EqualFold(o.name, name) {
			return o, nil
		}
		names = append(names, o.name)
	}
	return lunOption{}, fmt.Errorf("no option %.64q; there are %s", name, strings.Join(names, ", "))
}

// ParseLUN returns LUN number, 0 to 16383, with options as a Lun directive has
// them: "Path=/srv/a.img,Type=fileio". The error says what would be right.
func ParseLUN(number uint16, options string) (LUN, error) {
	if number > maxLUN {
		return LUN{}, fmt.Errorf("%d, want a number from 0 to %d", number, maxLUN)
	}
	return UpdateLUN(LUN{Number: number}, options)
}

// UpdateLUN returns old with options, such as "IOMode=ro", in the place of
// those that it has; what comes of it must be right as a whole.
func UpdateLUN(old LUN, options string) (LUN, error) {
	l := old
	l.defaults()
	if err := l.set(options); err != nil {
		return LUN{}, fmt.Errorf("%d: %w", l.Number, err)
	}
	if err := l.check(); err != nil {
		return LUN{}, fmt.Errorf("%d: %w", l.Number, err)
	}
	return l, nil
}

// parseLUN reads "Lun N Path=P,Type=T,...".
func parseLUN(p *parser, args []string) {
	n, err := parseNumber(args[0])
	if err != nil || n < 0 || n > maxLUN {
		p.fail("%.64q, want a number from 0 to %d", args[0], maxLUN)
		return
	}
	number := uint16(n)
	if line, there := p.luns[number]; there {
		p.fail("%d is there already, in line %d", n, line)
		return
	}
	l, err := ParseLUN(number, args[1])
	if err != nil {
		p.fail("%v", err)
		return
	}
	l.Line = p.line
	p.luns[number] = p.line
	p.target().LUNs = append(p.target().LUNs, l)
}

// defaults fills in the options that are not given.
func (l *LUN) defaults() {
	for _, o := range lunOptions {
		if o.standard != "" && o.get(l) == "" {
			_ = o.set(l, o.standard) // it is one of its values
		}
	}
}

// set takes the list of options.
func (l *LUN) set(list string) error {
	if len(list) > maxLUNOption {
		return fmt.Errorf("options of %d bytes, at most %d are allowed", len(list), maxLUNOption)
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(word, "=")
		if !ok || !isWord(value) {
			return fmt.Errorf("%.64q, want Option=Value, with commas between and no blanks", word)
		}
		o, err := findLUNOption(name)
		if err != nil {
			return err
		}
		if seen[o.name] {
			return fmt.Errorf("%s is given twice", o.name)
		}
		seen[o.name] = true
		if err := o.set(l, value); err != nil {
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

func setPath(l *LUN, v string) error {
	l.Path = v
	return nil
}

func setIdentity(l *LUN, v string) error {
	switch i := Identity(strings.ToLower(v)); i {
	case IETIdentity, ModernIdentity:
		l.Identity = i
		return nil
	}
	return fmt.Errorf("option Identity=%.64q, want iet or modern", v)
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
	n, err := parseNumber(v)
	if err != nil || n < 512 || n > 4096 || n&(n-1) != 0 {
		return fmt.Errorf("option BlockSize=%.64q, want 512, 1024, 2048 or 4096", v)
	}
	l.BlockSize = int(n)
	return nil
}

// maxBlocks keeps the size in bytes within 63 bits at any block size.
const maxBlocks = 1 << 50

func setBlocks(l *LUN, v string) error {
	n, err := parseNumber(v)
	if err != nil || n < 1 || n > maxBlocks {
		return fmt.Errorf("option Blocks=%.64q, want a number from 1 to %d", v, int64(maxBlocks))
	}
	l.Blocks = n
	return nil
}
