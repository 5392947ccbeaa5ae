"use strict";
// Reads processes from /proc (proc(5)); empty for processes that have ended.
const fs = require("node:fs");

const TICKS = 100; // A second of CPU time as Linux counts it (sysconf(3), _SC_CLK_TCK).

function read(name) {
  try {
    return fs.readFileSync(name, "utf8");
  } catch {
    return ""; // It ended.
  }
}

// A process's name, start, and CPU time in ticks: its own, and with that of its ended children (/proc/pid/stat). A name
// may contain brackets and blanks.
function statOf(pid) {
  const text = read(`/proc/${pid}/stat`);
  const end = text.lastIndexOf(")");
  if (end < 0) return undefined;
  const rest = text.slice(end + 2).split(" ");
  const [user, system, usersOfChildren, systemOfChildren] = rest.slice(11, 15).map(Number);
  return {
    name: text.slice(text.indexOf("(") + 1, end),
    start: rest[19],
    own: user + system,
    all: user + system + usersOfChildren + systemOfChildren,
  };
}

function childrenOf(pid) {
  let threads = [];
  try {
    threads = fs.readdirSync(`/proc/${pid}/task`);
  } catch {
    // It ended.
  }
  return threads.flatMap((thread) => read(`/proc/${pid}/task/${thread}/children`).split(" ").filter(Boolean).map(Number));
}

// Children that VS Code has started with this type: `extensionHost`, `ptyHost`.
function childrenOfType(pid, type) {
  return childrenOf(pid).filter((child) => read(`/proc/${child}/cmdline`).includes(`--type=${type}`));
}

module.exports = { TICKS, read, statOf, childrenOf, childrenOfType };
