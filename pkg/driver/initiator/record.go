package initiator

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// setting is one line of a record file.
type setting struct {
	key, value string
	// known: write the line only where open-iscsi wrote one of that key
	// itself; an older release would not understand it.
	known bool
}

const (
	recordBegin = "# BEGIN RECORD"
	recordEnd   = "# END RECORD"
	// maxRecord bounds a record file; real ones have 3 KiB.
	maxRecord = 64 << 10
)

// completeRecord returns a record that open-iscsi wrote with the settings in
// place of its own. An empty value removes the line: the host's iscsid.conf
// may have put one there. Values must not hold line breaks.
func completeRecord(record []byte, settings []setting) ([]byte, error) {
	if len(record) > maxRecord || !bytes.HasPrefix(record, []byte(recordBegin)) {
		return nil, fmt.Errorf("not an open-iscsi record")
	}
	body, _, ok := strings.Cut(string(record), recordEnd)
	if !ok {
		return nil, fmt.Errorf("the open-iscsi record is cut short")
	}
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	for _, s := range settings {
		if strings.ContainsAny(s.value, "\r\n\x00") {
			return nil, fmt.Errorf("the value of %s has a line break", s.key)
		}
		lines = applySetting(lines, s)
	}
	return []byte(strings.Join(lines, "\n") + "\n" + recordEnd + "\n"), nil
}

// applySetting puts s where the first line of that key is, drops the others,
// and appends it where there is none.
func applySetting(lines []string, s setting) []string {
	done := s.value == "" || s.known
	out := lines[:0:0]
	for _, line := range lines {
		key, _, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) != s.key {
			out = append(out, line)
			continue
		}
		if s.value != "" && (!done || s.known) {
			out = append(out, s.key+" = "+s.value)
			done, s.known = true, false
		}
	}
	if !done {
		out = append(out, s.key+" = "+s.value)
	}
	return out
}

// recordSettings are what a volume's record says apart from open-iscsi's
// defaults. replacement is how long I/O waits for a lost session.
func (i *Initiator) recordSettings(l Login, replacement time.Duration) []setting {
	return []setting{
		{key: "node.startup", value: "manual"},
		{key: "node.conn[0].startup", value: "manual"},
		{key: "node.leading_login", value: "No", known: true},
		{key: "iface.initiatorname", value: i.cfg.InitiatorName},
		{key: "node.session.nr_sessions", value: "1", known: true},
		{key: "node.session.scan", value: "auto", known: true},
		{key: "node.session.initial_login_retry_max", value: "2"},
		{key: "node.session.timeo.replacement_timeout", value: seconds(replacement)},
		{key: "node.conn[0].timeo.login_timeout", value: "5"},
		{key: "node.conn[0].timeo.logout_timeout", value: "5"},
		{key: "node.conn[0].timeo.noop_out_interval", value: "10"},
		{key: "node.conn[0].timeo.noop_out_timeout", value: "30"},
		{key: "node.session.auth.authmethod", value: "CHAP"},
		{key: "node.session.auth.chap_algs", value: "SHA256,MD5", known: true},
		{key: "node.session.auth.username", value: l.Username},
		{key: "node.session.auth.password", value: l.Secret},
		{key: "node.session.auth.username_in", value: l.MutualUser},
		{key: "node.session.auth.password_in", value: l.MutualSecret},
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Round(time.Second) / time.Second)) }
