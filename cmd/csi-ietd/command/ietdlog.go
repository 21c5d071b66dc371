package command

import (
	"context"
	"io"
	"log/slog"
	"log/syslog"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietd"
)

// logHandler logs to stderr in the foreground and to syslog in the background, what is
// of the debug level or below it.
func (o *ietdOptions) logHandler(stderr io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: [...]slog.Level{ietd.LevelDebug0, ietd.LevelDebug1, ietd.LevelDebug2}[o.debug]}
	format := func(w io.Writer, options *slog.HandlerOptions) slog.Handler {
		if o.logFormat == "json" {
			return slog.NewJSONHandler(w, options)
		}
		return slog.NewTextHandler(w, options)
	}
	if o.foreground {
		return format(stderr, options)
	}
	options.ReplaceAttr = withoutTime
	var h syslogHandler
	for i, priority := range syslogPriorities {
		h.byPriority[i] = format(&syslogWriter{priority: priority}, options)
	}
	return h
}

// withoutTime: syslog has its own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// The priorities of errors, warnings, the rest and debug messages.
var syslogPriorities = [...]syslog.Priority{syslog.LOG_ERR, syslog.LOG_WARNING, syslog.LOG_INFO, syslog.LOG_DEBUG}

// syslogHandler sends each record with the priority of its level.
type syslogHandler struct {
	byPriority [len(syslogPriorities)]slog.Handler
}

func (h syslogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.byPriority[0].Enabled(ctx, level)
}

func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	i := 3
	switch {
	case r.Level >= slog.LevelError:
		i = 0
	case r.Level >= slog.LevelWarn:
		i = 1
	case r.Level >= slog.LevelInfo:
		i = 2
	}
	return h.byPriority[i].Handle(ctx, r)
}

func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range h.byPriority {
		h.byPriority[i] = h.byPriority[i].WithAttrs(attrs)
	}
	return h
}

func (h syslogHandler) WithGroup(name string) slog.Handler {
	for i := range h.byPriority {
		h.byPriority[i] = h.byPriority[i].WithGroup(name)
	}
	return h
}

// syslogWriter connects with the first record, and again where syslog was restarted. A
// handler writes one record at a time.
type syslogWriter struct {
	priority syslog.Priority
	w        *syslog.Writer
}

func (s *syslogWriter) Write(b []byte) (int, error) {
	if s.w == nil {
		w, err := syslog.New(s.priority|syslog.LOG_DAEMON, "ietd")
		if err != nil {
			return 0, err
		}
		s.w = w
	}
	return s.w.Write(b)
}
