// Keeps the page as the proxy would render it now: it requests the page again
// each second and takes over the parts that are marked data-live. So there is
// one renderer, on the server, and the page works without this script too.
'use strict';

(() => {
  const period = 1000;
  const patience = 5000;
  const byId = (id) => document.getElementById(id);

  let asked = 0;    // requests for the page so far
  let shown = 0;    // the one whose response is shown
  let contact = new Date();
  let held = false;    // whether the list of requests is
  let local = false;   // whether times are local ones

  // Times are in UTC, as the server renders them, or in the browser's zone.
  const pad = (n) => String(n).padStart(2, '0');
  const write = (at, here) => here
    ? at.getFullYear() + '-' + pad(at.getMonth() + 1) + '-' + pad(at.getDate()) + ' ' + pad(at.getHours()) + ':' + pad(at.getMinutes()) + ':' + pad(at.getSeconds())
    : at.toISOString().slice(0, 19).replace('T', ' ');
  const zoneName = () => local ? 'local time' : 'UTC';
  const setTimes = (root) => {
    for (const time of root.querySelectorAll('time.at')) time.textContent = write(new Date(time.dateTime), local);
    for (const zone of root.querySelectorAll('.zone')) zone.textContent = zoneName();
  };

  // A plot can be pointed at, and used with the arrow keys.
  const last = (plot) => Number(plot.dataset.steps) - 1;
  const enhance = (root) => {
    if (local) setTimes(root);
    for (const plot of root.querySelectorAll('.plot')) {
      const svg = plot.querySelector('svg');
      plot.setAttribute('aria-label', svg.getAttribute('aria-label'));
      svg.setAttribute('aria-hidden', 'true');
      plot.setAttribute('role', 'slider');
      plot.tabIndex = 0;
      plot.setAttribute('aria-valuemin', '0');
      plot.setAttribute('aria-valuemax', String(last(plot)));
      plot.setAttribute('aria-valuenow', String(last(plot)));
      plot.setAttribute('aria-valuetext', 'Choose a time with the arrow keys');
    }
  };
  const read = (plot, step) => {
    step = Math.min(Math.max(step, 0), last(plot));
    const at = Number(plot.dataset.first) + step * Number(plot.dataset.seconds);
    const value = document.querySelector('#values [data-step="' + at + '"]');
    const text = value ? value.textContent : write(new Date(at * 1000), local) + ' ' + zoneName() + ': no requests';
    byId(plot.id + '-reading').textContent = text;
    plot.setAttribute('aria-valuenow', String(step));
    plot.setAttribute('aria-valuetext', text);
    const svg = plot.querySelector('svg');
    const box = svg.viewBox.baseVal;
    let cursor = svg.querySelector('.cursor');
    if (!cursor) {
      cursor = document.createElementNS(svg.namespaceURI, 'path');
      cursor.setAttribute('class', 'cursor');
      svg.append(cursor);
    }
    cursor.setAttribute('d', 'M' + (step + .4) * box.width / plot.dataset.steps + ' 0v' + box.height);
  };
  const unread = (plot) => {
    byId(plot.id + '-reading').textContent = '';
    plot.querySelector('.cursor')?.remove();
  };
  const plotOf = (event) => event.target instanceof Element ? event.target.closest('.plot') : null;
  document.addEventListener('pointermove', (event) => {
    const plot = plotOf(event);
    for (const other of document.querySelectorAll('.plot')) {
      if (other !== plot && other !== document.activeElement && byId(other.id + '-reading').textContent) unread(other);
    }
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    read(plot, Math.floor((event.clientX - box.left) / box.width * plot.dataset.steps));
  });
  document.addEventListener('keydown', (event) => {
    const plot = plotOf(event);
    if (!plot) return;
    const now = Number(plot.getAttribute('aria-valuenow'));
    const to = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - 12, PageUp: now + 12, Home: 0, End: last(plot) }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    read(plot, to);
  });
  document.addEventListener('focusin', (event) => { const plot = plotOf(event); if (plot) read(plot, Number(plot.getAttribute('aria-valuenow'))); });
  document.addEventListener('focusout', (event) => { const plot = plotOf(event); if (plot) unread(plot); });

  // Parts that a person is working with stay as they are.
  const inUse = (part) => {
    const selection = document.getSelection();
    return held && part.id === 'list' || !selection.isCollapsed && part.contains(selection.anchorNode)
      || part.querySelector('.plot:hover, .plot:focus, textarea:focus') !== null;
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
    enhance(next);
    const state = byId('health').dataset.state;
    for (const part of document.querySelectorAll('[data-live]')) {
      const fresh = next.getElementById(part.id);
      if (fresh) replace(part, fresh);
    }
    document.title = next.title;
    if (byId('health').dataset.state !== state) {
      byId('said').textContent = byId('health').textContent.trim();
    }
  };

  const setContact = (made) => {
    if (made) contact = new Date();
    byId('lost-since').textContent = write(contact, local) + ' ' + zoneName();
    byId('lost').hidden = made;
    document.body.classList.toggle('stale', !made);
  };

  const refresh = async () => {
    const number = ++asked;
    try {
      const response = await fetch(location.pathname + location.search, {
        headers: { Accept: 'text/html' },
        cache: 'no-store',
        signal: AbortSignal.timeout(patience),
      });
      const text = await response.text();
      if (!response.ok) throw new Error('status ' + response.status);
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

  // The choice of a zone outlives the page, where the browser lets it.
  const zone = byId('zone');
  const stored = {
    get: () => { try { return localStorage.getItem('zone'); } catch { return null; } },
    set: (value) => { try { localStorage.setItem('zone', value); } catch { /* it is forgotten */ } },
  };
  const setZone = (wanted) => {
    local = wanted;
    zone.setAttribute('aria-pressed', String(local));
    setTimes(document);
  };
  zone.hidden = false;
  zone.addEventListener('click', () => { setZone(!local); stored.set(local ? 'local' : 'UTC'); });

  // Without access to the clipboard the text is selected, to be copied by hand.
  const copy = byId('copy');
  copy.hidden = false;
  copy.addEventListener('click', async () => {
    const text = byId('ticket-text');
    try {
      await navigator.clipboard.writeText(text.value);
      byId('copied').textContent = 'Copied.';
    } catch {
      byId('ticket-more').open = true;
      text.focus();
      text.select();
      byId('copied').textContent = 'Selected: copy it with Ctrl+C or ⌘C.';
    }
  });

  // A link to a code opens the list that it is in.
  const openTarget = () => {
    const target = location.hash ? byId(decodeURIComponent(location.hash.slice(1))) : null;
    const around = target?.closest('details');
    if (!around || around.open) return;
    around.open = true;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  };
  window.addEventListener('hashchange', openTarget);

  const act = async (form) => {
    const label = form.querySelector('button').textContent;
    byId('acted').textContent = label + ' …';
    try {
      const response = await fetch(form.getAttribute('action'), { method: 'POST', headers: { Accept: 'application/json' } });
      const result = await response.json();
      byId('acted').textContent = label + ': ' + (response.ok ? 'done.' : result.message);
    } catch {
      byId('acted').textContent = label + ': no response from the proxy.';
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
  enhance(document);
  if (stored.get() === 'local') setZone(true);
  openTarget();
  setTimeout(loop, period);
})();
