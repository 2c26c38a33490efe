// The browser's half of the Budgets page: the form for a budget or a rule, what a rule would have said, the burn chart.
(function () {
  "use strict";

  const SAME = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const page = () => document.querySelector(".budgets-page");
  const CHART = { type: "chart", name: "burn" };
  let drawn = null, ticks = 0, opener = null, shownForm = "";

  function paint(found) {
    if (!found) return SAME();
    drawn = found;
    window.spendscope.drew(location.search);
    set("status", { children: found.spoken });
    requestAnimationFrame(() => requestAnimationFrame(beside));
    return found.figure ? window.spendscope.coloured(found.figure) : SAME();
  }

  new MutationObserver(() => {
    if (page() && drawn && drawn.figure) set(CHART, { figure: window.spendscope.coloured(drawn.figure) });
  }).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  const again = () => set("budgets-again", { data: ++ticks });

  // --- small parts ------------------------------------------------------------------------------------------------

  function make(name, props, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(props || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key in element && typeof value !== "string") element[key] = value;
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((one) => one !== null && one !== undefined));
    return element;
  }

  let numbered = 0;

  /** A label, its control and a hint; `name` is the API's name of the member. */
  function field(name, label, control, hint) {
    const id = `budget-field-${++numbered}`;
    control.id = id;
    control.dataset.field = name;
    if (hint) control.setAttribute("aria-describedby", id + "-hint");
    return make("div", { class: "field" }, make("label", { for: id }, label), control, hint ? make("p", { class: "hint", id: id + "-hint" }, hint) : null);
  }

  const text = (value, props) => make("input", { type: "text", autocomplete: "off", value: value || "", ...props });
  function select(value, options) {
    const control = make("select", {}, options.map(([key, label]) => make("option", { value: key }, label)));
    control.value = value;
    return control;
  }

  /** Several values: typed or chosen from those that had cost; each is a button that takes it away. */
  function several(part, values, known) {
    const id = `budget-field-${++numbered}`, list = `${id}-known`, chips = make("div", { class: "chips" }), chosen = [...values];
    const input = make("input", { type: "text", id, list, autocomplete: "off", placeholder: `All ${part}s`, "data-field": part });
    const draw = () => chips.replaceChildren(...chosen.map((value) => make("button", { type: "button", class: "chip", "aria-label": `Remove ${value}`, "data-drop": value }, value, make("span", { class: "icon icon-x", "aria-hidden": "true" }))));
    const add = () => { const value = input.value.trim(); if (!value) return; if (!chosen.includes(value)) chosen.push(value); input.value = ""; draw(); changed(); };
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); add(); } });
    input.addEventListener("change", add);
    chips.addEventListener("click", (event) => { const chip = event.target.closest("[data-drop]"); if (!chip) return; chosen.splice(chosen.indexOf(chip.dataset.drop), 1); draw(); input.focus(); changed(); });
    draw();
    const options = make("datalist", { id: list }, known.map((value) => make("option", { value })));
    const box = make("div", { class: "field several" }, make("label", { for: id }, part[0].toUpperCase() + part.slice(1) + "s"), input, options, chips);
    return { box, values: () => { add(); return [...chosen]; } };
  }

  // --- the form ---------------------------------------------------------------------------------------------------

  let form = null; // what it is made of: { what, value, read, notice, said, preview }

  function beside() {
    window.spendscope.tellTime();
    const place = document.getElementById("budget-form");
    if (!place) return;
    const asked = drawn.form, key = asked ? JSON.stringify([asked.what, asked.value && asked.value.id, asked.value && asked.value.revision, asked.about]) : "";
    if (key === shownForm && (!key || place.firstChild)) return;
    shownForm = key;
    place.classList.toggle("away", !asked);
    if (!asked) { form = null; place.replaceChildren(); return back(); }
    form = asked.what === "budget" ? budgetForm(asked) : ruleForm(asked);
    place.replaceChildren(form.element);
    const title = place.querySelector("h2");
    title.focus({ preventScroll: true });
    setTimeout(() => { if (title.isConnected && !place.contains(document.activeElement)) title.focus({ preventScroll: true }); }, 160); // after the page's own care for lost focus
    if (innerWidth < 1200) place.scrollIntoView({ block: "start", behavior: "auto" });
    if (form.opened) form.opened();
  }

  function back() {
    if (!opener) return;
    const href = opener;
    opener = null;
    setTimeout(() => { const link = [...document.querySelectorAll("a[data-opens], [data-switch]")].find((one) => (one.dataset.switch ? "switch:" + one.dataset.switch : one.getAttribute("href")) === href); (link || document.getElementById("main")).focus({ preventScroll: true }); }, 120);
  }

  const close = () => { if (drawn && drawn.form) window.spendscope.go(drawn.form.back.includes("?") ? drawn.form.back.slice(drawn.form.back.indexOf("?")) : ""); };

  function frame(title, fields, actions, asked) {
    const said = make("p", { class: "form-error", role: "alert" });
    const heading = make("div", { class: "panel-head" }, make("h2", { tabindex: "-1" }, title),
      make("button", { type: "button", class: "tool", "aria-label": "Close", "data-cancel": "yes" }, make("span", { class: "icon icon-x", "aria-hidden": "true" })));
    const element = make("form", { novalidate: true }, heading, fields, said, make("div", { class: "actions" }, actions));
    element.addEventListener("submit", (event) => { event.preventDefault(); save(event.submitter); });
    element.addEventListener("input", changed);
    element.addEventListener("change", changed);
    return { element, said, asked, value: asked.value };
  }

  function budgetForm(asked) {
    const value = asked.value || {}, scope = value.scope || {};
    const parts = ["account", "service", "region"].map((part) => several(part, scope[part] || [], asked.values[part]));
    const owners = several("owner", value.owners || [], asked.values.account);
    const of = (kind) => (value.thresholds || [{ percent: "80", of: "actual" }, { percent: "100", of: "actual" }, { percent: "100", of: "forecast" }]).filter((one) => one.of === kind).map((one) => one.percent).join(" ");
    const inputs = {
      name: text(value.name, { required: true, maxlength: "100" }),
      amount: text(value.amount, { inputmode: "decimal", required: true, placeholder: "12000" }),
      period: select(value.period || "monthly", [["monthly", "Month"], ["quarterly", "Quarter"], ["yearly", "Year"]]),
      metric: metrics(value.metric),
      actual: text(of("actual"), { inputmode: "decimal" }),
      forecast: text(of("forecast"), { inputmode: "decimal" }),
    };
    owners.box.querySelector("label").textContent = "Channels of these accounts are told";
    owners.box.querySelector("input").placeholder = "Those of the scope";
    const fields = [
      field("name", "Name", inputs.name), make("div", { class: "pair" }, field("amount", `Amount (${asked.currency})`, inputs.amount), field("period", "For each", inputs.period)),
      make("fieldset", {}, make("legend", {}, "What counts"), parts.map((one) => one.box), field("metric", "Cost type", inputs.metric)),
      make("fieldset", {}, make("legend", {}, "Thresholds in percent"), make("div", { class: "pair" }, field("percent", "Of what is spent", inputs.actual), field("percent", "Of what is expected", inputs.forecast)), make("p", { class: "hint" }, "Several with spaces between them. A rule on this budget raises an alert at each, once a period.")),
      owners.box,
    ];
    const actions = [make("button", { type: "submit", class: "button primary" }, asked.value ? "Save" : "Set up"), make("button", { type: "button", class: "button", "data-cancel": "yes" }, "Cancel"), asked.value ? make("button", { type: "button", class: "button danger", "data-remove": "yes" }, "Remove") : null];
    const made = frame(asked.value ? "Change budget" : "New budget", fields, actions, asked);
    const percents = (input, kind) => input.value.split(/[\s;]+/).filter(Boolean).map((percent) => ({ percent: percent.replace(/%$/, ""), of: kind })).filter((one) => one.percent);
    made.path = "/api/v1/budgets";
    made.read = () => ({
      name: inputs.name.value.trim(), amount: amountOf(inputs.amount), period: inputs.period.value, metric: inputs.metric.value,
      scope: { account: parts[0].values(), service: parts[1].values(), region: parts[2].values() },
      thresholds: [...percents(inputs.actual, "actual"), ...percents(inputs.forecast, "forecast")], owners: owners.values(),
    });
    return made;
  }

  const metrics = (value) => select(value || "amortized_cost", [["amortized_cost", "Amortized"], ["unblended_cost", "Unblended"], ["blended_cost", "Blended"]]);
  const amountOf = (input) => input.value.trim().replace(/[\s$€£]/g, "");

  const KINDS = [["threshold", "Spend above an amount"], ["change", "A change"], ["budget_burn", "A budget's thresholds"], ["data_stale", "Data is stale"], ["source_quarantined", "A cost file is refused"]];

  function ruleForm(asked) {
    const value = asked.value || { kind: asked.about ? "budget_burn" : "threshold", budget: asked.about, on: false }, scope = value.scope || {};
    const parts = ["account", "service", "region"].map((part) => several(part, scope[part] || [], asked.values[part]));
    const name = (asked.budgets.find((one) => one[0] === asked.about) || [])[1];
    const inputs = {
      name: text(value.name || name, { required: true, maxlength: "100" }),
      kind: select(value.kind, asked.value ? KINDS.filter((one) => one[0] === value.kind) : KINDS.filter((one) => one[0] !== "source_quarantined" && (one[0] !== "budget_burn" || asked.budgets.length))),
      per: select(value.per || "day", [["day", "Day"], ["week", "Week"], ["month", "Month"]]),
      amount: text(value.amount, { inputmode: "decimal" }),
      percent: text(value.percent, { inputmode: "decimal" }),
      against: select(value.against || "previous", [["previous", "The period before"], ["last_month", "The same period a month before"]]),
      direction: select(value.direction || "up", [["up", "More"], ["down", "Less"], ["both", "More or less"]]),
      metric: metrics(value.metric),
      budget: select(value.budget || (asked.budgets[0] || [""])[0], asked.budgets),
      hours: text(value.hours === null || value.hours === undefined ? "48" : String(value.hours), { inputmode: "numeric" }),
      severity: select(value.severity || "warning", [["info", "Info"], ["warning", "Warning"], ["critical", "Critical"]]),
    };
    const rows = {
      per: field("per", "In a", inputs.per), amount: field("amount", "", inputs.amount), percent: field("percent", "And at least (percent)", inputs.percent),
      against: field("against", "Compared with", inputs.against), direction: field("direction", "That is", inputs.direction), metric: field("metric", "Cost type", inputs.metric),
      budget: field("budget", "Budget", inputs.budget), hours: field("hours", "Hours since the newest day ended", inputs.hours, "The day before usually arrives within 36 hours."),
    };
    const scoped = make("fieldset", {}, make("legend", {}, "Of what"), parts.map((one) => one.box), rows.metric);
    const USES = { threshold: ["per", "amount", "metric"], change: ["per", "amount", "percent", "against", "direction", "metric"], budget_burn: ["budget"], data_stale: ["hours"], source_quarantined: [] };
    function shown() {
      const kind = inputs.kind.value;
      for (const [member, row] of Object.entries(rows)) row.hidden = !USES[kind].includes(member);
      rows.amount.querySelector("label").textContent = kind === "change" ? `By at least (${asked.currency})` : `Above (${asked.currency})`;
      scoped.hidden = kind === "budget_burn" || kind === "source_quarantined";
      parts[1].box.hidden = parts[2].box.hidden = kind === "data_stale";
    }
    inputs.kind.addEventListener("change", shown);
    shown();
    const fields = [
      field("name", "Name", inputs.name), field("kind", "Alert when", inputs.kind), rows.budget, rows.hours,
      make("div", { class: "pair" }, rows.amount, rows.per), make("div", { class: "pair" }, rows.percent, rows.direction), rows.against, scoped, field("severity", "Severity", inputs.severity),
    ];
    const previewed = make("div", { class: "previewed", role: "status" }, make("p", { class: "hint" }, "Before it is switched on, see what it would have said."));
    fields.push(previewed);
    const actions = [
      make("button", { type: "submit", class: "button", value: "preview" }, "Preview"),
      make("button", { type: "submit", class: "button primary", value: "on" }, value.on ? "Save" : "Switch on"),
      value.on ? make("button", { type: "submit", class: "button", value: "off" }, "Switch off") : make("button", { type: "submit", class: "button", value: "off" }, "Save, off"),
      asked.value && !value.built_in ? make("button", { type: "button", class: "button danger", "data-remove": "yes" }, "Remove") : null,
    ];
    const made = frame(asked.value ? "Change rule" : "New rule", fields, actions, asked);
    Object.assign(made, { path: "/api/v1/rules", previewed, seen: value.on ? null : "" });
    made.read = () => {
      const kind = inputs.kind.value, found = { name: inputs.name.value.trim(), severity: inputs.severity.value };
      if (!asked.value) found.kind = kind;
      for (const member of USES[kind]) {
        if (member === "hours") found.hours = Number(inputs.hours.value);
        else found[member] = member === "amount" || member === "percent" ? amountOf(inputs[member]) : inputs[member].value;
      }
      if (!scoped.hidden) found.scope = { account: parts[0].values(), service: kind === "data_stale" ? [] : parts[1].values(), region: kind === "data_stale" ? [] : parts[2].values() };
      return found;
    };
    made.settings = () => { const { name: _, severity: __, ...rest } = { kind: value.kind, ...made.read() }; return JSON.stringify(rest); };
    made.opened = () => { if (asked.value && !value.on && asked.value.revision !== undefined && sessionStorage.getItem("spendscope-switch") === value.id) { sessionStorage.removeItem("spendscope-switch"); showPreview(); } };
    return made;
  }

  function changed() {
    if (!form) return;
    form.said.textContent = "";
    form.element.querySelectorAll("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
  }

  // --- saving -----------------------------------------------------------------------------------------------------

  async function save(button) {
    const does = button ? button.value : "";
    if (form.path === "/api/v1/rules" && does === "preview") return showPreview();
    const body = form.read();
    if (form.path === "/api/v1/rules") {
      body.on = does !== "off";
      // What it would have said is seen before it is switched on.
      if (body.on && form.settings() !== form.seen && !(form.value && form.value.on)) return showPreview();
    }
    await send(button, form.value ? "PATCH" : "POST", form.value ? `${form.path}/${encodeURIComponent(form.value.id)}` : form.path, form.value ? { revision: form.value.revision, ...body } : body, form.value ? "Saved" : "Set up");
  }

  async function send(button, method, path, body, done) {
    if (button) button.disabled = true;
    const answer = await asked(path, method, body);
    if (button) button.disabled = false;
    if (!form) return;
    if (answer.problem) return void refuse(answer.problem);
    window.spendscope.toast(done);
    // The address without the form is drawn anew; a second draw could come late and undo a form opened meanwhile.
    close();
  }

  function refuse(problem) {
    form.said.textContent = problem.detail;
    const control = problem.field && form.element.querySelector(`[data-field="${CSS.escape(problem.field.replace(/^scope\./, ""))}"]`);
    if (control) { control.setAttribute("aria-invalid", "true"); control.focus(); }
  }

  async function showPreview() {
    const mine = form, settings = form.settings();
    mine.previewed.replaceChildren(make("p", { class: "hint" }, "Looking at the last 12 months …"));
    const settingsOf = mine.read(); // a name is needed to keep it, not to look back
    const answer = await asked("/api/v1/rules/preview", "POST", { kind: mine.value ? mine.value.kind : undefined, ...settingsOf, name: settingsOf.name || "Rule" });
    if (form !== mine) return;
    if (answer.problem) { mine.previewed.replaceChildren(); return void refuse(answer.problem); }
    const found = answer.found, most = 12, items = found.items.slice(-most).reverse();
    const rows = items.map((one) => make("li", {}, make("b", {}, days(one.start, one.last)), " ", what(one, mine), make("span", { class: "beside" }, `told ${day(one.fired)}${one.state === "undone" ? ", undone later" : ""}`)));
    mine.previewed.replaceChildren(make("p", { class: "sentence" }, found.sentence), rows.length ? make("ol", { class: "preview-list" }, rows) : "", found.items.length > most ? make("p", { class: "hint" }, `and ${found.items.length - most} before them`) : "", found.start ? make("p", { class: "hint" }, found.known) : "");
    mine.seen = settings;
    mine.previewed.scrollIntoView({ block: "nearest" });
  }

  const money = (value) => new Intl.NumberFormat("en", { style: "currency", currency: drawn.form.currency }).format(Number(value));
  function what(one, of) {
    const kind = JSON.parse(of.settings()).kind;
    if (kind === "threshold") return money(one.value);
    if (kind === "change") return `${money(one.value)} after ${money(one.limit)}`;
    if (kind === "budget_burn") { const [actual, percent] = one.part.split(" "); return `${percent} % ${actual === "forecast" ? "expected" : "used"}`; }
    return kind === "data_stale" ? `no new day for ${one.value} hours` : one.part;
  }
  const day = (value) => new Date(value + "T00:00:00Z").toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
  const days = (start, last) => (start === last ? day(start) : `${day(start)} – ${day(last)}`);

  /** {found} or {problem: {detail, field}}. */
  async function asked(path, method, body) {
    try {
      const answer = await fetch(path, { method, headers: { "Content-Type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body) });
      const found = await answer.json().catch(() => ({}));
      return answer.ok ? { found } : { problem: { detail: found.detail || `The server could not do it (error ${answer.status}).`, field: found.field } };
    } catch (error) {
      return { problem: { detail: "No connection to the server. Nothing was changed." } };
    }
  }

  // --- clicks and keys --------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    if (!page() || !event.target.closest) return;
    const link = event.target.closest("a[data-opens]");
    if (link) opener = link.getAttribute("href");
    if (event.target.closest("[data-cancel]")) return close();
    const remove = event.target.closest("[data-remove]");
    if (remove && form) return confirmed(remove);
    const flip = event.target.closest("[data-switch]");
    if (flip) turn(flip);
  }, true);

  /** The second click removes. */
  function confirmed(button) {
    if (button.dataset.sure) return void send(button, "DELETE", `${form.path}/${encodeURIComponent(form.value.id)}?revision=${form.value.revision}`, undefined, "Removed");
    button.dataset.sure = "yes";
    button.textContent = "Remove for good?";
    setTimeout(() => { if (button.isConnected) { delete button.dataset.sure; button.textContent = "Remove"; } }, 5000);
  }

  /** Off at once; on after what it would have said was shown. */
  async function turn(button) {
    if (button.getAttribute("aria-checked") !== "true") {
      opener = "switch:" + button.dataset.switch;
      sessionStorage.setItem("spendscope-switch", button.dataset.switch);
      const query = new URLSearchParams(location.search);
      query.delete("about");
      query.set("edit", "rule:" + button.dataset.switch);
      return window.spendscope.go("?" + query);
    }
    button.disabled = true;
    const answer = await asked(`/api/v1/rules/${encodeURIComponent(button.dataset.switch)}`, "PATCH", { revision: Number(button.dataset.revision), on: false });
    button.disabled = false;
    window.spendscope.toast(answer.problem ? answer.problem.detail : "Switched off");
    again();
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page() && form) close();
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { spendscope_budgets: { paint } });
})();
