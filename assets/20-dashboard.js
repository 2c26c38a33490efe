// The browser's half of a page: address, controls and clicks agree; figures get the colours of the theme.
(function () {
  "use strict";

  const LEVELS = ["service", "region", "account"];
  const DEFAULTS = { period: "30d", metric: "amortized_cost" };
  const SINGLE = ["period", "start", "end", "metric", "group_by"];
  const DAY = 86400000;
  const SAME = () => window.dash_clientside.no_update;

  // --- the address ------------------------------------------------------------------------------------------------

  /** The canonical query string: fixed order, defaults left out, as app/pages/address.py writes it. */
  function canonical(query) {
    const found = new URLSearchParams();
    for (const name of SINGLE) {
      const value = query.get(name);
      if (value && value !== DEFAULTS[name]) found.set(name, value);
    }
    for (const level of LEVELS) [...new Set(query.getAll(level))].sort().forEach((value) => found.append(level, value));
    const text = found.toString();
    return text ? "?" + text : "";
  }

  function setAll(query, name, values) {
    query.delete(name);
    values.forEach((value) => query.append(name, value));
  }

  function setDays(query, first, last) {
    query.delete("period");
    query.set("start", first);
    query.set("end", iso(Date.parse(last + "T00:00:00Z") + DAY)); // people name the last day, addresses the one after
  }

  function iso(milliseconds) {
    return new Date(milliseconds).toISOString().slice(0, 10);
  }

  // --- one callback for address, controls and charts --------------------------------------------------------------

  let pressed = { graph: null, y: 0, adding: false }; // where the pointer went down, and with Ctrl or Command held
  document.addEventListener("pointerdown", (event) => {
    const graph = event.target.closest ? event.target.closest(".js-plotly-plot") : null;
    pressed = { graph, y: event.clientY, adding: event.ctrlKey || event.metaKey };
  }, true);

  /** Inputs: address, filters, metric, dates, clicks and zooms of all charts. Returns address and control values. */
  function sync(search, service, region, account, metric, start, last, clicks, zooms, drawn) {
    const query = new URLSearchParams(search || "");
    const changed = (window.dash_clientside.callback_context.triggered || []).map((one) => one.prop_id);
    const by = (text) => changed.some((name) => name.includes(text));
    const before = canonical(query);
    if (!changed.length || by("url.search")) return [SAME(), ...shown(query)];
    if (by("filter-service")) setAll(query, "service", service || []);
    if (by("filter-region")) setAll(query, "region", region || []);
    if (by("filter-account")) setAll(query, "account", account || []);
    if (by("metric.value") && metric) query.set("metric", metric); // null: what the address has is no choice; it is said
    if (by("dates.") && start && last && drawn && (start !== drawn.days.start || last !== drawn.days.last))
      setDays(query, start.slice(0, 10), last.slice(0, 10));
    if (by("clickData")) drill(query, newest(clicks, changed, "clickData"));
    if (by("relayoutData")) zoom(query, newest(zooms, changed, "relayoutData"));
    const after = canonical(query);
    return [after === before ? SAME() : after, ...shown(query)];
  }

  /** Values of the filter and metric controls for an address. */
  function shown(query) {
    count(query);
    return [...LEVELS.map((level) => query.getAll(level)), query.get("metric") || DEFAULTS.metric];
  }

  function newest(values, changed, property) {
    const name = changed.find((text) => text.endsWith("." + property));
    const id = JSON.parse(name.slice(0, -property.length - 1));
    const inputs = window.dash_clientside.callback_context.inputs_list.flat();
    const found = inputs.find((one) => one.property === property && one.id.name === id.name);
    return found && found.value && { ...found.value, chart: id.name };
  }

  /** The point that was meant: where all series of a day answer together, the segment of the stack under the pointer. */
  function pointAt(clicked) {
    const points = [...clicked.points].sort((a, b) => a.curveNumber - b.curveNumber);
    if (points.length < 2) return points[0];
    const surface = pressed.graph && pressed.graph.querySelector(".nsewdrag");
    if (!surface) return null;
    let height = pressed.graph._fullLayout.yaxis.p2d(pressed.y - surface.getBoundingClientRect().top);
    const bars = points.filter((point) => figures[clicked.chart].data[point.curveNumber].type === "bar" && point.y > 0);
    return height < 0 ? null : bars.find((point) => (height -= point.y) <= 0);
  }

  function metaOf(chart, curve) {
    return figures[chart] && figures[chart].data[curve] && figures[chart].data[curve].meta;
  }

  /** A trace says in `meta` what a click on it fixes: {service: …}, or lists along x and y. */
  function drill(query, clicked) {
    const point = clicked && pointAt(clicked);
    if (clicked && clicked.chart === "daily" && !point && window.spendscope.openAnomaly(clicked.points[0].x)) return;
    const meta = point && metaOf(clicked.chart, point.curveNumber);
    if (!meta) return;
    const chosen = {};
    for (const level of LEVELS) {
      if (typeof meta[level] === "string") chosen[level] = meta[level];
      if (meta.xs && meta.xs[level]) chosen[level] = meta.xs[level][Math.round(point.x)];
      if (meta.ys && meta.ys[level]) chosen[level] = meta.ys[level][Math.round(point.y)];
    }
    for (const [level, value] of Object.entries(chosen))
      if (value !== undefined) setAll(query, level, pressed.adding ? [...query.getAll(level), value] : [value]);
  }

  /** Dragging over days makes them the period. */
  function zoom(query, moved) {
    const from = moved && moved["xaxis.range[0]"], to = moved && moved["xaxis.range[1]"];
    if (!from || !to) return;
    const day = (text, half) => iso(Math.floor((utc(text) + half) / DAY) * DAY); // bars are centred on midnight
    setDays(query, day(from, DAY / 2), day(to, DAY / 2));
  }

  function utc(text) {
    return Date.parse(text.replace(" ", "T").replace(/^(\d{4}-\d\d-\d\d)$/, "$1T00:00") + "Z");
  }

  // --- drawing ----------------------------------------------------------------------------------------------------

  const CHARTS = ["daily", "regions", "comparison", "usage"];
  const NAMES = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "other", "accent", "up", "muted", "ink", "line", "card", "hole", "heat-low", "heat-high"];
  let figures = {};
  let lastDrawn = null;
  let drawnSearch = null;

  /** Figures in the colours of the theme, and the options of the filters. */
  function paint(drawn) {
    if (!drawn) return [...CHARTS, ...LEVELS].map(SAME);
    lastDrawn = drawn;
    drawnSearch = window.location.search;
    const colours = palette();
    figures = {};
    for (const name of CHARTS) figures[name] = drawn.figures[name] ? coloured(drawn.figures[name], colours) : null;
    setDates(drawn.days);
    settled();
    if (figures.daily) window.spendscope.markAnomalies(drawn.days, figures.daily);
    return [
      ...CHARTS.map((name) => figures[name] || SAME()),
      ...LEVELS.map((level) => (drawn.options[level] ? drawn.options[level].map(option) : SAME())),
    ];
  }

  function palette() {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(NAMES.map((name) => ["--" + name, style.getPropertyValue("--" + name).trim()]));
  }

  function coloured(figure, colours) {
    const copy = tinted(figure, colours, false);
    copy.layout.template = template(colours);
    const meta = copy.layout.meta || {};
    if (meta.settling && meta.settling.length) hatch(copy, meta.settling, colours);
    copy.layout.dragmode = meta.zoom && matchMedia("(pointer: fine)").matches ? "zoom" : false;
    if (!meta.zoom) copy.layout.xaxis.fixedrange = true;
    copy.layout.yaxis.fixedrange = true;
    return copy;
  }

  /** Names of colours become colours, under keys that hold colours only: a service may be called anything. */
  function tinted(value, colours, inColour) {
    if (typeof value === "string") return inColour && colours[value] !== undefined ? colours[value] : value;
    if (Array.isArray(value)) return value.map((one) => tinted(one, colours, inColour));
    if (value === null || typeof value !== "object") return value;
    const copy = {};
    for (const key in value) copy[key] = tinted(value[key], colours, /color/.test(key));
    return copy;
  }

  function hatch(figure, positions, colours) {
    for (const trace of figure.data) {
      if (trace.type !== "bar") continue;
      const shape = new Array(trace.y.length).fill("");
      positions.forEach((position) => (shape[position] = "/"));
      trace.marker.pattern = { shape, size: 5, solidity: 0.45, fgcolor: colours["--card"], fillmode: "overlay" };
    }
  }

  function template(colours) {
    const axis = {
      gridcolor: colours["--line"], linecolor: colours["--line"], zerolinecolor: colours["--line"], zeroline: false,
      tickcolor: "rgba(0,0,0,0)", tickfont: { size: 12 }, ticks: "outside", ticklen: 6, automargin: false, layer: "below traces",
    };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, showlegend: false,
        separators: ".,", font: { family: "Inter, system-ui, sans-serif", size: 12, color: colours["--muted"] },
        hoverlabel: {
          bgcolor: colours["--card"], bordercolor: colours["--line"], namelength: 32, align: "left",
          font: { color: colours["--ink"], size: 12.5, family: "Inter, system-ui, sans-serif" },
        },
        xaxis: { ...axis, showgrid: false, showspikes: false },
        yaxis: axis,
        annotationdefaults: { font: { color: colours["--muted"] }, bgcolor: "rgba(0,0,0,0)" },
        bargap: 0.22,
        transition: { duration: 0 },
      },
      data: {
        heatmap: [{ textfont: { color: colours["--ink"], size: 12 }, xgap: 3, ygap: 3 }],
        bar: [{ textfont: { color: colours["--ink"], size: 12 }, marker: { line: { width: 0 }, cornerradius: 0 } }],
        scatter: [{ connectgaps: false }],
      },
    };
  }

  /** The space after the name keeps chosen names apart for those who hear them. */
  function option([value, cost]) {
    const span = (text, className) => ({ namespace: "dash_html_components", type: "Span", props: { children: text, className } });
    return { value, search: value, title: value, label: [span(value + " ", "option-name"), span(cost, "option-cost")] };
  }

  /** The date fields follow the address; as they are inputs of `sync` they cannot be its outputs through the server. */
  function setDates(days) {
    window.dash_clientside.set_props("dates", { start_date: days.start, end_date: days.last });
  }

  // --- tables of the charts ---------------------------------------------------------------------------------------

  document.addEventListener("toggle", (event) => {
    const place = event.target.querySelector && event.target.querySelector("[data-table-of]");
    if (place && event.target.open) fillTable(place);
  }, true);

  function fillOpenTables() {
    document.querySelectorAll("details[open] > [data-table-of]").forEach(fillTable);
  }

  /** The figure's own data as a table; it cannot differ from the chart. */
  function fillTable(place) {
    const figure = figures[place.dataset.tableOf];
    if (!figure) return;
    const heat = figure.data.find((trace) => trace.type === "heatmap");
    place.tabIndex = 0;
    place.replaceChildren(heat ? heatTable(figure, heat) : seriesTable(figure));
  }

  function seriesTable(figure) {
    const first = figure.data[0];
    const xs = first.x || first.y.map((_, i) => iso(Date.parse(first.x0 + "T00:00:00Z") + i * first.dx));
    const head = ["Day", ...figure.data.map((trace) => plain(trace.name))];
    return table(head, xs.map((x, i) => [String(x).slice(0, 10), ...figure.data.map((trace) => number(trace.y[i]))]));
  }

  function heatTable(figure, heat) {
    const bars = figure.data.find((trace) => trace.type === "bar");
    const head = ["Service", ...heat.meta.xs.region];
    const rows = heat.meta.ys.service.map((name, i) => [name, ...heat.customdata[i].map(number)]);
    return table(head, [[bars.name, ...bars.y.map(number)], ...rows]);
  }

  function table(head, rows) {
    const element = document.createElement("table");
    const row = (cells, tag) => {
      const line = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(i === 0 || tag === "th" ? "th" : "td");
        if (cell.tagName === "TH") cell.scope = tag === "th" ? "col" : "row";
        if (i) cell.className = "number";
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    };
    element.createTHead().append(row(head, "th"));
    element.createTBody().append(...rows.map((cells) => row(cells, "td")));
    return element;
  }

  const FORMAT = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 8 });
  const number = (value) => (value === null || value === undefined ? "—" : FORMAT.format(value));

  function plain(text) {
    return text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }

  // --- theme, copy, words that depend on now ----------------------------------------------------------------------

  function theme(clicks) {
    const root = document.documentElement;
    if (clicks) {
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("spendscope-theme", root.dataset.theme); } catch (error) { /* storage may be off */ }
    }
    if (clicks && lastDrawn) window.dash_clientside.set_props("drawn", { data: { ...lastDrawn } }); // paint again, ask nobody
    return SAME();
  }

  /** The link of the page that is shown. */
  function here(pathname, links) {
    // On a narrow screen the pages' links scroll: the one of this page is to be seen.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const current = document.querySelector(".pages a[aria-current]"), bar = current && current.parentElement;
      if (bar && bar.scrollWidth > bar.clientWidth) bar.scrollLeft = current.offsetLeft - (bar.clientWidth - current.offsetWidth) / 2;
    }));
    return links.map((link) => ({
      ...link, props: { ...link.props, "aria-current": link.props.href === pathname ? "page" : undefined },
    }));
  }

  function copy() {
    const done = () => toast("Link copied");
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(done, () => toast(location.href));
    else toast(location.href);
    return SAME();
  }

  function toast(text) {
    const place = document.getElementById("toast");
    place.textContent = text;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => (place.textContent = ""), 4000);
  }

  function ago() {
    for (const time of document.querySelectorAll("#freshness time")) {
      const minutes = Math.max(Math.round((Date.now() - Date.parse(time.dateTime)) / 60000), 0);
      const text = minutes < 2 ? "updated just now" : minutes < 120 ? `updated ${minutes} min ago`
        : minutes < 2880 ? `updated ${Math.round(minutes / 60)} h ago` : `updated ${Math.round(minutes / 1440)} days ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  }
  setInterval(ago, 30000);

  /** The badge of the folded filter bar on small screens. */
  function count(query) {
    const chosen = LEVELS.filter((level) => query.getAll(level).length).length;
    document.querySelectorAll(".filter-bar .count").forEach((place) => (place.textContent = chosen ? ` (${chosen})` : ""));
  }

  let byKeyboard = false;
  /** After everything is on the page. */
  function settled() {
    requestAnimationFrame(() => setTimeout(() => {
      ago();
      fillOpenTables();
      const lost = document.activeElement === document.body;
      if (byKeyboard && lost) document.getElementById("main").focus({ preventScroll: true });
      byKeyboard = false;
    }, 60));
  }

  // --- links inside the page, Back and Forward: one request, nothing built again ----------------------------------

  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[data-internal]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button) return;
    if (new URL(link.href).pathname !== location.pathname) return; // another page: the browser goes there
    event.preventDefault();
    byKeyboard = event.detail === 0;
    go(new URL(link.href).search);
  });

  /** A page names its own address where it is not the overview's. */
  function go(search) {
    const page = document.querySelector("[data-address]");
    window.dash_clientside.set_props(page ? page.dataset.address : "url", { search });
  }

  window.addEventListener("popstate", (event) => {
    if (location.pathname !== path) return void (path = location.pathname);
    event.stopImmediatePropagation(); // Dash's page router would build the whole page again
    go(location.search);
  }, true);
  let path = location.pathname;

  /** A page that draws itself says for which address it did. */
  function drew(search) {
    drawnSearch = search;
    settled();
  }

  window.spendscope = { go, drew, toast, option, iso, coloured: (figure) => coloured(figure, palette()), drawnSearch: () => drawnSearch };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { spendscope: { sync, paint, theme, copy, here } });
  if (matchMedia("(max-width: 719px)").matches)
    new MutationObserver((_, observer) => {
      const bar = document.querySelector(".filter-bar");
      if (bar) { bar.open = false; observer.disconnect(); }
    }).observe(document.documentElement, { childList: true, subtree: true });
})();
