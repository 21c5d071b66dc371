package isns

import "sync"

// access keeps which initiators share a discovery domain with each target.
type access struct {
	mu    sync.RWMutex
	lists map[string]map[string]bool // folded names
}

func (a *access) allowed(target, initiator string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.lists[fold(target)][fold(initiator)]
}

// set replaces a target's list.
func (a *access) set(target string, initiators []string) {
	list := make(map[string]bool, len(initiators))
	for _, i := range initiators {
		list[fold(i)] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lists == nil {
		a.lists = map[string]map[string]bool{}
	}
	a.lists[fold(target)] = list
}

// keep forgets all targets but those of e.
func (a *access) keep(e entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := make(map[string]map[string]bool, len(e.targets))
	for _, t := range e.targets {
		if list, ok := a.lists[fold(t.Name)]; ok {
			kept[fold(t.Name)] = list
		}
	}
	a.lists = kept
}
