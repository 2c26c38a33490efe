// The browser's half of the Data page: its address, the calendar, jobs that are watched while one is active.
(function () {
  "use strict";

  const DAY = 86400000;
  const DEFAULT_PERIOD = "90d";
  const WHEN = ["period", "start", "end"], TRUST = ["show", "month"], AT = ["day", "of", "ingestion"];
  const SAME = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const iso = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 10);
  const page = () => document.querySelector(".data-page");

  // --- the address ------------------------------------------------------------------------------------------------

  /** The canonical query string, as app/pages/data/address.py writes it, or only the parts that something depends on. */
  function canonical(query, { trust = true, at = true } = {}) {
    const found = new URLSearchParams();
    for (const name of WHEN) {
      const value = query.get(name);
      if (value && !(name === "period" && value === DEFAULT_PERIOD)) found.set(name, value);
    }
    [...new Set(query.getAll("account"))].sort().forEach((value) => found.append("account", value));
    if (trust) for (const name of TRUST) if (query.get(name) && query.get(name) !== "notices") found.set(name, query.get(name));
    if (at && query.get("backfill")) found.set("backfill", query.get("backfill"));
    if (at && query.get("day")) for (const name of AT) if (query.get(name)) found.set(name, query.get(name));
    const text = found.toString();
    return text ? "?" + text : "";
  }

  let synced = null;

  /** Inputs: address, accounts, dates. Returns the address, its parts that the panels depend on, and the accounts. */
  function sync(search, accounts, start, last, view, trust, plan, drawn) {
    const query = new URLSearchParams(search || "");
    const changed = (window.dash_clientside.callback_context.triggered || []).map((one) => one.prop_id);
    const by = (text) => changed.some((name) => name.includes(text));
    const before = canonical(query);
    if (by("data-account.value") && !by("data-url.")) {
      query.delete("account");
      (accounts || []).forEach((value) => query.append("account", value));
    }
    if (by("data-dates.") && start && last && drawn && (start !== drawn.days.start || last !== drawn.days.last)) {
      query.delete("period");
      query.set("start", start.slice(0, 10));
      query.set("end", iso(Date.parse(last.slice(0, 10) + "T00:00:00Z") + DAY)); // people name the last day, addresses the one after
    }
    const after = canonical(query), shown = canonical(query, { trust: false, at: false });
    const judged = canonical(query, { at: false }), planned = query.get("backfill") ? "?backfill=" + query.get("backfill") : "";
    // The same address once more is somebody who tries again: then everything is asked for.
    const again = by("data-url.") && after === synced;
    synced = after;
    const unless = (same, value) => (same === value && !again ? SAME() : value);
    document.querySelectorAll("#data-filters .count").forEach((place) => (place.textContent = query.getAll("account").length ? " (1)" : ""));
    return [before === after ? SAME() : after, unless(view, shown), unless(trust, judged), unless(plan, planned), query.getAll("account")];
  }

  function open(day, account) {
    const query = new URLSearchParams(location.search);
    for (const name of AT) query.delete(name);
    if (day) query.set("day", day);
    if (day && account) query.set("of", account);
    window.spendscope.go(canonical(query));
  }

  // --- the calendar -----------------------------------------------------------------------------------------------

  const ROW = 20, HEAD = 36, GAP = 2, LEAST = 12, MOST = 34;
  const CLASSES = { C: "complete", S: "settling", M: "missing", Q: "quarantined", R: "restating", ".": "none" };
  const SVG = "http://www.w3.org/2000/svg";
  let shown = null; // { start, days, names, letters, words, width, version }
  let cursor = null; // { column, row }
  let opener = null; // what gets the focus back when the side is closed

  function paint(drawn) {
    if (!drawn) return SAME();
    window.spendscope.drew(location.search);
    set("freshness", { children: drawn.freshness });
    set("status", { children: drawn.spoken });
    set("data-dates", { start_date: drawn.days.start, end_date: drawn.days.last });
    drawnVersion = drawn.version;
    shown = drawn.calendar && {
      start: Date.parse(drawn.calendar.start + "T00:00:00Z"), words: drawn.calendar.words, days: drawn.calendar.whole.length,
      names: ["All accounts", ...drawn.calendar.rows.map((row) => row[0])],
      letters: [drawn.calendar.whole, ...drawn.calendar.rows.map((row) => row[1])],
    };
    requestAnimationFrame(() => { draw(true); goToDay(); });
    return drawn.accounts.map(window.spendscope.option);
  }

  const dayAt = (column) => iso(shown.start + column * DAY);
  const columnOf = (day) => Math.round((Date.parse(day + "T00:00:00Z") - shown.start) / DAY);
  const top = (row) => HEAD + row * ROW + (row ? 6 : 0);

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** One path for each status, however many cells it has: a year of an organisation is a few dozen elements. */
  function draw(fresh) {
    const place = document.getElementById("calendar");
    if (!place || !shown) return;
    const names = document.createElement("div");
    names.className = "names";
    names.style.paddingTop = HEAD + "px";
    shown.names.forEach((name) => {
      const line = document.createElement("div");
      line.textContent = line.title = name;
      names.append(line);
    });
    const old = place.scrollLeft, first = !place.firstChild;
    place.replaceChildren(names);
    const room = place.clientWidth - names.offsetWidth - 4;
    const width = (shown.width = Math.max(LEAST, Math.min(MOST, Math.floor(room / shown.days))));
    place.append(picture(width));
    place.scrollLeft = fresh && first ? place.scrollWidth : old;
    mark();
    keepInSight(chosen());
    slide();
  }

  function picture(width) {
    const full = width * shown.days, height = top(shown.letters.length);
    const svg = element("svg", { width: full + 2, height, "aria-hidden": "true", focusable: "false" });
    const hatch = element("pattern", { id: "calendar-hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(element("rect", { width: 5, height: 5, class: "ground" }), element("rect", { width: 2.4, height: 5, class: "stripe" }));
    const defs = element("defs", {});
    defs.append(hatch);
    svg.append(defs, ...heads(width, height));
    const paths = { C: "", S: "", M: "", Q: "", R: "", ".": "" }, signs = { Q: "", R: "" };
    shown.letters.forEach((letters, row) => runs(letters, (letter, from, to) => {
      const y = top(row) + 1, high = ROW - GAP;
      if (letter === "C" || letter === "S") return void (paths[letter] += box(from * width, y, (to - from) * width, high));
      for (let column = from; column < to; column++) {
        const x = column * width, middle = x + width / 2 - GAP / 2, centre = y + high / 2;
        if (letter === ".") paths["."] += box(middle - 1, centre - 1, 2, 2);
        else if (letter === "Q") {
          paths.Q += box(x, y, width - GAP, high);
          signs.Q += `M${middle - 3} ${centre - 3}l6 6m0-6l-6 6`;
        } else paths[letter] += box(x + 1, y + 1, width - GAP - 2, high - 2);
        if (letter === "R") signs.R += box(middle - 2, centre - 2, 4, 4);
      }
    }));
    svg.append(element("path", { class: "cell complete", d: paths.C }), element("path", { class: "cell settling", d: paths.S }));
    let lines = "";
    for (let column = 1; column <= shown.days; column++) lines += `M${column * width - GAP / 2} ${HEAD}V${height}`;
    svg.append(element("path", { class: "gaps", d: lines, "stroke-width": GAP }));
    for (const letter of [".", "M", "Q", "R"]) svg.append(element("path", { class: "cell " + CLASSES[letter], d: paths[letter] }));
    svg.append(element("path", { class: "sign quarantined", d: signs.Q }), element("path", { class: "sign restating", d: signs.R }));
    svg.append(element("rect", { class: "chosen-day", visibility: "hidden" }), element("rect", { class: "cursor", visibility: "hidden" }));
    return svg;
  }

  /** The name of a month that began further left stays in sight. */
  function slide() {
    const place = document.getElementById("calendar");
    for (const text of place.querySelectorAll("text.month")) {
      const most = text.dataset.to - text.getComputedTextLength();
      text.setAttribute("x", Math.max(text.dataset.from, place.scrollLeft + 2));
      text.setAttribute("visibility", Math.max(text.dataset.from, place.scrollLeft) > most ? "hidden" : "visible");
    }
  }
  document.addEventListener("scroll", (event) => { if (event.target.id === "calendar") slide(); }, true);

  const box = (x, y, wide, high) => `M${x} ${y}h${wide}v${high}h${-wide}z`;

  function runs(letters, each) {
    for (let from = 0, to; from < letters.length; from = to) {
      to = from + 1;
      while (to < letters.length && letters[to] === letters[from]) to++;
      each(letters[from], from, to);
    }
  }

  /** Months, and under them the first day of each week. */
  function heads(width, height) {
    const found = [];
    let free = -1;
    for (let column = 0; column < shown.days; column++) {
      const day = new Date(shown.start + column * DAY), x = column * width;
      if (day.getUTCDate() === 1 || column === 0) {
        const left = Math.min(31 - day.getUTCDate() + 1, shown.days - column) * width;
        const month = left > 60 ? day.toLocaleDateString("en-GB", { month: "long", timeZone: "UTC" }) : day.toUTCString().slice(8, 11);
        const year = left > 96 ? " " + day.getUTCFullYear() : "";
        const from = x + (column ? 4 : 0);
        if (left > 26) found.push(element("text", { x: from, y: 13, class: "month", "data-from": from, "data-to": x + left - 8 }, month + year));
        if (column) found.push(element("path", { class: "month-line", d: `M${x - GAP / 2} 2V${height}` }));
      }
      if (day.getUTCDay() === 1 && x > free) {
        found.push(element("text", { x: x + (width - GAP) / 2, y: 29, class: "day" }, String(day.getUTCDate())));
        free = x + 18;
      }
    }
    return found;
  }

  /** Where the chosen day lies: outlined from top to bottom, and the account pointed at once more. */
  function chosen() {
    const query = new URLSearchParams(location.search), day = query.get("day");
    const column = day && shown ? columnOf(day) : -1;
    if (!(column >= 0 && column < shown.days)) return null;
    return { column, row: query.get("of") ? shown.names.indexOf(query.get("of"), 1) : -1 };
  }

  function mark() {
    const svg = document.querySelector("#calendar svg");
    if (!svg) return;
    const at = chosen(), band = svg.querySelector(".chosen-day"), spot = svg.querySelector(".cursor"), width = shown.width;
    show(band, at && { x: at.column * width - 1, y: HEAD - 1, width, height: top(shown.letters.length) - HEAD });
    const here = cursor || (at && at.row > 0 ? at : null);
    show(spot, here && { x: here.column * width - 1, y: top(here.row), width: width, height: ROW });
  }

  function show(rect, at) {
    rect.setAttribute("visibility", at ? "visible" : "hidden");
    for (const key in at || {}) rect.setAttribute(key, at[key]);
  }

  function keepInSight(at) {
    const place = document.getElementById("calendar");
    if (!at || !place) return;
    const names = place.firstChild.offsetWidth, x = at.column * shown.width;
    if (x < place.scrollLeft) place.scrollLeft = x - 40;
    if (x + shown.width > place.scrollLeft + place.clientWidth - names) place.scrollLeft = x + 60 + names - place.clientWidth;
  }

  function words(at) {
    const date = new Date(shown.start + at.column * DAY).toUTCString().slice(0, 16).replace(/, 0?/, " ");
    return { date, name: shown.names[at.row], status: shown.words[shown.letters[at.row][at.column]] || "not expected" };
  }

  function cellUnder(event) {
    const svg = event.target.closest && event.target.closest("#calendar svg");
    if (!svg || !shown) return null;
    const frame = svg.getBoundingClientRect(), y = event.clientY - frame.top;
    const column = Math.floor((event.clientX - frame.left) / shown.width);
    const row = y < HEAD + ROW ? 0 : Math.floor((y - HEAD - 6) / ROW);
    return y >= HEAD && column >= 0 && column < shown.days && row < shown.letters.length ? { column, row } : null;
  }

  function tip(at, event) {
    let place = document.getElementById("calendar-tip");
    if (!place) {
      place = document.createElement("div");
      place.id = "calendar-tip";
      document.body.append(place);
    }
    place.hidden = !at;
    if (!at) return;
    const { date, name, status } = words(at);
    const bold = document.createElement("b");
    bold.textContent = status;
    place.replaceChildren(`${date} · ${name}: `, bold);
    const wide = place.offsetWidth;
    place.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - wide - 8)) + "px";
    place.style.top = event.clientY + 18 + "px";
  }

  document.addEventListener("pointermove", (event) => {
    if (!page() || event.pointerType === "touch") return;
    const at = cellUnder(event);
    if (!at && !cursor) return;
    cursor = at;
    mark();
    tip(at, event);
  });

  document.addEventListener("click", (event) => {
    const at = page() && cellUnder(event);
    if (!at) return;
    opener = document.getElementById("calendar");
    cursor = at;
    open(dayAt(at.column), at.row ? shown.names[at.row] : null);
  });

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [-30, 0], PageDown: [30, 0], Home: [-1e6, 0], End: [1e6, 0] };

  document.addEventListener("keydown", (event) => {
    if (!page() || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && new URLSearchParams(location.search).get("day") && !document.querySelector(".dash-dropdown-content, .dash-datepicker-content")) return void close();
    if (event.target.id !== "calendar" || !shown) return;
    if ((event.key === "Enter" || event.key === " ") && cursor) {
      event.preventDefault();
      opener = event.target;
      focusSide = true;
      return void open(dayAt(cursor.column), cursor.row ? shown.names[cursor.row] : null);
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const from = cursor || chosen() || { column: shown.days, row: 0 };
    const within = (value, most) => Math.max(0, Math.min(most, value));
    cursor = { column: within(from.column + move[0], shown.days - 1), row: within(Math.max(from.row, 0) + move[1], shown.names.length - 1) };
    mark();
    keepInSight(cursor);
    const said = words(cursor);
    set("status", { children: `${said.date}, ${said.name}: ${said.status}` });
  });

  document.addEventListener("focusout", (event) => {
    if (event.target.id !== "calendar" || !shown) return;
    cursor = null;
    mark();
  });

  function goToDay() {
    const place = document.querySelector("[data-go]");
    if (!place || !shown || place.firstChild) return;
    const label = document.createElement("label"), field = document.createElement("input");
    label.textContent = "Go to day ";
    field.type = "date";
    field.addEventListener("change", () => { if (field.value) { opener = field; open(field.value, null); } });
    label.append(field);
    place.append(label);
  }

  let lastWidth = 0;
  new ResizeObserver(() => {
    const place = document.getElementById("calendar");
    if (!place || place.clientWidth === lastWidth) return;
    lastWidth = place.clientWidth;
    draw(false);
  }).observe(document.documentElement);

  // --- the side ---------------------------------------------------------------------------------------------------

  let focusSide = false;

  function close() {
    open(null, null);
    if (opener && document.contains(opener)) opener.focus({ preventScroll: true });
  }

  /** A panel's links know what the panel depends on; the rest of the address stays as it is. */
  function keep(link) {
    if (link.closest(".data-side") || link.classList.contains("reset")) return;
    const now = new URLSearchParams(location.search), to = new URL(link.href);
    const at = link.closest("#data-periods") || (link.closest("#trust-panel") && !to.searchParams.get("day")) ? AT : [];
    for (const name of [...(link.closest("#trust-panel") ? [] : TRUST), "backfill", ...at])
      if (!to.searchParams.has(name) && now.get(name)) to.searchParams.set(name, now.get(name));
    link.href = to.pathname + canonical(to.searchParams);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[data-set]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const query = new URLSearchParams(location.search), [name, value] = link.dataset.set.split("=");
    if (value) query.set(name, value); else query.delete(name);
    window.spendscope.go(canonical(query));
  });

  document.addEventListener("click", (event) => {
    const link = page() && event.target.closest && event.target.closest("a[data-internal]");
    if (!link) return;
    keep(link);
    if (link.dataset.close !== undefined) return void (opener && setTimeout(() => opener.focus({ preventScroll: true }), 0));
    if (new URL(link.href).searchParams.get("day") && !link.closest(".data-side")) { opener = link; focusSide = event.detail === 0; }
  }, true);

  /** After the side has been drawn. */
  function beside(children) {
    requestAnimationFrame(() => requestAnimationFrame(() => {
      draw(false);
      const title = document.getElementById("day-title");
      if (focusSide && title) title.focus({ preventScroll: true });
      focusSide = false;
      const account = document.querySelector(".day-accounts tr.chosen");
      if (account) account.scrollIntoView({ block: "nearest" });
      if (children && title) set("status", { children: `${title.textContent}: ${document.querySelector(".day-state b").textContent}` });
    }));
    return SAME();
  }

  // --- jobs -------------------------------------------------------------------------------------------------------

  const OFTEN = 1500, LATER = 5000, LONG = 60000;
  let drawnVersion = null, activeSince = 0, redrawn = 0, tries = 0, state = null, timer = 0, ticks = 0, wasActive = null;

  /** Asks again only while a job is active, or until the page has been drawn from what the last one left. */
  function live(found) {
    if (!found) return SAME();
    state = found;
    activeSince = found.active ? activeSince || Date.now() : 0;
    if (wasActive !== null && wasActive !== found.active) set("status", { children: found.words });
    wasActive = found.active;
    const old = drawnVersion !== null && found.version !== drawnVersion;
    tries = old ? tries + 1 : 0;
    if (old && Date.now() - redrawn > 2900) { redrawn = Date.now(); set("data-again", { data: ++ticks }); }
    const goOn = found.active || (old && tries < 12);
    clearTimeout(timer);
    if (goOn) timer = setTimeout(poll, found.active && Date.now() - activeSince > LONG ? LATER : OFTEN);
    return SAME();
  }

  function poll() {
    clearTimeout(timer);
    if (!page() || document.hidden) return;
    timer = setTimeout(poll, LATER + 3000); // an answer puts it off; without one, try again
    set("data-tick", { data: ++ticks });
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden && page() && state) poll(); });

  document.addEventListener("click", (event) => {
    const button = page() && event.target.closest && event.target.closest("button[data-job], button[data-cancel]");
    if (button) act(button);
  });

  async function act(button) {
    const cancels = button.dataset.cancel;
    button.disabled = true;
    try {
      const answer = cancels ? await fetch(cancels, { method: "DELETE" })
        : await fetch("/api/v1/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: button.dataset.job });
      const body = await answer.json().catch(() => ({}));
      const known = !cancels && answer.ok && Date.now() - Date.parse(body.created) > 3000;
      window.spendscope.toast(!answer.ok ? body.detail || `The server could not do it (error ${answer.status}).`
        : cancels ? (body.status === "cancelled" ? "Cancelled" : "It had ended before") : known ? "That job is already queued or running" : "Queued");
      if (answer.ok) poll();
    } catch (error) {
      window.spendscope.toast("No connection to the server. Nothing was changed.");
    }
    button.disabled = false;
  }

  /** A download that cannot be had says why instead of opening a page of JSON. */
  document.addEventListener("click", async (event) => {
    const link = event.target.closest && event.target.closest("a[data-download]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || link.dataset.checked) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href, { method: "HEAD" });
      if (answer.ok) {
        link.dataset.checked = "yes";
        link.click();
        delete link.dataset.checked;
        return;
      }
      const problem = await fetch(link.href).then((again) => again.json()).catch(() => ({}));
      window.spendscope.toast(problem.detail || `The file cannot be had (error ${answer.status}).`);
    } catch (error) {
      window.spendscope.toast("No connection to the server. Nothing was downloaded.");
    }
  });

  // --- how long ago -----------------------------------------------------------------------------------------------

  function tellTime() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const seconds = Math.max((Date.now() - Date.parse(time.dateTime)) / 1000, 0);
      const text = seconds < 45 ? "just now" : seconds < 5400 ? `${Math.round(seconds / 60)} min ago`
        : seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  }
  setInterval(tellTime, 15000);
  Object.assign(window.spendscope, { tellTime });
  let told = false;
  new MutationObserver(() => {
    if (told || !page()) return;
    told = true;
    requestAnimationFrame(() => { told = false; tellTime(); });
  }).observe(document.documentElement, { childList: true, subtree: true });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { spendscope_data: { sync, paint, beside, live } });
})();
