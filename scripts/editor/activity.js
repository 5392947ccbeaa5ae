"use strict";
// Leaves signs of what goes on in the editor's terminals where the workspace's agent finds them
// (app/agent/activity.py): when somebody typed into one, and when what runs in one used the processor. The agent
// can't see that itself, since in a cluster the editor is another container; VS Code can't either, whose extensions
// end with their page while terminals live on.
//
// Runs in code-server's own process (launch.js) and looks at the processes below it alone: some thirty small reads
// of /proc every few seconds.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { read, childrenOf, childrenOfType } = require("./proc");

const LOOK = 5_000; // ms between two looks.
const TICKS = 100; // Linux tells processor time in hundredths of a second (sysconf(3), _SC_CLK_TCK).
const SHARE = 0.01; // of a processor: less is what waits, as an idle server or an editor in a terminal does.
const NAMES = 20; // Jobs that are told by name.

const folder = path.join(os.homedir(), ".local", "state", "workspace");
const file = path.join(folder, "terminals.json");

// Of one process: its name, when it started, and the processor time of its own and of its children that ended, in
// ticks (proc(5), /proc/pid/stat). A name may hold anything, brackets and blanks too.
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

function terminalOf(pid) {
  try {
    const input = fs.readlinkSync(`/proc/${pid}/fd/0`);
    return input.startsWith("/dev/pts/") ? input : "";
  } catch {
    return ""; // It ended.
  }
}

// The shells: what VS Code's process for terminals has started in one. It also runs programs for itself.
function shellsBelow(pid) {
  return childrenOfType(pid, "ptyHost").flatMap(childrenOf).filter(terminalOf);
}

function typedAt(pid) {
  try {
    // The kernel notes a read of a terminal as access, in steps of 8 s; what is written to it is none.
    return fs.statSync(terminalOf(pid)).atimeMs / 1000;
  } catch {
    return 0;
  }
}

// Everything that runs in terminals now, and what of the processes known before has detached itself from one.
function processesOf(shells, known) {
  const found = new Map();
  const waiting = [...shells, ...known.keys()];
  while (waiting.length) {
    const pid = waiting.pop();
    if (found.has(pid)) continue;
    const stat = statOf(pid);
    const before = known.get(pid);
    if (!stat || (before && before.start !== stat.start && !shells.includes(pid))) continue;
    found.set(pid, stat);
    waiting.push(...childrenOf(pid));
  }
  return found;
}

class Watch {
  constructor(root) {
    this.root = root;
    this.known = new Map();
    this.looked = 0;
    this.told = { input_at: 0, busy_at: 0, busy: "", jobs: [] };
  }

  // What goes on in the terminals below `root`, at a time in seconds since the epoch.
  look(now) {
    const shells = shellsBelow(this.root);
    const found = processesOf(shells, this.known);
    const sum = (processes) => [...processes.values()].reduce((total, each) => total + each.all, 0);
    const used = (sum(found) - sum(this.known)) / TICKS;
    // Before the first look all may have been used at any time.
    const busy = this.looked > 0 && used > SHARE * Math.min(now - this.looked, (10 * LOOK) / 1000);
    const jobs = [...found].filter(([pid]) => !shells.includes(pid)).map(([, each]) => each.name);
    this.told = {
      input_at: Math.max(0, ...shells.map(typedAt)),
      busy_at: busy ? now : this.told.busy_at,
      busy: busy ? busiest(found, this.known) : this.told.busy,
      jobs: [...new Set(jobs)].sort().slice(0, NAMES),
    };
    this.known = found;
    this.looked = now;
    return this.told;
  }
}

function busiest(found, known) {
  const used = ([pid, each]) => each.own - (known.get(pid)?.own ?? 0);
  return [...found].reduce((most, each) => (used(each) > used(most) ? each : most))[1].name;
}

// Looks again and again while this process lives, and writes what changed.
function start(every = LOOK) {
  const watch = new Watch(process.pid);
  let written = "";
  const tell = () => {
    const text = JSON.stringify(watch.look(Date.now() / 1000));
    if (text === written) return;
    try {
      fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
      fs.writeFileSync(`${file}.new`, text);
      fs.renameSync(`${file}.new`, file);
      written = text;
    } catch {
      // The volume is full: the next look tries again.
    }
  };
  // Not at once: nothing runs yet, and the start of the editor is waited for.
  setInterval(tell, every).unref();
}

module.exports = { Watch, start };
