"use strict";
// Writes what the editor and the programs in its terminals use, for the workspace's agent (app/agent/resources.py), which in a
// cluster is another container and can't see it: CPU time (s), counted since any moment, and memory (bytes).
//
// WORKSPACE_CGROUP names the folder of the container's own control group. Where it is not set, as on one machine, or has no
// such files, as in a sandbox, the processes below this one are added up.
const path = require("node:path");
const { SIGNALS, replace } = require("./files");
const { TICKS, childrenOf, read, statOf } = require("./proc");

const INTERVAL = 10_000; // ms between two readings.
const PAGE = 4_096; // Bytes of a page, as Linux counts memory in /proc/pid/statm.

const file = path.join(SIGNALS, "resources.json");

function number(pattern, text) {
  return Number(pattern.exec(text)?.[1] ?? NaN);
}

// As the kubelet counts a container's working set: without files that the kernel can forget at once. The folder is that of
// cgroup v2, or has one for each part of v1.
function ofGroup(folder) {
  const second = read(`${folder}/memory.current`);
  const cpu = second
    ? number(/^usage_usec (\d+)$/m, read(`${folder}/cpu.stat`)) / 1e6
    : number(/^(\d+)$/m, read(`${folder}/cpuacct/cpuacct.usage`)) / 1e9;
  const all = number(/^(\d+)$/m, second || read(`${folder}/memory/memory.usage_in_bytes`));
  const forgotten = second
    ? number(/^inactive_file (\d+)$/m, read(`${folder}/memory.stat`))
    : number(/^total_inactive_file (\d+)$/m, read(`${folder}/memory/memory.stat`));
  const memory = Math.max(0, all - forgotten);
  return Number.isNaN(cpu + memory) ? undefined : { cpu_seconds: cpu, memory_bytes: memory };
}

function ofProcesses(root) {
  let ticks = 0;
  let pages = 0;
  const waiting = [root];
  while (waiting.length) {
    const pid = waiting.pop();
    ticks += statOf(pid)?.all ?? 0;
    pages += Number(read(`/proc/${pid}/statm`).split(" ")[1] ?? 0);
    waiting.push(...childrenOf(pid));
  }
  return { cpu_seconds: ticks / TICKS, memory_bytes: pages * PAGE };
}

function resources(folder, root) {
  return (folder && ofGroup(folder)) || ofProcesses(root);
}

// Reads while this process lives.
function start() {
  const write = () => {
    try {
      replace(file, JSON.stringify({ at: Date.now() / 1000, ...resources(process.env.WORKSPACE_CGROUP, process.pid) }));
    } catch {
      // The volume is full: the next reading tries again.
    }
  };
  setInterval(write, INTERVAL).unref();
}

module.exports = { resources, start };
