// The browser's half of the Anomalies page: its address, what is said of anomalies, the colours of the band chart.
(function () {
  "use strict";

  const PARTS = ["account", "service", "region"];
  const SAME = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const page = () => document.querySelector(".anomalies-page");
  const CHART = { type: "chart", name: "band" };
  let drawn = null, ticks = 0, timer = 0, opener = null, toFocus = false, back = false, shownId = null;

  /** The canonical query string, as app/pages/anomalies/address.py writes it. */
  function canonical(query) {
    const found = new URLSearchParams();
    [...new Set(query.getAll("state"))].forEach((value) => found.append("state", value));
    PARTS.forEach((part) => [...new Set(query.getAll(part))].sort().forEach((value) => found.append(part, value)));
    if (query.get("id")) found.set("id", query.get("id"));
    const text = found.toString();
    return text ? "?" + text : "";
  }

  /** Inputs: address and filters. Returns the address and the filters' values. */
  function sync(search, account, service, region) {
    const query = new URLSearchParams(search || "");
    const changed = (window.dash_clientside.callback_context.triggered || []).map((one) => one.prop_id);
    const before = canonical(query);
    if (changed.length && !changed.some((name) => name.includes("anomalies-url.")))
      [account, service, region].forEach((values, i) => {
        query.delete(PARTS[i]);
        (values || []).forEach((value) => query.append(PARTS[i], value));
      });
    const after = canonical(query);
    const chosen = PARTS.filter((part) => query.getAll(part).length).length;
    document.querySelectorAll("#anomalies-filters .count").forEach((place) => (place.textContent = chosen ? ` (${chosen})` : ""));
    return [after === before ? SAME() : after, ...PARTS.map((part) => query.getAll(part))];
  }

  function paint(found) {
    if (!found) return [SAME(), ...PARTS.map(SAME)];
    drawn = found;
    window.spendscope.drew(location.search);
    set("status", { children: found.spoken });
    clearTimeout(timer);
    if (found.counting) timer = setTimeout(() => page() && again(), 2000);
    requestAnimationFrame(() => requestAnimationFrame(beside));
    requestAnimationFrame(() => planForm(found.mayPlan, found.currency));
    return [found.figure ? window.spendscope.coloured(found.figure) : SAME(),
      ...PARTS.map((part) => found.options[part].map(window.spendscope.option))];
  }

  function beside() {
    window.spendscope.tellTime();
    const title = document.getElementById("anomaly-title");
    if (drawn.id !== shownId) document.querySelectorAll(".verdicts .reason").forEach((input) => (input.value = ""));
    shownId = drawn.id;
    if (toFocus && title) title.focus({ preventScroll: innerWidth > 1199 });
    if (back && opener && !drawn.id) setTimeout(() => find(opener).focus({ preventScroll: true }), 120); // after the page's own care for lost focus
    toFocus = back = false;
    mark();
  }

  new MutationObserver(() => {
    if (page() && drawn && drawn.figure) set(CHART, { figure: window.spendscope.coloured(drawn.figure) });
  }).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  const again = () => set("anomalies-again", { data: ++ticks });

  // --- opening and closing ----------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const link = page() && event.target.closest && event.target.closest("a[data-internal]");
    if (!link) return;
    if (link.dataset.close !== undefined) return void (back = true);
    if (new URL(link.href).searchParams.get("id")) { opener = link.getAttribute("href"); toFocus = true; }
  }, true);

  /** The link that opened it; the list may have been drawn again since. */
  const find = (href) => [...document.querySelectorAll("#anomalies-list a")].find((link) => link.getAttribute("href").includes(new URLSearchParams(href.split("?")[1]).get("id"))) || document.getElementById("main");

  document.addEventListener("keydown", (event) => {
    const side = page() && event.target.closest && event.target.closest("#anomaly-side");
    if (!side || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "Escape") return void side.querySelector("[data-close]").click();
    // Letters are for buttons only, and only while the focus is in this section.
    if (event.target.matches("input, textarea, select")) return;
    const button = side.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`);
    if (button) { event.preventDefault(); button.click(); }
  });

  // --- saying something -------------------------------------------------------------------------------------------

  const chosen = () => [...document.querySelectorAll('#anomalies-list [data-choose][aria-checked="true"]')].map((box) => box.dataset.choose);

  function mark() {
    const bulk = document.querySelector(".verdicts.bulk");
    if (bulk) bulk.classList.toggle("on", chosen().length > 0);
    if (bulk) bulk.firstChild.textContent = chosen().length ? `${chosen().length} chosen` : "Choose some to say something of them together";
  }
  document.addEventListener("click", (event) => {
    const box = page() && event.target.closest && event.target.closest("[data-choose]");
    if (!box) return;
    box.setAttribute("aria-checked", String(box.getAttribute("aria-checked") !== "true"));
    mark();
  });

  document.addEventListener("click", (event) => {
    const button = page() && event.target.closest && event.target.closest("button[data-say]");
    if (button) say(button);
  });

  async function say(button) {
    const ids = button.dataset.of === "one" ? [drawn && drawn.id].filter(Boolean) : chosen();
    const input = document.getElementById(`anomalies-reason-${button.dataset.of}`);
    if (!ids.length) return void window.spendscope.toast("Choose anomalies in the list first");
    if (button.dataset.say === "dismissed" && !input.value.trim()) {
      input.focus();
      return void window.spendscope.toast("Say why it is dismissed: the next one like it is silenced by it");
    }
    const body = JSON.stringify({ state: button.dataset.say, ...(input.value.trim() && button.dataset.say !== "open" ? { reason: input.value.trim() } : {}) });
    let done = 0;
    for (const id of ids) {
      const problem = await told(`/api/v1/anomalies/${encodeURIComponent(id)}`, "PATCH", body);
      if (problem) { window.spendscope.toast(problem); break; }
      done++;
    }
    if (!done) return;
    input.value = "";
    document.querySelectorAll("[data-choose]").forEach((box) => box.setAttribute("aria-checked", "false"));
    if (done === ids.length) window.spendscope.toast(done === 1 ? "Noted" : `Noted for ${done} anomalies`);
    again();
  }

  /** What is wrong, null when nothing is. */
  const told = async (path, method, body) => ((await asked(path, method, body)) || {}).words || null;

  /** What is wrong in words, and with which member of the body; null when nothing is. */
  async function asked(path, method, body) {
    try {
      const answer = await fetch(path, { method, headers: { "Content-Type": "application/json" }, body });
      if (answer.ok) return null;
      const problem = await answer.json().catch(() => ({}));
      return { words: problem.detail || `The server could not do it (error ${answer.status}).`, field: problem.field };
    } catch (error) {
      return { words: "No connection to the server. Nothing was changed." };
    }
  }

  // --- planned spend ----------------------------------------------------------------------------------------------

  const FIELDS = [
    ["reason", "What is planned", { required: true, maxLength: 500 }],
    ["start", "First day (UTC)", { type: "date", required: true }],
    ["last", "Last day (UTC)", { type: "date", required: true }],
    ["account", "Account", { placeholder: "all" }],
    ["service", "Service", { placeholder: "all" }],
    ["region", "Region", { placeholder: "all" }],
    ["extra", "Extra a day, at most", { type: "number", min: "0.01", step: "0.01", placeholder: "any amount" }],
  ];

  const made = (name, props, ...children) => { const found = Object.assign(document.createElement(name), props); found.append(...children); return found; };

  function planForm(may, currency) {
    const place = document.getElementById("plan-form");
    if (!place || !may || place.firstChild) return;
    const labels = FIELDS.map(([name, text, props]) => {
      const input = made("input", { id: `plan-${name}`, name, type: "text", autocomplete: "off", ...props });
      input.setAttribute("aria-describedby", "plan-trouble");
      const label = made("label", { className: `plan-${name}` }, made("span", { textContent: name === "extra" ? `${text} (${currency})` : text }), input);
      if (!PARTS.includes(name)) return label;
      const known = made("datalist", { id: `plan-known-${name}` });
      input.setAttribute("list", known.id);
      input.addEventListener("focus", () => suggest(name, known), { once: true });
      label.append(known);
      return label;
    });
    const trouble = made("p", { id: "plan-trouble", className: "trouble-text" });
    trouble.setAttribute("role", "alert");
    const form = made("form", { className: "plan-form", noValidate: true }, ...labels, made("button", { type: "submit", className: "button", textContent: "Plan it" }), trouble);
    form.setAttribute("aria-label", "Plan spend");
    form.addEventListener("submit", (event) => { event.preventDefault(); plan(form); });
    place.append(form);
  }

  async function suggest(name, known) {
    const found = await fetch(`/api/v1/dimensions/${name}?limit=500`).then((answer) => (answer.ok ? answer.json() : { items: [] })).catch(() => ({ items: [] }));
    known.replaceChildren(...(found.items || []).map((one) => made("option", { value: one.value })));
  }

  function wrong(form, name, words) {
    FIELDS.forEach(([other]) => form.elements[other].removeAttribute("aria-invalid"));
    document.getElementById("plan-trouble").textContent = words || "";
    const input = form.elements[name === "end" ? "last" : name];
    if (!words || !input) return;
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  async function plan(form) {
    const value = (name) => form.elements[name].value.trim();
    if (!value("reason")) return wrong(form, "reason", "Say what is planned.");
    for (const [name, words] of [["start", "first"], ["last", "last"]])
      if (!/^\d{4}-\d\d-\d\d$/.test(value(name))) return wrong(form, name, `Give the ${words} day as year, month and day.`);
    if (value("last") < value("start")) return wrong(form, "last", "The last day is before the first.");
    if (form.elements.extra.value === "" && form.elements.extra.validity.badInput) return wrong(form, "extra", "Give the dollars a day as a number.");
    const body = { reason: value("reason"), start: value("start"), end: window.spendscope.iso(Date.parse(value("last") + "T00:00:00Z") + 86400000) };
    [...PARTS, "extra"].forEach((name) => { if (value(name)) body[name] = value(name); });
    const problem = await asked("/api/v1/planned-spend", "POST", JSON.stringify(body));
    if (problem) return wrong(form, problem.field || "reason", problem.words);
    wrong(form);
    form.reset();
    form.elements.reason.focus();
    await looked("Planned");
  }

  /** Anomalies are looked for again, so that what was planned counts. */
  async function looked(words) {
    const problem = await told("/api/v1/jobs", "POST", JSON.stringify({ kind: "detect", params: {} }));
    window.spendscope.toast(problem ? `${words}. It counts from the next look for anomalies on.` : `${words}. Anomalies are being looked for again`);
    again();
    if (!problem) [3000, 10000, 30000].forEach((pause) => setTimeout(() => page() && again(), pause));
  }

  document.addEventListener("click", async (event) => {
    const button = page() && event.target.closest && event.target.closest("button[data-forget-plan]");
    if (!button) return;
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "yes";
      button.textContent = "Really remove";
      setTimeout(() => { if (document.body.contains(button)) { delete button.dataset.sure; button.textContent = "Remove"; } }, 5000);
      return;
    }
    const problem = await told("/api/v1/planned-spend/" + encodeURIComponent(button.dataset.forgetPlan), "DELETE");
    if (problem) return void window.spendscope.toast(problem);
    window.spendscope.toast("Removed. What it silenced stays expected");
    const reason = document.getElementById("plan-reason");
    if (reason) reason.focus();
    again();
  });

  // --- counting alerts --------------------------------------------------------------------------------------------

  document.addEventListener("click", async (event) => {
    const button = page() && event.target.closest && event.target.closest("button[data-backtest]");
    if (!button) return;
    const value = (name) => { const text = document.getElementById(`backtest-${name}`).value; return text === "" ? null : Number(text); };
    const params = { backtest: true, min_daily: value("daily"), min_total: value("total") };
    const problem = await told("/api/v1/jobs", "POST", JSON.stringify({ kind: "detect", params }));
    if (problem) return void window.spendscope.toast(problem);
    window.spendscope.toast("Being counted");
    again();
  });

  // --- marks on the Overview's Daily Spend Trends -----------------------------------------------------------------

  const MOST_LINKS = 8, DAY = 86400000;
  let marks = [], wanted = 0;

  /** Diamonds above the bars on the days anomalies began, from the stored ones, and a link to each below the chart. */
  async function markAnomalies(days, figure) {
    const mine = ++wanted, place = document.getElementById("daily-anomalies"), bars = figure.data.filter((trace) => trace.type === "bar");
    if (!place) return;
    if (!bars.length || !bars[0].x0) return void place.replaceChildren();
    const query = new URLSearchParams({ start: days.start, end: window.spendscope.iso(Date.parse(days.last + "T00:00:00Z") + DAY) });
    ["open", "ongoing", "acknowledged", "resolved"].forEach((state) => query.append("state", state));
    const filters = new URLSearchParams(location.search);
    PARTS.forEach((part) => filters.getAll(part).forEach((value) => query.append(part, value)));
    const found = await fetch("/api/v1/anomalies?" + query).then((answer) => (answer.ok ? answer.json() : { items: [] })).catch(() => ({ items: [] }));
    if (mine !== wanted || !document.body.contains(place)) return;
    const first = Date.parse(bars[0].x0 + "T00:00:00Z"), column = (day) => Math.round((Date.parse(day + "T00:00:00Z") - first) / DAY);
    marks = found.items.filter((one) => !one.withdrawn && one.start >= days.start && one.start <= days.last);
    const height = (at) => bars.reduce((sum, trace) => sum + Math.max(trace.y[at] || 0, 0), 0);
    const top = Math.max(...bars[0].y.map((_, at) => height(at)));
    place.replaceChildren(...marks.slice(0, MOST_LINKS).map(linkTo), ...(marks.length > MOST_LINKS ? [`and ${marks.length - MOST_LINKS} more`] : []));
    if (!marks.length) return;
    const style = getComputedStyle(document.documentElement);
    const trace = {
      type: "scatter", mode: "markers", name: "Anomaly", x: marks.map((one) => one.start), y: marks.map((one) => height(column(one.start)) + top * 0.05),
      marker: { symbol: "diamond", size: 10, color: style.getPropertyValue("--up").trim(), line: { width: 1.5, color: style.getPropertyValue("--card").trim() } },
      text: marks.map((one) => escaped(titleOf(one))), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    };
    set({ type: "chart", name: "daily" }, { figure: { ...figure, data: [...figure.data, trace] } });
  }

  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const titleOf = (one) => one.scope.service || one.scope.account || one.scope.region || "All spend";

  function linkTo(one) {
    const link = document.createElement("a");
    link.href = "/anomalies?id=" + encodeURIComponent(one.id);
    link.className = "key anomaly-mark";
    const day = new Date(one.start + "T00:00:00Z").toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    link.textContent = `${day} ${titleOf(one)}`;
    link.title = `Anomaly, ${one.state}`;
    return link;
  }

  /** Opens the dearest anomaly that began on a day; false when none did. */
  function openAnomaly(day) {
    const there = marks.filter((one) => one.start === String(day).slice(0, 10)).sort((a, b) => Math.abs(b.impact) - Math.abs(a.impact))[0];
    if (there) location.assign("/anomalies?id=" + encodeURIComponent(there.id));
    return Boolean(there);
  }

  Object.assign(window.spendscope, { markAnomalies, openAnomaly });
  window.dash_clientside = Object.assign({}, window.dash_clientside, { spendscope_anomalies: { sync, paint } });
})();
