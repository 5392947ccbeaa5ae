"use strict";
// The list of sessions: choosing several, keys, the menu of a row, and times that go on.
(() => {
  const by = (id) => document.getElementById(id);
  const rows = () => [...document.querySelectorAll("tr[data-uuid]")];
  const box = (row) => row.querySelector("input[name=uuid]");

  // Chosen sessions stay chosen while their rows are replaced.
  const chosen = new Set();
  let anchor = null;
  function showChosen() {
    const all = rows().filter(box);
    const uuids = new Set(all.map((row) => row.dataset.uuid));
    for (const uuid of [...chosen]) if (!uuids.has(uuid)) chosen.delete(uuid);
    for (const row of all) box(row).checked = chosen.has(row.dataset.uuid);
    const bar = by("bulk");
    if (!bar) return;
    bar.hidden = chosen.size === 0;
    by("bulk-count").textContent = `${chosen.size} chosen`;
    const whole = document.querySelector("[data-choose-all]");
    if (whole) {
      whole.checked = all.length > 0 && chosen.size === all.length;
      whole.indeterminate = chosen.size > 0 && !whole.checked;
    }
  }
  function choose(row, on, range) {
    const all = rows().filter(box);
    const from = range && anchor ? all.findIndex((each) => each.dataset.uuid === anchor) : -1;
    const at = all.indexOf(row);
    const part = from < 0 ? [row] : all.slice(Math.min(from, at), Math.max(from, at) + 1);
    for (const each of part) on ? chosen.add(each.dataset.uuid) : chosen.delete(each.dataset.uuid);
    anchor = row.dataset.uuid;
    showChosen();
  }
  function chooseNone() {
    chosen.clear();
    showChosen();
  }

  function showMenu(button) {
    const menu = by("row-menu"), row = button.closest("tr"), can = row.dataset.can.split(" ");
    by("row-menu-uuid").value = row.dataset.uuid;
    for (const item of menu.querySelectorAll("[data-action]")) item.hidden = !can.includes(item.dataset.action);
    menu.showPopover();
    const place = button.getBoundingClientRect(), size = menu.getBoundingClientRect();
    menu.style.left = `${Math.max(8, place.right - size.width)}px`;
    menu.style.top = `${place.bottom + size.height > innerHeight ? place.top - size.height : place.bottom}px`;
    menu.querySelector("[data-action]:not([hidden])").focus();
  }
  function openWorkspace(row) {
    if (!by("row-menu") || !row.dataset.can.split(" ").includes("open")) return;
    by("row-menu-uuid").value = row.dataset.uuid;
    by("row-menu").requestSubmit();
  }

  document.addEventListener("click", (event) => {
    const target = event.target, at = (what) => target.closest(what);
    if (at("[data-menu]")) showMenu(at("[data-menu]"));
    else if (at("#row-menu [data-action]")) setTimeout(() => by("row-menu").hidePopover());
    else if (at("[data-choose-none]")) chooseNone();
    else if (at("[data-choose-all]")) {
      for (const row of rows().filter(box)) target.checked ? chosen.add(row.dataset.uuid) : chosen.delete(row.dataset.uuid);
      showChosen();
    } else if (at("tr[data-uuid] input[name=uuid]")) choose(at("tr"), target.checked, event.shiftKey);
  });

  const MOVES = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    const target = event.target, row = target.closest("tr[data-uuid]");
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("dialog[open], :popover-open")) return;
    if (target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const all = rows();
    if (event.key in MOVES && all.length && (row || !event.key.startsWith("Arrow"))) {
      const at = row ? all.indexOf(row) + MOVES[event.key] : 0;
      const link = all[Math.max(0, Math.min(all.length - 1, at))].querySelector("a.session");
      link.focus({ preventScroll: true });
      link.closest("tr").scrollIntoView({ block: "nearest" });
    } else if (event.key === "/" && by("q")) by("q").select();
    else if (event.key === "c" && by("create")) by("create").click();
    else if (event.key === "?") by("keys").showModal();
    else if (event.key === "Escape" && chosen.size) chooseNone();
    else if (event.key === "x" && row && box(row)) choose(row, !box(row).checked, false);
    else if (event.key === "o" && row) openWorkspace(row);
    else return;
    event.preventDefault();
  });

  document.addEventListener("dialog-done", chooseNone);

  // On a narrow screen the tabs scroll.
  const showTab = () => document.querySelector("#tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  showTab();

  document.addEventListener("htmx:afterSettle", showChosen);
  document.addEventListener("htmx:afterSettle", showTab);

  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function ago(when, shown) {
    const seconds = (Date.now() - Date.parse(when)) / 1000, length = Math.abs(seconds);
    const [unit, name] = UNITS.find(([each]) => length >= each) || UNITS[3];
    const span = `${Math.floor(length / unit)} ${name}`;
    if (seconds < 0) return `in ${span}`;
    if (seconds < 5) return shown === "ago" ? "just now" : "now";
    return shown === "ago" ? `${span} ago` : span;
  }
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-shown]")) {
      const text = ago(time.dateTime, time.dataset.shown);
      if (time.textContent !== text) time.textContent = text;
    }
  }, 5000);
})();
