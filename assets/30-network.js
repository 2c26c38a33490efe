// A request that fails is said, never swallowed: the old view stays, the way out is offered, success clears it.
(function () {
  "use strict";

  const CALLBACK = "_dash-update-component";
  const original = window.fetch;
  let running = 0;
  let failed = null; // the address that could not be shown
  let pollFailed = false; // whether it was only the list of jobs

  window.fetch = async function (resource, options) {
    const url = typeof resource === "string" ? resource : resource.url;
    if (!url.includes(CALLBACK)) return original.apply(this, arguments);
    const body = String(options && options.body);
    const draws = /"(url|data-url|data-view|anomalies-url|budgets-url)","property"/.test(body);
    const polls = body.includes('"data-tick"'); // somebody who watches jobs should not see the page fade
    if (!polls) busy(1);
    try {
      const response = await original.apply(this, arguments);
      if (response.ok || response.status === 204) { if (draws || !failed || (polls && pollFailed)) say(null); }
      else { pollFailed = polls; await refused(response.clone()); }
      return response;
    } catch (error) {
      pollFailed = polls;
      trouble("No connection to the server. Check your network or VPN. You still see the previous view.");
      throw error;
    } finally {
      if (!polls) busy(-1);
    }
  };

  async function refused(response) {
    if (response.status === 401) {
      const back = encodeURIComponent(location.pathname + location.search);
      return trouble("Your session has ended.", { text: "Sign in again", href: `/login?next=${back}` });
    }
    let problem = {};
    try { problem = await response.json(); } catch (error) { /* a proxy's own page */ }
    const words = problem.reference ? `Something went wrong while loading this page. Reference ${problem.reference}.`
      : problem.detail || `The server could not answer (error ${response.status}).`;
    trouble(`${words} ${window.spendscope && window.spendscope.drawnSearch() !== null ? "You still see the previous view." : ""}`.trim());
  }

  function busy(change) {
    running += change;
    document.documentElement.dataset.busy = running > 0 ? "yes" : "no";
  }

  function trouble(text, way) {
    failed = location.search;
    say(text, way);
  }

  function say(text, way) {
    const place = document.getElementById("trouble");
    if (!place) return;
    if (!text) failed = null;
    place.hidden = !text;
    place.replaceChildren();
    if (!text) return;
    const words = document.createElement("span");
    words.textContent = text;
    if (way) {
      const link = document.createElement("a");
      link.className = "button";
      link.textContent = way.text;
      link.href = way.href;
      return place.append(words, link);
    }
    const again = document.createElement("button");
    again.type = "button";
    again.className = "button";
    again.textContent = "Try again";
    again.addEventListener("click", () => {
      if (window.spendscope && window.spendscope.drawnSearch() !== null) window.spendscope.go(failed === null ? location.search : failed);
      else location.reload();
    });
    place.append(words, again);
  }
})();
