"use strict";
// The job in the foreground of each terminal, and whether it is at work though it uses no CPU: it waits neither for the
// terminal's input, as a shell's prompt, vim and a REPL do, nor for connections to a port, as a dev server does.
//
// What a thread waits for is in /proc/pid/syscall, and the file descriptors that a poll(2) or select(2) watches are in
// the process's memory (proc(5)). Where the kernel shows neither, the terminal's mode alone tells.
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const { entries, link, listeners, read } = require("./proc");

const LIMIT = 2_000; // ms for stty(1).
const WATCHED = 1_024; // File descriptors that are looked at in one call.
const INPUT = 1; // POLLIN, which is EPOLLIN too.

// System calls that may wait for input, by their number on each kind of machine.
const CALLS = {
  x64: { 0: reads, 19: reads, 7: polls, 271: polls, 23: selects, 270: selects, 232: epolls, 281: epolls, 441: epolls },
  arm64: { 63: reads, 65: reads, 73: polls, 72: selects, 22: epolls, 441: epolls },
};

// The foreground jobs of processes (a map of what statOf answers by pid): the pids of each by its terminal's device, with
// all processes below them, whichever group those are in.
function foregroundJobs(processes) {
  const jobs = new Map();
  const children = new Map();
  const add = (map, key, pid) => map.set(key, (map.get(key) ?? new Set()).add(pid));
  for (const [pid, { parent, terminal, group, foreground }] of processes) {
    add(children, parent, pid);
    if (terminal && group === foreground) add(jobs, terminal, pid);
  }
  // A set goes through what is added meanwhile, too.
  for (const pids of jobs.values()) {
    for (const pid of pids) children.get(pid)?.forEach((child) => pids.add(child));
  }
  return jobs;
}

// Whether a job, by its pids, is at work. A terminal that is not in line mode belongs to a program that reads keys.
async function isAtWork(pids, terminal) {
  const all = [...pids];
  return !all.some((pid) => waitsFor(pid, terminal)) && !listens(all) && (await isInLineMode(terminal));
}

function waitsFor(pid, terminal) {
  return entries(`/proc/${pid}/task`).some((thread) => {
    const [call, ...args] = read(`/proc/${pid}/task/${thread}/syscall`).split(" ");
    const watched = CALLS[process.arch]?.[call];
    return Boolean(watched) && watched(pid, ...args).some((fd) => isTerminal(pid, fd, terminal));
  });
}

// Each answers the file descriptors from which a system call with these arguments waits for input.
function reads(pid, fd) {
  return [Number(fd)];
}

function polls(pid, address, count) {
  const found = [];
  const asked = memoryOf(pid, address, 8 * Math.min(Number(count), WATCHED));
  for (let at = 0; at + 8 <= asked.length; at += 8) {
    if (asked.readInt16LE(at + 4) & INPUT) found.push(asked.readInt32LE(at));
  }
  return found;
}

function selects(pid, count, address) {
  const found = [];
  const asked = memoryOf(pid, address, Math.ceil(Math.min(Number(count), WATCHED) / 8));
  for (let fd = 0; fd < 8 * asked.length; fd++) if (asked[fd >> 3] & (1 << (fd & 7))) found.push(fd);
  return found;
}

function epolls(pid, fd) {
  const watched = read(`/proc/${pid}/fdinfo/${Number(fd)}`).matchAll(/^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)/gm);
  return [...watched].filter(([, , events]) => parseInt(events, 16) & INPUT).map(([, each]) => Number(each));
}

function memoryOf(pid, address, length) {
  const bytes = Buffer.alloc(length);
  let file;
  try {
    file = fs.openSync(`/proc/${pid}/mem`);
    return bytes.subarray(0, fs.readSync(file, bytes, 0, length, BigInt(address)));
  } catch {
    return bytes.subarray(0, 0); // It ended, or the address is none.
  } finally {
    if (file !== undefined) fs.closeSync(file);
  }
}

function isTerminal(pid, fd, terminal) {
  return [terminal, "/dev/tty"].includes(link(`/proc/${pid}/fd/${fd}`));
}

function listens(pids) {
  const sockets = new Set(listeners().map((each) => each.socket));
  return pids.some((pid) => entries(`/proc/${pid}/fd`).some((fd) => sockets.has(link(`/proc/${pid}/fd/${fd}`))));
}

function isInLineMode(terminal) {
  return new Promise((resolve) => {
    execFile("stty", ["-a", "-F", terminal], { timeout: LIMIT }, (error, shown) => {
      resolve(!error && /(^|\s)icanon(\s|;|$)/m.test(shown));
    });
  });
}

module.exports = { foregroundJobs, isAtWork };
