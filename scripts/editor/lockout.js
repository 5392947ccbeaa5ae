"use strict";
// Ends every connection to the editor when its workspace's passes have been taken back: whoever has a good one again
// comes back through the door, and nobody else does. Terminals and what runs in them go on, and so do files.
//
// The agent says when, by a file in the folder of signs (app/agent/activity.py). VS Code hands the socket of a page's
// extensions over to a process of theirs, which ends with it; everything else is the server's own. A process that is
// only started then, for a socket that was ended, waits for that a minute in vain and ends.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { childrenOfType } = require("./proc");

const folder = path.join(os.homedir(), ".local", "state", "workspace");
const SIGN = "lockout";

function start(server) {
  const open = new Set();
  server.on("connection", (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  const end = () => {
    for (const socket of open) socket.destroy();
    for (const pid of childrenOfType(process.pid, "extensionHost")) {
      try {
        process.kill(pid);
      } catch {
        // It ended.
      }
    }
  };
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const watcher = fs.watch(folder, { persistent: false }, (_, name) => name === SIGN && end());
    // The folder was taken away: what lives without it has no activity either.
    watcher.on("error", () => watcher.close());
  } catch (error) {
    console.error(`connections will not be ended with their passes: ${error.message}`);
  }
}

module.exports = { start };
