"use strict";
// Ends every connection to the editor after access to its workspace was revoked: users with valid access reconnect
// through forward auth, others can't. Terminals, what runs in them, and files are left alone.
//
// The agent asks for it by touching a file in the folder of signals (app/agent/activity.py). VS Code hands the socket
// of a page's extensions to an extension host process, which ends with it; all other sockets are the server's own. An
// extension host that is still starting for an ended socket waits a minute for it, then ends.
const fs = require("node:fs");
const { SIGNALS } = require("./files");
const { childrenOfType } = require("./proc");

const REQUEST = "lockout"; // The file's name, which agents of earlier releases use too.

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
    fs.mkdirSync(SIGNALS, { recursive: true, mode: 0o700 });
    const watcher = fs.watch(SIGNALS, { persistent: false }, (_, name) => name === REQUEST && end());
    // The folder was deleted, and with it the activity signals.
    watcher.on("error", () => watcher.close());
  } catch (error) {
    console.error(`connections will not end when access is revoked: ${error.message}`);
  }
}

module.exports = { start };
