"use strict";
// Commands are run by the keyboard, and again.
(() => {
  const field = () => document.getElementById("command");

  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "command" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.target.form.querySelector("button").disabled) event.target.form.requestSubmit();
  });

  document.addEventListener("click", (event) => {
    const again = event.target.closest("[data-command]");
    if (!again || !field()) return;
    field().value = again.dataset.command;
    document.getElementById("cwd").value = again.dataset.cwd;
    field().focus();
  });

  // A command whose answer was lost may have begun. It is sent again under its id, so that it runs once.
  const NOTHING = { id: "", command: "", cwd: "" };
  let sending = NOTHING;
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt?.id !== "run-composer") return;
    const command = field().value, cwd = document.getElementById("cwd").value;
    if (sending.command !== command || sending.cwd !== cwd) sending = { id: crypto.randomUUID(), command, cwd };
    event.detail.parameters.set("id", sending.id);
  });
  const sent = () => {
    if (field()?.value === sending.command) field().value = "";
    sending = NOTHING;
  };

  // What is open in the list is open again in the one that replaces it.
  const OPEN = ".exec:has(.exec-live, [open], [data-follow].htmx-request)";
  let open = [];
  const reopen = () => {
    for (const entry of open.map((id) => document.getElementById(id))) {
      entry?.querySelector("details")?.setAttribute("open", "");
      entry?.querySelector("[data-follow]")?.click();
    }
  };

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { elt } = event.detail.requestConfig;
    // The list has the entry of a command already that is sent again.
    if (elt.id === "run-composer") document.getElementById("exec-" + sending.id)?.remove();
    // While the workspace can't be asked there is no list, and nothing that could be open.
    if (elt.id === "execs-reload" && document.querySelector(".exec")) {
      open = [...document.querySelectorAll(OPEN)].map((entry) => entry.id);
    }
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, xhr } = event.detail;
    if (xhr.status < 200 || xhr.status > 299) return;
    if (elt?.id === "run-composer") sent();
    if (elt?.id === "execs-reload") reopen();
  });
})();
