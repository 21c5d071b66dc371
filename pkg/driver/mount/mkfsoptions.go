package mount

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxMkfsOptions bounds the options of one volume, in bytes.
const maxMkfsOptions = 512

// mkfsOption is an option of mkfs that a StorageClass may set: what it shapes
// is the file system and nothing else. Not there are those that name a file or
// a device, give the size, force, only pretend, or give all volumes one label
// or UUID.
type mkfsOption struct {
	// sub are the suboptions that may be in its comma-separated value; nil
	// is a plain value.
	sub []string
	// features: the value is a list of feature names, each maybe with a ^.
	features bool
	// always begins the value: what mkfs would forget of its own options.
	always string
}

var (
	plain    = mkfsOption{}
	features = mkfsOption{features: true}
)

func sub(names ...string) mkfsOption { return mkfsOption{sub: names} }

// mkfsOptions are mke2fs(8)'s and mkfs.xfs(8)'s.
var mkfsOptions = map[string]map[string]mkfsOption{
	"ext4": {
		"-b": plain, "-C": plain, "-g": plain, "-G": plain, "-i": plain, "-I": plain, "-m": plain, "-N": plain, "-T": plain,
		"-O": features,
		"-J": sub("size", "fast_commit_size"),
		// The last -E counts alone.
		"-E": {always: "nodiscard,", sub: []string{
			"stride", "stripe_width", "stripe-width", "resize", "lazy_itable_init", "lazy_journal_init", "packed_meta_blocks",
			"num_backup_sb", "root_owner", "root_perms", "hash_seed", "encoding", "encoding_flags", "orphan_file_size",
			"mmp_update_interval", "quotatype",
		}},
	},
	"xfs": {
		"-b": sub("size"),
		"-d": sub("agcount", "agsize", "sunit", "swidth", "su", "sw", "noalign", "sectsize", "cowextsize", "extszinherit", "concurrency"),
		"-i": sub("size", "perblock", "maxpct", "align", "attr", "sparse", "nrext64", "exchange"),
		"-l": sub("size", "version", "sunit", "su", "sectsize", "lazy-count", "concurrency"),
		"-m": sub("crc", "finobt", "inobtcount", "rmapbt", "reflink", "bigtime", "metadir", "autofsck"),
		"-n": sub("size", "version", "ftype", "parent"),
		"-s": sub("size"),
	},
}

// ParseMkfsOptions splits the mkfs options of a StorageClass at blanks, and
// returns ErrUnsupported for each that is not known to be harmless. There is no
// quoting, and no character in a value with which one could be escaped.
func ParseMkfsOptions(fsType, options string) ([]string, error) {
	known := mkfsOptions[fsType]
	if known == nil {
		return nil, CheckFilesystem(fsType)
	}
	if len(options) > maxMkfsOptions {
		return nil, fmt.Errorf("%w: mkfs options of %d bytes; at most %d are taken", ErrUnsupported, len(options), maxMkfsOptions)
	}
	var args []string
	for words := strings.Fields(options); len(words) > 0; words = words[2:] {
		option, ok := known[words[0]]
		if !ok {
			return nil, fmt.Errorf("%w: mkfs option %q of %s; there are %s", ErrUnsupported, words[0], fsType,
				strings.Join(slices.Sorted(maps.Keys(known)), " "))
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("%w: mkfs option %s of %s without its value, after a blank", ErrUnsupported, words[0], fsType)
		}
		if err := option.check(words[1]); err != nil {
			return nil, fmt.Errorf("%w: mkfs option %s of %s: %w", ErrUnsupported, words[0], fsType, err)
		}
		args = append(args, words[0], option.always+words[1])
	}
	return args, nil
}

func (o mkfsOption) check(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		name, v, given := strings.Cut(part, "=")
		switch {
		case o.features:
			v = strings.TrimPrefix(part, "^")
		case o.sub == nil:
			v = value
		case !slices.Contains(o.sub, name):
			return fmt.Errorf("%q is not one of %s", name, strings.Join(o.sub, " "))
		case !given:
			continue
		}
		if !isMkfsValue(v) || o.features && v == "journal_dev" {
			return fmt.Errorf("%q is no value for it", part)
		}
	}
	return nil
}

// isMkfsValue takes numbers with units, names and owners; never a path, and
// never what begins an option.
func isMkfsValue(v string) bool {
	if v == "" || v[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(v, func(r rune) bool {
		letter := r|0x20 >= 'a' && r|0x20 <= 'z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune("._:-", r)
	})
}
