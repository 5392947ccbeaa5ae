"use strict";
// What htmx does not do by itself: the dialog, notices, copying, answers that are not the dashboard's, and the line that
// says a connection was lost.
(() => {
  const by = (id) => document.getElementById(id);

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

  // The dialog is filled by htmx, and shows what this browser's user was last created with.
  const REMEMBERED = "workspaces.user_id";
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id !== "dialog") return;
    const dialog = by("dialog"), field = dialog.querySelector("[data-remember]");
    if (field && !field.value) field.value = localStorage.getItem(REMEMBERED) || "";
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
  });
  document.addEventListener("submit", (event) => {
    const field = event.target.querySelector("[data-remember]");
    if (field && field.value) localStorage.setItem(REMEMBERED, field.value);
  });
  document.addEventListener("dialog-done", () => by("dialog")?.close());

  // What asks by itself may be refused again and again: one notice says so.
  const MOST_NOTICES = 5;
  const tidy = () => {
    const said = new Set();
    for (const notice of [...by("notices").children]) {
      if (said.has(notice.textContent) || said.size === MOST_NOTICES) notice.remove();
      else said.add(notice.textContent);
    }
    for (const notice of document.querySelectorAll("[data-brief]:not([data-seen])")) {
      notice.dataset.seen = "";
      setTimeout(() => notice.remove(), 8000);
    }
  };
  new MutationObserver(tidy).observe(by("notices"), { childList: true });

  // A stream of the page is lost until it is open again, or closed; the server, until it answers.
  const lost = new Set();
  const show = (what, isLost) => {
    isLost ? lost.add(what) : lost.delete(what);
    if (by("lost")) by("lost").hidden = lost.size === 0;
  };
  document.addEventListener("htmx:sseError", (event) => show(event.target, true));
  document.addEventListener("htmx:sseOpen", (event) => show(event.target, false));
  document.addEventListener("htmx:sseClose", (event) => show(event.target, false));

  // When the page's stream is opened again, htmx-sse listens again for what has a stream of its own within it, which would
  // then add each message twice.
  const told = new WeakMap();
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (told.get(event.detail) === event.target) event.preventDefault();
    told.set(event.detail, event.target);
  });

  // The output of a program begins anew on another connection of htmx; the browser's own goes on where it was.
  const sources = new WeakMap();
  document.addEventListener("htmx:sseOpen", ({ target, detail }) => {
    const another = sources.has(target) && sources.get(target) !== detail.source;
    sources.set(target, detail.source);
    if (!another) return;
    for (const each of target.querySelectorAll("[sse-swap=output]")) {
      if (each.closest("[sse-connect]") === target) each.replaceChildren();
    }
  });

  const unanswered = (detail) => {
    show("server", true);
    if (detail.requestConfig.verb === "get") return;
    by("notices").prepend(by("unanswered").content.cloneNode(true));
  };
  document.addEventListener("htmx:sendError", (event) => unanswered(event.detail));
  // An error of the dashboard names its place in the page. Any other is from something before it, such as an ingress.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const answer = event.detail.xhr;
    const foreign = answer.status >= 400 && !answer.getResponseHeader("HX-Retarget");
    if (!foreign) return show("server", false);
    event.detail.shouldSwap = false;
    unanswered(event.detail);
  });
})();
