"use strict";
// Writes activity signals of the editor's terminals for the workspace's agent (app/agent/activity_reporter.py): when a user last
// typed into one, when a process in one last used the CPU, and a job that is at work without (quiet.js). The agent can't
// see this itself, since in a cluster the editor is another container. VS Code extensions can't either: they end with
// their page, while terminals live on.
//
// Runs in code-server's own process (launch.js) and reads only the processes below it: some thirty small reads of /proc
// every few seconds.
const fs = require("node:fs");
const path = require("node:path");
const { SIGNALS, replace } = require("./files");
const { TICKS, childrenOf, childrenOfType, cpuOf, link, statOf } = require("./proc");
const { Keeps, QuietJobs } = require("./quiet");

const INTERVAL = 5_000; // ms between two samples.
const SHARE = 0.01; // of a CPU: processes that use less are idle, as a waiting server or a text editor is.
const NAMES = 20; // Jobs reported by name.

const file = path.join(SIGNALS, "terminals.json");

function terminalOf(pid) {
  const input = link(`/proc/${pid}/fd/0`);
  return input.startsWith("/dev/pts/") ? input : "";
}

// The shells: children of VS Code's terminal process that have a terminal. It also runs programs for itself.
function shellsBelow(pid) {
  return childrenOfType(pid, "ptyHost").flatMap(childrenOf).filter(terminalOf);
}

function typedAt(pid) {
  try {
    // The kernel counts reads of a terminal as access, in steps of 8 s; writes are no access.
    return fs.statSync(terminalOf(pid)).atimeMs / 1000;
  } catch {
    return 0;
  }
}

// Every process in a terminal, and processes of earlier samples that have detached from one.
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

class TerminalMonitor {
  // `longest` is for how long a command may ask to be kept up, in seconds.
  constructor(root, longest) {
    this.root = root;
    this.known = new Map();
    this.quietJobs = new QuietJobs();
    this.keeps = new Keeps(longest);
    this.sampledAt = 0;
    this.activity = { input_at: 0, busy_at: 0, busy: "", jobs: [], quiet: {} };
  }

  // The activity in the terminals below `root`; `now` in seconds since the epoch.
  async sample(now) {
    const shells = shellsBelow(this.root);
    const found = processesOf(shells, this.known);
    const isUse = (ticks) => ticks / TICKS > SHARE * Math.min(now - this.sampledAt, (10 * INTERVAL) / 1000);
    // CPU time before the first sample may have been used at any time.
    const busy = this.sampledAt > 0 && isUse(cpuOf(found.values()) - cpuOf(this.known.values()));
    const quiet = await this.quietJobs.sample(found, now, isUse);
    const jobs = [...found].filter(([pid]) => !shells.includes(pid)).map(([, each]) => each.name);
    this.activity = {
      input_at: Math.max(0, ...shells.map(typedAt)),
      busy_at: busy ? now : this.activity.busy_at,
      busy: busy ? busiest(found, this.known) : this.activity.busy,
      jobs: [...new Set(jobs)].sort().slice(0, NAMES),
      quiet: { ...quiet, ...this.keeps.sample(found, now) },
    };
    this.known = found;
    this.sampledAt = now;
    return this.activity;
  }
}

function busiest(found, known) {
  const used = ([pid, each]) => each.own - (known.get(pid)?.own ?? 0);
  return [...found].reduce((most, each) => (used(each) > used(most) ? each : most))[1].name;
}

// Samples while this process lives, and writes changes.
function start() {
  const monitor = new TerminalMonitor(process.pid, Number(process.env.KEEPALIVE_MAX ?? Infinity));
  let written = "";
  const write = async () => {
    const text = JSON.stringify(await monitor.sample(Date.now() / 1000));
    if (text === written) return;
    try {
      replace(file, text);
      written = text;
    } catch {
      // The volume is full: the next sample tries again.
    }
  };
  // The first sample is not immediate: nothing runs yet, and users wait for the editor to start.
  const later = () => setTimeout(() => write().then(later), INTERVAL).unref();
  later();
}

module.exports = { TerminalMonitor, start };
