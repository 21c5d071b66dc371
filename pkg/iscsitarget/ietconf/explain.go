package ietconf

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// hidden stands for a password.
const hidden = "********"

// Explain writes what was understood of a configuration, for people: each
// directive with the value it has, "# default" after those that are not given,
// and the warnings. Passwords are not shown.
func Explain(w io.Writer, c *Config) error {
	e := &explainer{}
	fmt.Fprintf(&e.text, "# %s as it is understood; passwords are not shown\n", shown(c.File))
	e.line("", "iSNSServer", c.ISNSServer, c.ISNSServer != "")
	e.line("", "iSNSAccessControl", map[bool]string{true: "Yes", false: "No"}[c.ISNSAccessControl], c.ISNSAccessControl)
	e.accounts("", c.Discovery)
	for i := range c.Targets {
		t := &c.Targets[i]
		fmt.Fprintf(&e.text, "\nTarget %s\n", shown(t.Name))
		e.accounts("\t", t.Accounts)
		for _, l := range t.LUNs {
			e.lun(l)
		}
		for _, s := range settings {
			v, given := t.value(s)
			e.line("\t", s.name, v, given)
		}
	}
	fmt.Fprintf(&e.text, "\n# targets: %d, warnings: %d\n", len(c.Targets), len(c.Warnings))
	for _, p := range c.Warnings {
		fmt.Fprintf(&e.text, "# warning: %s\n", shown(p.Error()))
	}
	_, err := w.Write(e.text.Bytes())
	return err
}

// explainer is the state of one Explain.
type explainer struct{ text bytes.Buffer }

// line writes a directive and whether it is given.
func (e *explainer) line(indent, name, value string, given bool) {
	text := fmt.Sprintf("%s%s %s", indent, name, shown(value))
	switch {
	case value == "":
		text = fmt.Sprintf("%s# no %s", indent, name)
	case !given:
		text = fmt.Sprintf("%s%-30s # default", indent, strings.TrimPrefix(text, indent))
	}
	e.text.WriteString(text + "\n")
}

// accounts writes the users.
func (e *explainer) accounts(indent string, a Accounts) {
	for _, u := range a.Incoming {
		e.line(indent, "IncomingUser", u.User+" "+hidden, true)
	}
	if len(a.Incoming) == 0 {
		fmt.Fprintf(&e.text, "%s# no IncomingUser: no initiator need prove who it is\n", indent)
	}
	if a.Outgoing != nil {
		e.line(indent, "OutgoingUser", a.Outgoing.User+" "+hidden, true)
	} else {
		e.line(indent, "OutgoingUser", "", false)
	}
}

// lun writes a LUN with all options, and names those at their default.
func (e *explainer) lun(l LUN) {
	l.defaults()
	var words, defaults []string
	for _, o := range lunOptions {
		v := o.get(&l)
		if v == "" {
			continue
		}
		words = append(words, o.name+"="+v)
		if v == o.standard {
			defaults = append(defaults, o.name)
		}
	}
	text := fmt.Sprintf("%d %s", l.Number, shown(strings.Join(words, ",")))
	if len(defaults) > 0 {
		text += " # default: " + strings.Join(defaults, ", ")
	}
	e.line("\t", "Lun", text, true)
}
