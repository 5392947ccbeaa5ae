"use strict";
// Reads processes from /proc (proc(5)); empty for processes that have ended.
const fs = require("node:fs");
const path = require("node:path");

const TICKS = 100; // A second of CPU time as Linux counts it (sysconf(3), _SC_CLK_TCK).
const PTY = 136; // The major number of terminals below /dev/pts.
const LISTENING = "0A"; // A socket's state in /proc/net/tcp.

function read(name) {
  try {
    return fs.readFileSync(name, "utf8");
  } catch {
    return ""; // It ended.
  }
}

// The names in a folder.
function entries(folder) {
  try {
    return fs.readdirSync(folder);
  } catch {
    return []; // It ended.
  }
}

// Where a link leads.
function link(name) {
  try {
    return fs.readlinkSync(name);
  } catch {
    return ""; // It was closed.
  }
}

// A process's name, parent, process group, terminal ("" for none) and that terminal's foreground group, start, and CPU
// time in ticks: its own, and with that of its ended children (/proc/pid/stat). A name may contain brackets and blanks.
function statOf(pid) {
  const text = read(`/proc/${pid}/stat`);
  const end = text.lastIndexOf(")");
  if (end < 0) return undefined;
  const rest = text.slice(end + 2).split(" ");
  const [user, system, usersOfChildren, systemOfChildren] = rest.slice(11, 15).map(Number);
  const name = text.slice(text.indexOf("(") + 1, end);
  return {
    // Node calls its thread so, and with it the process.
    name: name === "MainThread" ? path.basename(argumentsOf(pid)[0]) : name,
    parent: Number(rest[1]),
    group: rest[2],
    terminal: deviceOf(Number(rest[4])),
    foreground: rest[5],
    start: rest[19],
    own: user + system,
    all: user + system + usersOfChildren + systemOfChildren,
  };
}

// The major number is in the bits 8 to 19.
function deviceOf(number) {
  const minor = (number & 0xff) | ((number >>> 12) & 0xfff00);
  return ((number >>> 8) & 0xfff) === PTY ? `/dev/pts/${minor}` : "";
}

// A process's command line; one empty text if it ended.
function argumentsOf(pid) {
  return read(`/proc/${pid}/cmdline`).split("\0");
}

function childrenOf(pid) {
  const children = (thread) => read(`/proc/${pid}/task/${thread}/children`).split(" ").filter(Boolean).map(Number);
  return entries(`/proc/${pid}/task`).flatMap(children);
}

// Children that VS Code has started with this type: `extensionHost`, `ptyHost`.
function childrenOfType(pid, type) {
  return childrenOf(pid).filter((child) => read(`/proc/${child}/cmdline`).includes(`--type=${type}`));
}

// The CPU time of processes, with that of their ended children, in ticks.
function cpuOf(processes) {
  return [...processes].reduce((total, each) => total + each.all, 0);
}

// The sockets that listen in this process's network: address (as the kernel writes it), port, and where a link of a
// file descriptor to each leads.
function listeners() {
  const lines = ["tcp", "tcp6"].flatMap((name) => read(`/proc/net/${name}`).split("\n"));
  const fields = lines.map((line) => line.trim().split(/\s+/)).filter((each) => each[3] === LISTENING);
  return fields.map((each) => {
    const [address, port] = each[1].split(":");
    return { address, port: parseInt(port, 16), socket: `socket:[${each[9]}]` };
  });
}

module.exports = { TICKS, argumentsOf, childrenOf, childrenOfType, cpuOf, entries, link, listeners, read, statOf };
