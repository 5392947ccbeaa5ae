"use strict";
// The jobs that count though they use no CPU: the foreground job of a terminal that is at work (foreground.js), and the
// command of a `keep`. Both samplers take the processes in terminals (a map of what statOf answers by pid) and the time in
// seconds since the epoch, and answer {} for no job.
const fs = require("node:fs");
const path = require("node:path");
const { foregroundJobs, isAtWork } = require("./foreground");
const { argumentsOf, cpuOf } = require("./proc");

class QuietJobs {
  constructor() {
    this.jobs = new Map();
  }

  // Of the foreground jobs that are at work and use no CPU now, the one that was the last to use CPU or its terminal.
  // `isUse` says whether so much CPU time since the last sample is more than what waiting takes.
  async sample(processes, now, isUse) {
    const before = this.jobs;
    this.jobs = new Map();
    let latest = {};
    for (const [terminal, pids] of foregroundJobs(processes)) {
      const members = [...pids].map((pid) => processes.get(pid));
      const [{ group, name }] = members;
      const known = before.get(terminal);
      const total = cpuOf(members);
      const busy = isUse(total - (known?.group === group ? known.total : 0));
      const usedAt = busy ? now : (known?.usedAt ?? 0);
      this.jobs.set(terminal, { group, total, usedAt });
      const workedAt = Math.max(usedAt, touchedAt(terminal));
      if (busy || workedAt <= (latest.worked_at ?? 0) || !(await isAtWork(pids, terminal))) continue;
      latest = { at: now, name: processes.get(Number(group))?.name ?? name, worked_at: workedAt };
    }
    return latest;
  }
}

class Keeps {
  // `longest` is for how long a command may ask to be kept up, in seconds.
  constructor(longest) {
    this.longest = longest;
    this.known = new Map();
  }

  // The command that asks for the latest end.
  sample(processes, now) {
    const before = this.known;
    this.known = new Map();
    let last = {};
    for (const [pid, { name, start }] of processes) {
      if (name !== "keep") continue;
      const known = before.get(pid);
      const asked = known?.start === start ? known : this.asked(pid, start, now);
      if (!asked) continue;
      this.known.set(pid, asked);
      if (asked.until > Math.max(now, last.until ?? 0)) last = { at: now, name: asked.command, until: asked.until };
    }
    return last;
  }

  // What a process of app/editor/keep asks for by its arguments.
  asked(pid, start, now) {
    const [, , minutes, separator, command] = argumentsOf(pid);
    const seconds = separator === "--" ? 60 * Number(minutes) : 0;
    return seconds > 0 && { start, command: path.basename(command), until: now + Math.min(seconds, this.longest) };
  }
}

// When a terminal was last read from or written to.
function touchedAt(terminal) {
  try {
    const { atimeMs, mtimeMs } = fs.statSync(terminal);
    return Math.max(atimeMs, mtimeMs) / 1000;
  } catch {
    return 0; // It was closed.
  }
}

module.exports = { QuietJobs, Keeps };
