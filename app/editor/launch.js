"use strict";
// Serves code-server in one process instead of two, which halves the time to its first answer (0.23 s to 0.12 s) and
// its memory (153 MB to 79 MB). The second process only relaunches the first after an update, and this service never
// updates a running editor.
//
// It calls code-server's own modules, so it depends on the version pinned in package.json: compare its
// out/node/entry.js when that changes. Other commands than serving go through that file as usual.
const Module = require("node:module");

// Node looks for a module that is not installed in folders of HOME and NODE_PATH, and packages here try some: ws would
// load a `bufferutil` of the user's into the process with the editor secret. Node reads both variables once; terminals
// inherit them.
const theirs = Object.entries(process.env).filter(([name]) => ["HOME", "NODE_PATH"].includes(name));
for (const [name] of theirs) delete process.env[name];
Module._initPaths();
Object.assign(process.env, Object.fromEntries(theirs));

const path = require("node:path");
const { flags } = require("./code_server.json");

const code = path.join(__dirname, "node_modules", "code-server", "out", "node");

async function serve() {
  // code-server serves in the process that knows its parent, and exits with that parent; this process is its own.
  process.env.CODE_SERVER_PARENT_PID = String(process.pid);
  // Keeps V8's compiled code for the next start: 0.02 s less. No effect if the folder can't be written.
  Module.enableCompileCache(path.join(__dirname, ".compiled"));
  const { guard, settingsOf } = require("./guard");
  const { Connections, endBeforeStop } = require("./disconnect");
  const cli = require(path.join(code, "cli"));
  const { runCodeServer } = require(path.join(code, "main"));
  const { wrapper } = require(path.join(code, "wrapper"));
  // After main, which loads it too: loaded before main it costs each start 0.03 s of CPU time.
  const app = require(path.join(code, "app"));
  try {
    // First, so that no later failure leaves the editor unguarded.
    const settings = settingsOf(process.env);
    const given = cli.parse(process.argv.slice(2));
    const args = await cli.setDefaults(given, await cli.readConfigFile(given.config));
    wrapper.preventExit();
    // code-server listens before it has started completely, so the guard is installed in listen().
    const { listen } = app;
    let guarded;
    let connections;
    app.listen = (server, options) => {
      // The server on a Unix socket is for `code` in a terminal.
      if (!options.socket) {
        connections = new Connections((guarded = server));
        guard(server, settings, connections);
      }
      return listen(server, options);
    };
    const server = await runCodeServer(args);
    if (server.server !== guarded) throw new Error("this version of code-server listens on a server without the guard");
    wrapper.onDispose(() => server.dispose());
    endBeforeStop(connections);
    require("./activity").start();
    require("./resources").start();
  } catch (error) {
    console.error(error.message);
    wrapper.exit(error);
  }
}

if (process.argv.includes(flags[0])) serve();
else require(path.join(code, "entry"));
