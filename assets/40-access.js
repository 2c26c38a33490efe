// Two gaps of Dash 4 controls that assistive technology falls into; see tests/e2e for the check (axe-core).
(function () {
  "use strict";

  function mend(root) {
    for (const input of root.querySelectorAll(".dash-dropdown-focus-target")) {
      input.removeAttribute("aria-hidden");
      const field = input.closest(".field");
      if (field && !input.getAttribute("aria-label")) input.setAttribute("aria-label", field.firstChild.textContent);
    }
    for (const box of root.querySelectorAll("div.dash-datepicker-input-wrapper[aria-expanded], .dash-datepicker div[aria-expanded]"))
      ["aria-expanded", "aria-haspopup", "aria-controls"].forEach((name) => box.removeAttribute(name));
  }

  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mend(document); });
  }).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-expanded", "aria-hidden"] });
})();
