"use strict";
// What htmx does not do by itself: notices that close, dialogs, copying, and the line that says a connection was lost.
(() => {
  document.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    if (close) close.parentElement.remove();
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard.writeText(copy.dataset.copy).then(() => {
        copy.classList.add("copied");
        setTimeout(() => copy.classList.remove("copied"), 1200);
      });
    }
    if (event.target.closest("[data-cancel]")) event.target.closest("dialog").close();
  });

  // A dialog opens when it is swapped in, as a modal one: the focus stays within, Escape closes it.
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id !== "dialogs") return;
    for (const dialog of event.detail.target.querySelectorAll("dialog[data-modal]:not([open])")) {
      dialog.addEventListener("close", () => dialog.remove());
      dialog.showModal();
    }
  });

  const lost = (shown) => {
    const line = document.getElementById("lost");
    if (line) line.hidden = !shown;
  };
  document.addEventListener("htmx:sseError", () => lost(true));
  document.addEventListener("htmx:sseOpen", () => lost(false));
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:afterOnLoad", () => lost(false));
})();
