package simulator

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// managedURLs are the URLs that the account blocks or permits. They are numbered in
// ascending order.
type managedURLs struct {
	mu   sync.Mutex
	last int
	list []managedURL
}

type managedURL struct {
	n     int
	entry object
}

// withLock calls f with the lock held. It seeds the list on first use.
func (m *managedURLs) withLock(s *Simulator, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == 0 {
		for i, host := range domains[:3] {
			action := orElse(i == 0, "permit", "block")
			m.add(s, managedURLEntry(object{"url": "https://" + host + "/offer", "action": action, "comment": "Added by the help desk"}))
		}
	}
	f()
}

// add adds an entry and returns it with its identifier. It returns nil if the list already
// has the URL.
func (m *managedURLs) add(s *Simulator, entry object) object {
	if slices.ContainsFunc(m.list, func(have managedURL) bool { return addressOf(have.entry) == addressOf(entry) }) {
		return nil
	}
	m.last++
	entry["id"] = s.seal("managed url", strconv.Itoa(m.last))
	m.list = append(m.list, managedURL{m.last, entry})
	return entry
}

// managedURLEntry returns the entry that create-managed-url makes from its argument, or nil
// if the argument is invalid.
func managedURLEntry(arg object) object {
	given := text(arg, "url")
	if !strings.Contains(given, "://") {
		given = "https://" + given
	}
	u, err := url.Parse(given)
	action, match := text(arg, "action"), cmp.Or(text(arg, "matchType"), "explicit")
	if err != nil || !strings.Contains(u.Hostname(), ".") || u.Fragment != "" ||
		action != "block" && action != "permit" || match != "explicit" && match != "domain" {
		return nil
	}
	port, err := strconv.Atoi(u.Port())
	entry := object{
		"scheme": u.Scheme, "domain": u.Hostname(), "port": orElse(err == nil, port, -1), "path": u.EscapedPath(), "queryString": u.RawQuery,
		"action": action, "matchType": match, "comment": text(arg, "comment"),
	}
	for _, name := range []string{"disableRewrite", "disableUserAwareness", "disableLogClick"} {
		entry[name] = text(arg, name) == "true"
	}
	return entry
}

// addressOf returns what identifies an entry. Entries that differ only in the action are
// the same.
func addressOf(entry object) string {
	address := text(entry, "scheme") + "://" + text(entry, "domain")
	if port := text(entry, "port"); port != "-1" {
		address += ":" + port
	}
	address += text(entry, "path")
	if query := text(entry, "queryString"); query != "" {
		address += "?" + query
	}
	return address
}

func (s *Simulator) listManagedURLs(c *call) result {
	wanted, exact := c.arg("domainOrUrl"), c.arg("exactMatch") == "true"
	byNumber := map[int]object{}
	var numbers []int
	s.managed.withLock(s, func() {
		for _, m := range s.managed.list {
			if m.matches(wanted, exact) {
				numbers, byNumber[m.n] = append(numbers, m.n), m.entry // entries are immutable
			}
		}
	})
	page, meta, ok := s.pageOf("managed urls", c, numbers)
	if !ok {
		return invalidPageToken
	}
	res := result{page: meta}
	for _, n := range page {
		res.data = append(res.data, byNumber[n])
	}
	return res
}

func (m managedURL) matches(wanted string, exact bool) bool {
	address := addressOf(m.entry)
	if exact {
		return wanted == address || wanted == text(m.entry, "domain")
	}
	return strings.Contains(address, wanted)
}

// createManagedURLs counts each creation by its idempotency key, or else by its URL.
func (s *Simulator) createManagedURLs(c *call) result {
	var res result
	for _, item := range c.Data {
		entry := managedURLEntry(item)
		if entry == nil {
			res.fail = append(res.fail, failure(item, "err_managed_url_invalid", "The URL is invalid, or action or matchType is"))
			continue
		}
		s.journal.execute("create-managed-url", executionID(c.header, text(item, "url")))
		s.managed.withLock(s, func() {
			switch {
			case len(s.managed.list) >= maxRules:
				res.fail = append(res.fail, failure(item, "err_managed_url_limit", "There are too many managed URLs"))
			case s.managed.add(s, entry) == nil:
				res.fail = append(res.fail, failure(item, "err_managed_url_exists_code", "The URL already exists"))
			default:
				res.data = append(res.data, entry)
			}
		})
	}
	return res
}

// deleteManagedURLs counts each deletion, even if the entry is gone.
func (s *Simulator) deleteManagedURLs(c *call) result {
	var res result
	for _, item := range c.Data {
		id := text(item, "id")
		s.journal.execute("delete-managed-url", id)
		s.managed.withLock(s, func() {
			before := len(s.managed.list)
			s.managed.list = slices.DeleteFunc(s.managed.list, func(m managedURL) bool { return m.entry["id"] == id })
			if len(s.managed.list) == before {
				res.fail = append(res.fail, failure(item, "err_managed_url_not_found", "There is no such managed URL"))
			}
		})
	}
	return res
}
