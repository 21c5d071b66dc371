package isns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// accessKeys are the node types that are asked for: open-isns compares the whole
// bitmap, so a node that is both has a question of its own.
var accessKeys = []uint32{nodeInitiator, nodeInitiator | nodeTarget}

// maxWalk bounds the nodes that are asked for one by one.
const maxWalk = 1 << 14

// refresh asks which initiators share a discovery domain with each of targets.
func (s *session) refresh(ctx context.Context, targets []Target) error {
	if !s.config.AccessControl {
		return nil
	}
	for _, t := range targets {
		names, err := s.visible(ctx, t.Name)
		var status Status
		switch {
		case err == nil:
			s.access.set(t.Name, names)
			delete(s.failed, t.Name)
		case errors.As(err, &status):
			level := slog.LevelWarn
			if s.failed[t.Name] {
				level = slog.LevelDebug
			}
			s.failed[t.Name] = true
			s.log.Log(ctx, level, "The iSNS server does not say which initiators may see a target; its last answer holds", "target", t.Name, "err", err)
		default:
			return err
		}
	}
	return nil
}

// visible are the initiators that a target sees. The target is the source of the
// question, and its discovery domains bound the answer.
func (s *session) visible(ctx context.Context, target string) ([]string, error) {
	var all []string
	for _, kind := range accessKeys {
		names, err := s.query(ctx, target, kind)
		if errors.Is(err, InternalError) {
			// open-isns, where the answer is longer than 8 KiB.
			names, err = s.walk(ctx, target, kind)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

// query asks for all at once: DevAttrQry (RFC 4171 section 5.6.5.2).
func (s *session) query(ctx context.Context, target string, kind uint32) ([]string, error) {
	l, err := s.call(ctx, devAttrQry, false, request(target, attrs{number(tagNodeType, kind)}, attrs{none(tagNodeName), none(tagNodeType)}))
	if errors.Is(err, NoSuchEntry) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return initiators(l)
}

// walk asks for one after the other: DevGetNext (section 5.6.5.3).
func (s *session) walk(ctx context.Context, target string, kind uint32) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	key := none(tagNodeName)
	for {
		l, err := s.call(ctx, devGetNext, false, request(target, attrs{key}, attrs{number(tagNodeType, kind), none(tagNodeName), none(tagNodeType)}))
		if errors.Is(err, NoSuchEntry) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		next, err := initiators(l)
		if err != nil {
			return nil, err
		}
		if len(next) != 1 || seen[fold(next[0])] || len(seen) == maxWalk {
			return nil, fmt.Errorf("%w: %d initiators after %d others, want one more of at most %d", errFormat, len(next), len(seen), maxWalk)
		}
		seen[fold(next[0])] = true
		names = append(names, next[0])
		key = text(tagNodeName, next[0])
	}
}

// initiators are the names of the initiator nodes in an answer (RFC 4171 section
// 5.7.5.2): each node's name is followed by its other attributes.
func initiators(l attrs) ([]string, error) {
	var names []string
	var name string
	for _, a := range l {
		switch a.tag {
		case tagNodeName:
			name = a.text()
		case tagNodeType:
			kind, err := a.number()
			if err != nil {
				return nil, err
			}
			if kind&nodeInitiator != 0 && name != "" {
				names = append(names, name)
			}
			name = ""
		}
	}
	return names, nil
}
