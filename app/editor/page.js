"use strict";
// Part of the editor's page (install puts it there): says at once that the workspace behind an open page sleeps, has
// stopped or is gone. VS Code itself takes a lost connection for a bad network, and says nothing for 20 to 40 s.
//
// A connection that closes is the signal. Only then it asks forward auth, by a request that wakes nothing, whether the
// workspace is up; while all is well it asks nobody. The page stays as it is, with what was typed and not saved.
(() => {
  const ASK = document.currentScript.dataset.health; // The least that code-server answers.
  const SOON = 300, LATER = 3000, PATIENCE = 5000; // ms
  const REFUSED = [401, 403];

  const WORDS = {
    sleeping: ["This workspace is asleep", "Its files are kept. What is not saved is on this page only.", "Wake it"],
    failed: ["This workspace has stopped", "Its files are kept. What is not saved is on this page only.", "See why"],
    waking: ["This workspace is starting again", "Open it as soon as it is up.", "Open it"],
    up: ["This workspace is up again", "It was stopped meanwhile. What is not saved is on this page only.", "Open it"],
    gone: ["This workspace was deleted", "What is not saved is on this page only.", "Go on"],
    refused: ["You have no access to this workspace any more", "Ask for a new link where you found it.", "Go on"],
    closed: ["This workspace is not running", "Its files are kept. What is not saved is on this page only.", "Open it"],
  };
  const FINAL = ["gone", "refused"];

  const STYLE = `
    .workspace-notice { --surface: #ffffff; --line: #e4e4e9; --text: #1b1b21; --muted: #61616e; --accent: #4f46e5; --on-accent: #ffffff;
      box-sizing: border-box; width: min(30rem, calc(100vw - 2rem)); padding: 1.5rem; border: 1px solid var(--line); border-radius: 8px;
      background: var(--surface); color: var(--text); font: 15px/1.5 Inter, system-ui, sans-serif; box-shadow: 0 8px 32px #0006; }
    @media (prefers-color-scheme: dark) { .workspace-notice {
      --surface: #17171d; --line: #2a2a33; --text: #ececf1; --muted: #a0a0ad; --accent: #8b85ff; --on-accent: #0f0f13; } }
    .workspace-notice::backdrop { background: #0f0f13; opacity: .6; }
    .workspace-notice:not(:modal) { position: fixed; inset: auto 1rem 2.5rem auto; z-index: 100000; margin: 0; }
    .workspace-notice h2 { margin: 0 0 .25rem; font-size: 1.2rem; line-height: 1.3; }
    .workspace-notice p { margin: 0 0 1.25rem; color: var(--muted); }
    .workspace-notice button { margin: 0 .5rem 0 0; padding: .5rem 1rem; border: 1px solid var(--line); border-radius: 8px;
      background: none; color: inherit; font: inherit; font-weight: 600; cursor: pointer; }
    .workspace-notice button:first-of-type { border-color: var(--accent); background: var(--accent); color: var(--on-accent); }
    .workspace-notice button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .workspace-notice:not(:modal) button:last-of-type { display: none; }`;

  let notice; // The dialog, once there was something to say.
  let said = "";
  let asking = false;
  let leaving = false;
  let next; // The timer of the next question.

  // One of WORDS' names; "" while it can't be said: the network or the service is away.
  async function state() {
    let answer;
    try {
      answer = await fetch(ASK, {
        headers: { Accept: "application/json" }, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(PATIENCE),
      });
    } catch {
      return "";
    }
    const status = answer.headers.get("Workspace-Status");
    if (status) return { sleeping: "sleeping", failed: "failed", waking: "waking", created: "waking" }[status] ?? "";
    // ingress-nginx tells no script why it does not let it in.
    if (answer.type === "opaqueredirect") return "closed";
    if (answer.status === 404) return "gone";
    if (REFUSED.includes(answer.status)) return "refused";
    return answer.ok ? "up" : "";
  }

  async function ask() {
    clearTimeout(next);
    if (asking || leaving || FINAL.includes(said)) return;
    asking = true;
    const found = await state();
    asking = false;
    if (leaving) return;
    // A workspace that is up, and was never away, only lost a connection: VS Code opens another.
    if (found && (found !== "up" || said)) say(found);
    const again = found === "" ? SOON : LATER;
    if (found !== "up" && !FINAL.includes(found) && !document.hidden) next = setTimeout(ask, again);
  }

  function say(name) {
    if (name === said) return;
    said = name;
    const [title, text, label] = WORDS[name];
    if (!notice) make();
    notice.querySelector("h2").textContent = title;
    notice.querySelector("p").textContent = text;
    notice.querySelector("button").textContent = label;
  }

  function make() {
    const style = document.createElement("style");
    style.textContent = STYLE;
    notice = document.createElement("dialog");
    notice.className = "workspace-notice";
    notice.setAttribute("aria-labelledby", "workspace-notice-title");
    const title = document.createElement("h2");
    title.id = "workspace-notice-title";
    title.setAttribute("aria-live", "polite");
    const [go, stay] = ["", "Stay on this page"].map((label) => {
      const button = document.createElement("button");
      button.textContent = label;
      return button;
    });
    go.addEventListener("click", () => location.reload());
    stay.addEventListener("click", () => notice.close());
    // It no longer covers the page, so that text can be copied from it.
    notice.addEventListener("close", () => notice.show());
    // VS Code would take these keys for its own.
    for (const type of ["keydown", "keyup", "keypress"]) notice.addEventListener(type, (event) => event.stopPropagation());
    notice.append(title, document.createElement("p"), go, stay);
    document.body.append(style, notice);
    notice.showModal();
  }

  const Native = window.WebSocket;
  window.WebSocket = class WebSocket extends Native {
    constructor(...given) {
      super(...given);
      this.addEventListener("close", ask);
    }
  };
  addEventListener("pagehide", () => (leaving = true));
  addEventListener("pageshow", () => (leaving = false));
  addEventListener("online", ask);
  document.addEventListener("visibilitychange", () => document.hidden || ask());
})();
