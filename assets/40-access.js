// Two gaps of Dash 4 controls that assistive technology falls into; see tests/e2e for the check (axe-core).
(function () {
  "use strict";

  function mend(root) {
    for (const input of root.querySelectorAll(".dash-dropdown-focus-target")) {
      input.removeAttribute("aria-hidden");
      const field = input.closest(".field");
      if (field && !input.getAttribute("aria-label")) input.setAttribute("aria-label", field.firstChild.textContent);
    }
    // The button's name must hold what it shows, in that order.
    for (const button of root.querySelectorAll("button.dash-dropdown")) {
      const name = `${button.closest(".field") ? button.closest(".field").firstChild.textContent + ": " : ""}${button.innerText.replace(/\s+/g, " ").trim()}`;
      if (button.hasAttribute("aria-labelledby")) button.removeAttribute("aria-labelledby");
      if (button.getAttribute("aria-label") !== name) button.setAttribute("aria-label", name);
    }
    // A link without an address inside that button: for the pointer only, the list itself has "Deselect all".
    for (const clear of root.querySelectorAll("button .dash-dropdown-clear")) clear.setAttribute("aria-hidden", "true");
    for (const box of root.querySelectorAll("div.dash-datepicker-input-wrapper[aria-expanded], .dash-datepicker div[aria-expanded]"))
      ["aria-expanded", "aria-haspopup", "aria-controls"].forEach((name) => box.removeAttribute(name));
  }

  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mend(document); });
  }).observe(document.documentElement, { childList: true, subtree: true, attributes: true, characterData: true, attributeFilter: ["aria-expanded", "aria-hidden", "aria-labelledby"] });
})();
