// Keeps the page as the proxy would render it now: it asks for the page again
// each second and takes over the parts that are marked data-live. So there is
// one renderer, on the server, and the page works without this script too.
'use strict';

(() => {
  const period = 1000;
  const patience = 5000;
  const byId = (id) => document.getElementById(id);

  let asked = 0;    // requests for the page so far
  let shown = 0;    // the one whose answer is shown
  let contact = new Date();
  let held = false;    // whether the list of requests is

  // Parts that a person is working with stay as they are.
  const inUse = (part) => {
    const selection = document.getSelection();
    return held && part.id === 'list' || !selection.isCollapsed && part.contains(selection.anchorNode);
  };

  const replace = (part, fresh) => {
    for (const details of part.querySelectorAll('details[open]')) {
      const same = fresh.querySelector('#' + details.id);
      if (same) same.open = true;
    }
    if (part.outerHTML === fresh.outerHTML || inUse(part)) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : '';
    part.replaceWith(document.adoptNode(fresh));
    if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
  };

  const take = (next) => {
    const script = 'script[src]';
    if (next.querySelector(script)?.getAttribute('src') !== document.querySelector(script).getAttribute('src')) {
      location.reload(); // the proxy is of another version now
      return;
    }
    const state = byId('verdict').dataset.state;
    for (const part of document.querySelectorAll('[data-live]')) {
      const fresh = next.getElementById(part.id);
      if (fresh) replace(part, fresh);
    }
    document.title = next.title;
    if (byId('verdict').dataset.state !== state) {
      byId('said').textContent = byId('verdict').textContent.trim();
    }
  };

  const setContact = (made) => {
    if (made) contact = new Date();
    byId('lost-since').textContent = contact.toISOString().slice(11, 19) + ' UTC';
    byId('lost').hidden = made;
    document.body.classList.toggle('stale', !made);
  };

  const refresh = async () => {
    const number = ++asked;
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: { Accept: 'text/html' },
        cache: 'no-store',
        signal: AbortSignal.timeout(patience),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error('status ' + answer.status);
      if (number < shown) return; // a later one was faster
      shown = number;
      setContact(true);
      take(new DOMParser().parseFromString(text, 'text/html'));
    } catch {
      if (number >= shown) setContact(false);
    }
  };

  const loop = async () => {
    if (!document.hidden) await refresh();
    setTimeout(loop, period);
  };

  const hold = byId('hold');
  const setHeld = (wanted) => {
    held = wanted;
    hold.setAttribute('aria-pressed', String(held));
    refresh();
  };
  hold.hidden = false;
  hold.addEventListener('click', () => setHeld(!held));

  const filter = byId('filter');
  const narrow = () => {
    const query = new URLSearchParams(new FormData(filter));
    if (!query.get('q')) query.delete('q');
    if (query.get('show') === 'all') query.delete('show');
    const text = query.toString();
    history.replaceState(null, '', text ? '?' + text : location.pathname);
    setHeld(false);
  };
  filter.addEventListener('input', narrow);
  filter.addEventListener('submit', (event) => { event.preventDefault(); narrow(); });

  const act = async (form) => {
    const label = form.querySelector('button').textContent;
    byId('acted').textContent = label + ' …';
    try {
      const answer = await fetch(form.getAttribute('action'), { method: 'POST', headers: { Accept: 'application/json' } });
      const told = await answer.json();
      byId('acted').textContent = label + ': ' + (answer.ok ? 'done.' : told.message);
    } catch {
      byId('acted').textContent = label + ': the proxy did not answer.';
    }
    refresh();
  };
  document.addEventListener('submit', (event) => {
    if (!event.target.matches('form.action')) return;
    event.preventDefault();
    act(event.target);
  });

  document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
  document.body.classList.add('scripted');
  setTimeout(loop, period);
})();
