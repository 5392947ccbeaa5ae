"use strict";
// Asks this page's own address for the state of the start, and reloads the page as soon as the workspace answers.
(() => {
  const QUICK = 300, SLOW = 2000, HIDDEN = 5000, QUICK_FOR = 20000, PATIENCE = 10000;
  const at = (id) => document.getElementById(id);
  const live = at("live");
  const estimate = Number(live.dataset.estimate);
  const opened = performance.now();
  let began = opened - Number(live.dataset.elapsed);
  let up = false;

  function show(state) {
    began = performance.now() - state.elapsed_ms;
    live.dataset.state = state.session_status;
    for (const item of at("phases").children) {
      const ms = state.phases[item.id.replace("phase-", "")];
      item.className = ms === undefined ? "" : "done";
      item.querySelector("span").textContent = ms === undefined ? "" : ms + " ms";
    }
    at("reason").textContent = state.reason || "";
    stop(state.session_status);
  }

  function stop(status) {
    const over = status === "failed" || status === "sleeping";
    at("retry").hidden = !over;
    at("progress").hidden = over;
    at("time").hidden = over;
    document.querySelector("h1").textContent =
      { failed: "The workspace did not start", sleeping: "The workspace is asleep" }[status] || "Waking the workspace";
  }

  function tick() {
    if (up) return;
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
      if (starting && answer.headers.get("Workspace-Status") !== "unknown") show(await answer.json());
      // Not the waking page any more: the editor, or a refusal of forward auth.
      if (!starting && (answer.ok || answer.type === "opaqueredirect" || [401, 403, 404].includes(answer.status))) {
        up = true;
        location.reload();
        return;
      }
    } catch (error) {
      // The network or the service is down: ask again below.
    }
    const quick = performance.now() - opened < QUICK_FOR && at("retry").hidden;
    setTimeout(ask, document.hidden ? HIDDEN : quick ? QUICK : SLOW);
  }

  at("retry").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch(event.target.action, { method: "POST", redirect: "manual" }).catch(() => null);
    if (answer && answer.type === "opaqueredirect") { at("reason").textContent = ""; stop("waking"); began = performance.now(); }
  });

  stop(live.dataset.state);
  tick();
  setInterval(tick, 100);
  setTimeout(ask, QUICK);
})();
