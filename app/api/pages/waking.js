"use strict";
// Asks this page's own address for the state of the start, and reloads the page as soon as the workspace answers.
(() => {
  const QUICK = 300, SLOW = 2000, HIDDEN = 5000, QUICK_FOR = 20000, PATIENCE = 10000;
  const at = (id) => document.getElementById(id);
  const live = at("live");
  const estimate = Number(live.dataset.estimate);
  const opened = performance.now();
  const isOver = () => ["failed", "sleeping"].includes(live.dataset.state);
  let began = opened - Number(live.dataset.elapsed);
  let up = false;

  function write(id, text) {
    // Screen readers would read the same text again.
    if (at(id).textContent !== text) at(id).textContent = text;
  }

  function tell({ title, text, detail }) {
    write("title", title);
    write("text", text);
    write("detail", detail);
    at("details").hidden = !detail;
  }

  function show(state) {
    began = performance.now() - state.elapsed_ms;
    live.dataset.state = state.session_status;
    showSteps(state.phases, state.session_status);
    tell(state.for_people);
    at("retry").hidden = !isOver();
    if (isOver()) showEnd();
    at("retry").firstElementChild.textContent = state.session_status === "sleeping" ? "Wake it" : "Try again";
  }

  function showSteps(phases, status) {
    let reached = 0;
    let next = { failed: "failed", sleeping: "" }[status] ?? "now";
    for (const item of at("phases").children) {
      const ms = phases[item.id.replace("phase-", "")];
      item.className = item.querySelector(".said").textContent = ms === undefined ? next : "done";
      item.querySelector(".took").textContent = ms === undefined ? "" : ((ms - reached) / 1000).toFixed(1) + " s";
      if (ms === undefined) next = "";
      else reached = ms;
    }
    at("phases").hidden = next === "failed";
  }

  // The workspace is up, and nothing answers at the port that this page is about.
  function showSilent(state) {
    tell(state.for_people);
    at("phases").hidden = true;
  }

  function showEnd() {
    at("progress").value = live.dataset.state === "failed" ? 1 : 0;
  }

  function tick() {
    if (up || isOver()) return;
    const seconds = (performance.now() - began) / 1000;
    const usual = estimate ? ", usually " + (estimate / 1000).toFixed(1) + " s" : "";
    at("time").textContent = seconds.toFixed(1) + " s" + usual;
    // Never at its end before the workspace is up.
    at("progress").value = 1 - Math.exp(-seconds * 1000 / (estimate || 1000));
  }

  async function ask() {
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: { Accept: "application/json" }, cache: "no-store", redirect: "manual",
        signal: AbortSignal.timeout(PATIENCE),
      });
      const starting = answer.headers.has("Workspace-Status");
      if (starting) {
        const state = await answer.json();
        if (answer.headers.get("Workspace-Status") !== "unknown") show(state);
        else if (state.error === "port_not_listening") showSilent(state);
      }
      // Not the waking page any more: the editor, or a refusal of forward auth.
      if (!starting && (answer.ok || answer.type === "opaqueredirect" || [401, 403, 404].includes(answer.status))) {
        up = true;
        location.reload();
        return;
      }
    } catch (error) {
      // The network or the service is down: ask again below.
    }
    const quick = performance.now() - opened < QUICK_FOR && !isOver();
    setTimeout(ask, document.hidden ? HIDDEN : quick ? QUICK : SLOW);
  }

  at("retry").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch(event.target.action, { method: "POST", redirect: "manual" }).catch(() => null);
    if (answer && answer.type === "opaqueredirect") location.reload();
  });

  if (isOver()) showEnd();
  tick();
  setInterval(tick, 100);
  setTimeout(ask, QUICK);
})();
