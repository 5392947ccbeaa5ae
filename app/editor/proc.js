"use strict";
// Reads processes from /proc (proc(5)); empty for processes that have ended.
const fs = require("node:fs");

function read(name) {
  try {
    return fs.readFileSync(name, "utf8");
  } catch {
    return ""; // It ended.
  }
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

module.exports = { read, childrenOf, childrenOfType };
