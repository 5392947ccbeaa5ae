"use strict";
// Ends the connections to the editor that were made before access to its workspace was revoked: who still has access
// reconnects through forward auth, others can't. Terminals, what runs in them, and files are left alone.
//
// Forward auth names the session's access epoch, which grows with each revocation, in every request. The first request
// of a new epoch, or the manager's order with it (guard.js), ends all connections there are, as they are older; those
// made afterwards stay, also when the order is repeated. Before a stop the agent replaces a file in the folder of
// signals (app/agent/activity_reporter.py), which ends every connection.
//
// VS Code hands the socket of a page's extensions to an extension host process, which ends with it; all other sockets
// are the server's own. An extension host that is still starting for an ended socket waits a minute for it, then ends.
const fs = require("node:fs");
const { SIGNALS } = require("./files");
const { childrenOfType } = require("./proc");

const STOPPING = "stopping";
const LATE = 60_000; // ms in which a request that was let in before a revocation may still arrive.

class Connections {
  #open = new Set();
  #epoch;
  #since = -Infinity;

  constructor(server) {
    server.on("connection", (socket) => {
      this.#open.add(socket);
      socket.once("close", () => this.#open.delete(socket));
    });
  }

  // Whether to serve a request of this access epoch (undefined: it names none). A lower epoch is that of a request let
  // in before a revocation, or, when no such request can be on its way any more, that of a restored state of the manager.
  admit(epoch, socket) {
    if (epoch === undefined || epoch === this.#epoch) return true;
    if (epoch < this.#epoch && performance.now() - this.#since < LATE) return false;
    if (epoch > this.#epoch) this.#end(socket);
    this.#follow(epoch);
    return true;
  }

  // Ends the connections of other access epochs than this one, but for `spared`; every one if no epoch is given.
  end(epoch, spared) {
    if (epoch !== undefined && epoch === this.#epoch) return;
    this.#end(spared);
    if (epoch !== undefined) this.#follow(epoch);
  }

  #follow(epoch) {
    this.#epoch = epoch;
    this.#since = performance.now();
  }

  #end(spared) {
    for (const socket of this.#open) if (socket !== spared) socket.destroy();
    for (const pid of childrenOfType(process.pid, "extensionHost")) {
      try {
        process.kill(pid);
      } catch {
        // It ended.
      }
    }
  }
}

// Ends all connections when the agent says that the workspace is about to stop.
function endBeforeStop(connections) {
  try {
    fs.mkdirSync(SIGNALS, { recursive: true, mode: 0o700 });
    const watcher = fs.watch(SIGNALS, { persistent: false }, (_, name) => name === STOPPING && connections.end());
    // The folder was deleted, and with it the activity signals.
    watcher.on("error", () => watcher.close());
  } catch (error) {
    console.error(`connections will not end before the workspace stops: ${error.message}`);
  }
}

module.exports = { Connections, endBeforeStop };
