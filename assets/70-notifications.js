// The browser's half of the Notifications page: tests, sending again, and asking again while something waits.
(function () {
  "use strict";

  const SAME = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const page = () => document.querySelector(".notifications-page");
  const results = new Map(); // what came of the tests of this visit, by channel
  let ticks = 0, timer = 0;

  const again = () => set("notifications-again", { data: ++ticks });

  function paint(found) {
    if (!found) return SAME();
    window.spendscope.drew(location.search);
    set("status", { children: found.spoken });
    clearTimeout(timer);
    if (found.waiting) timer = setTimeout(poll, 5000);
    requestAnimationFrame(() => requestAnimationFrame(shown));
    return SAME();
  }

  /** Nobody looks at a hidden page; a list somebody is using is not drawn anew under the focus. */
  function poll() {
    if (!page()) return;
    if (document.hidden || document.activeElement.closest("#notifications-list, #notifications-channels")) timer = setTimeout(poll, 5000);
    else again();
  }

  /** The list was drawn again: what came of a test stays beside its button. */
  function shown() {
    window.spendscope.tellTime();
    results.forEach((words, channel) => {
      const place = document.querySelector(`[data-result="${CSS.escape(channel)}"]`);
      if (place && place.textContent !== words) place.textContent = words;
    });
  }

  /** The answer, or what is wrong in words. */
  async function post(path, body) {
    try {
      const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, ...(body ? { body: JSON.stringify(body) } : {}) });
      const said = await answer.json().catch(() => ({}));
      return answer.ok ? { said } : { wrong: said.detail || `The server could not do it (error ${answer.status}).` };
    } catch (error) {
      return { wrong: "No connection to the server. Nothing was sent." };
    }
  }

  function told(channel, words) {
    results.set(channel, words);
    shown();
  }

  async function test(button) {
    const channel = button.dataset.test;
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    told(channel, "Sending …");
    const { said, wrong } = await post("/api/v1/notifications/test", { channel });
    const came = wrong || (said.status === "sent" ? "Sent: the receiver took it." : `Failed: ${said.message || "no reason was given"}`);
    button.removeAttribute("aria-disabled");
    told(channel, came);
    again();
    setTimeout(() => { const now = document.querySelector(`[data-test="${CSS.escape(channel)}"]`); if (now && document.activeElement === document.body) now.focus(); }, 600);
  }

  async function retry(button) {
    const { wrong } = await post(`/api/v1/notifications/${encodeURIComponent(button.dataset.retry)}/retry`);
    window.spendscope.toast(wrong || "It goes out with the next message of its channel");
    if (!wrong) again();
  }

  document.addEventListener("click", (event) => {
    const button = page() && event.target.closest && event.target.closest("button[data-test], button[data-retry]");
    if (!button) return;
    if (button.dataset.test) test(button);
    else retry(button);
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { spendscope_notifications: { paint } });
})();
