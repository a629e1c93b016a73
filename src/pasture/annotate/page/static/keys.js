// Single keys for the verdict; the page works without them. They can be turned off, as WCAG 2.1.4 asks.
"use strict";
(() => {
  const STORED = "pasture-keys";
  const toggle = document.querySelector("[data-keys]");
  let on = localStorage.getItem(STORED) !== "off";
  let sent = false;

  const show = () => {
    toggle.textContent = on ? "Keys are on" : "Keys are off";
    toggle.setAttribute("aria-pressed", String(on));
    document.body.classList.toggle("without-keys", !on);
  };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    on = !on;
    localStorage.setItem(STORED, on ? "on" : "off");
    show();
  });
  show();

  document.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  // A page that comes back from the browser's memory is a fresh one.
  window.addEventListener("pageshow", () => { sent = false; });

  document.addEventListener("keydown", (event) => {
    // Enter in a field would press the form's first button.
    if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
    if (!on || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("textarea, input:not([type=radio]), select")) return;
    const key = event.key.toLowerCase();
    const target = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
    if (!target) return;
    event.preventDefault();
    if (target.tagName === "SUMMARY") {
      target.parentElement.open = true;
      document.getElementById("reason").focus();
    } else {
      target.click();
    }
  });
})();
