"use strict";
// The addresses of the loopback where a program of the workspace listens on a port.
//
// A pod's network is the workspace's own, and so is all that listens there. Workspaces on one machine share its
// network: there a visitor of one must reach neither another one's programs nor the machine's own, such as Redis.
const { entries, link, listeners, read, statOf } = require("./proc");

// What a connection may lead to, by the address of the listening socket as the kernel writes it, the first that exists.
const WAYS = [
  {
    address: "127.0.0.1",
    family: 4,
    sockets: ["0100007F", "0000000000000000FFFF00000100007F", "00000000", "0".repeat(32)],
  },
  { address: "::1", family: 6, sockets: ["00000000000000000000000001000000", "0".repeat(32)] },
];

// Whether a process, or one above it, has the mark that all processes of a workspace inherit: some servers write over
// their own environment.
function isOf(pid, uuid) {
  if (!uuid) return false;
  for (let each = Number(pid); each > 1; each = statOf(each)?.parent ?? 0) {
    if (read(`/proc/${each}/environ`).split("\0").includes(`WORKSPACE_UUID=${uuid}`)) return true;
  }
  return false;
}

// By socket, the link of a workspace's process to it.
function holdersOf(sockets, uuid) {
  const found = new Map();
  for (const pid of entries("/proc").filter((name) => /^\d+$/.test(name) && isOf(name, uuid))) {
    for (const fd of entries(`/proc/${pid}/fd`)) {
      const name = `/proc/${pid}/fd/${fd}`;
      const socket = link(name);
      if (sockets.has(socket)) found.set(socket, name);
    }
  }
  return found;
}

// In a shared network: where this workspace's programs listen.
class OwnListeners {
  #uuid;
  #found = new Map(); // By port: the ways, and the links by which they were found.

  constructor(uuid) {
    this.#uuid = uuid;
  }

  // The addresses at which a connection to this port leads to the workspace's own programs.
  at(port) {
    const known = this.#found.get(port);
    // While its socket is open nobody else can listen there.
    if (known?.holders.every(([socket, name]) => link(name) === socket)) return known.ways;
    this.#found.delete(port);
    const there = listeners().filter((each) => each.port === port);
    if (!there.length) return [];
    const holders = holdersOf(new Set(there.map((each) => each.socket)), this.#uuid);
    const ways = WAYS.filter(({ sockets }) => {
      const first = sockets.find((address) => there.some((each) => each.address === address));
      const reached = there.filter((each) => each.address === first);
      return reached.length && reached.every((each) => holders.has(each.socket));
    });
    if (ways.length) this.#found.set(port, { ways, holders: [...holders] });
    return ways;
  }
}

// In a network of the workspace's own, a connection tells.
class AnyListeners {
  at() {
    return WAYS;
  }
}

module.exports = { AnyListeners, OwnListeners };
