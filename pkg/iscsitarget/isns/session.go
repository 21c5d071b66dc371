package isns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// session is the life of one connection to the server.
type session struct {
	*Client
	conn   *conn
	noESI  bool // the server has none
	period time.Duration
	failed map[string]bool // targets whose access could not be asked for, said once
}

// session registers everything and keeps it so, until ctx ends or something
// fails.
func (c *Client) session(ctx context.Context) error {
	k, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer k.close()
	c.reachedAt(k.local(), k.remote())
	s := &session{Client: c, conn: k, period: c.config.RegistrationPeriod, failed: map[string]bool{}}
	if err := s.sync(ctx, true); err != nil {
		return err
	}
	alive := time.NewTicker(s.beat())
	defer alive.Stop()
	refresh := time.NewTicker(c.timing.refresh)
	defer refresh.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.done:
			return k.err
		case m := <-k.in:
			return fmt.Errorf("%w: %s that nobody asked for", errFormat, m.function)
		case <-c.changed:
			err = s.sync(ctx, false)
		case <-c.news.signal:
			err = s.hear(ctx)
		case <-refresh.C:
			err = s.refresh(ctx, c.having().targets)
		case <-alive.C:
			err = s.alive(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// beat is how often the server hears something: thrice in a registration period.
func (s *session) beat() time.Duration {
	return min(s.period/3, s.timing.alive)
}

func (s *session) call(ctx context.Context, f function, replace bool, payload []byte) (l attrs, err error) {
	err = within(ctx, s.timing.call, func(ctx context.Context) (err error) {
		l, err = s.conn.call(ctx, f, replace, payload)
		return err
	})
	return l, err
}

// sync makes what the server has what it is to have; all: it may have forgotten
// everything.
func (s *session) sync(ctx context.Context, all bool) error {
	s.mu.Lock()
	want, have := s.want, s.have
	s.mu.Unlock()
	now := want.resolve(s.conn.local(), s.inboxPort(), !s.noESI)
	if !have.empty() && (now.empty() || have.shared(now) == "") {
		// No node is left that may speak for the entity.
		if err := s.deregister(ctx, have.targets[0].Name, []attrs{{s.entity()}}); err != nil {
			return err
		}
		have, all = entry{}, true
		s.setHave(have, true)
		s.log.Info("Deregistered from the iSNS server", "entity", s.config.EntityID)
	}
	s.access.keep(now)
	if now.empty() {
		return nil
	}
	source := now.shared(have)
	if source == "" {
		source = now.targets[0].Name
	}
	todo := have.fresh(now)
	if all {
		todo = now.targets
	}
	gone := have.gone(now)
	if len(todo) == 0 && len(gone) == 0 {
		s.setHave(now, true)
		return nil
	}
	s.setHave(have.union(now), false)
	err := s.register(ctx, source, now, todo)
	if errors.Is(err, ESINotAvailable) && !s.noESI {
		s.log.Info("The iSNS server does not ask whether hosts are alive; registering without")
		s.noESI = true
		return s.sync(ctx, true)
	}
	if err != nil {
		return err
	}
	if err := s.deregister(ctx, source, gone); err != nil {
		return err
	}
	s.registered(want, now)
	if err := s.subscribe(ctx, now, todo); err != nil {
		return err
	}
	return s.refresh(ctx, todo)
}

// registered notes that the server has now, and says so; want may have changed
// since.
func (s *session) registered(want Registration, now entry) {
	s.mu.Lock()
	same := slices.Equal(want.Targets, s.want.Targets) && slices.Equal(want.Portals, s.want.Portals)
	s.mu.Unlock()
	s.setHave(now, same)
	s.log.Info("Registered with the iSNS server", "entity", s.config.EntityID,
		"targets", len(now.targets), "portals", len(now.portals), "period", s.period.String())
}

// register sends DevAttrReg (RFC 4171 section 5.6.5.1): the entity, its portals
// and the targets of todo.
func (s *session) register(ctx context.Context, source string, now entry, todo []Target) error {
	entity := attrs{s.entity(), number(tagEntityProtocol, entityISCSI),
		number(tagRegistrationPeriod, seconds(s.config.RegistrationPeriod))}
	var objects []attrs
	for _, p := range now.portals {
		objects = append(objects, p.attrs(s.config.ESIInterval))
	}
	var groups []portal
	if s.grouped = s.grouped || now.grouped(); s.grouped {
		groups = now.portals
	}
	for _, t := range todo {
		objects = append(objects, t.attrs(groups))
	}
	for _, part := range batches(objects) {
		l, err := s.call(ctx, devAttrReg, !s.replaced, request(source, attrs{s.entity()}, append(slices.Clone(entity), part...)))
		if err != nil {
			return fmt.Errorf("registering entity %s: %w", s.config.EntityID, err)
		}
		s.replaced = true
		if a, ok := l.find(tagRegistrationPeriod); ok {
			if n, err := a.number(); err == nil && n > 0 {
				s.period = min(time.Duration(n)*time.Second, s.config.RegistrationPeriod)
			}
		}
	}
	return nil
}

// deregister sends DevDereg (section 5.6.5.4) for objects that are named by
// their keys. What the server refuses is logged: it may have none of them.
func (s *session) deregister(ctx context.Context, source string, keys []attrs) error {
	for _, part := range batches(keys) {
		_, err := s.call(ctx, devDereg, false, request(source, nil, part))
		var status Status
		if errors.As(err, &status) {
			s.log.Warn("The iSNS server did not deregister what is gone", "entity", s.config.EntityID, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// subscribe asks for State Change Notifications (section 5.6.5.5).
func (s *session) subscribe(ctx context.Context, now entry, targets []Target) error {
	if !now.reachable() {
		s.log.Info("No portal has the address that is used towards the iSNS server, so it sends no notifications; changes are noticed by asking",
			"addr", s.conn.local().String(), "every", s.timing.refresh.String())
		return nil
	}
	for _, t := range targets {
		_, err := s.call(ctx, scnReg, false, request(t.Name, attrs{text(tagNodeName, t.Name)}, attrs{number(tagSCNBitmap, uint32(wantedEvents))}))
		var status Status
		if errors.As(err, &status) {
			s.log.Warn("The iSNS server sends no notifications for a target; changes are noticed by asking", "target", t.Name, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// alive asks the server for each target's own record, which also keeps the
// registration (section 6.2.6); when one is missing all are registered anew.
func (s *session) alive(ctx context.Context) error {
	for _, t := range s.having().targets {
		l, err := s.call(ctx, devAttrQry, false, request(t.Name, attrs{text(tagNodeName, t.Name)}, attrs{none(tagNodeName)}))
		var status Status
		if err != nil && !errors.As(err, &status) {
			return err
		}
		switch status {
		case Success, NoSuchEntry, SourceUnknown, SourceAbsent:
		default:
			s.log.Warn("The iSNS server does not say whether it still has a target", "target", t.Name, "err", err)
			continue
		}
		if a, ok := l.find(tagNodeName); !ok || fold(a.text()) != fold(t.Name) {
			s.log.Warn("The iSNS server no longer has a target; registering again", "target", t.Name, "err", err)
			return s.sync(ctx, true)
		}
	}
	return nil
}

// hear acts upon notifications: access first, then the hook.
func (s *session) hear(ctx context.Context) error {
	waiting, more := s.news.take()
	have := s.having()
	told := targetsOf(waiting, have)
	if more {
		told = have.targets
	}
	err := s.refresh(ctx, told)
	if s.config.OnChange != nil {
		for _, n := range waiting {
			s.config.OnChange(n)
		}
	}
	return err
}
